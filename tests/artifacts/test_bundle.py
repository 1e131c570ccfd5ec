"""Bundles, envelopes and log entries' bodies: read strictly, written one way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signed_world import EntryKind, SignedWorld

from fltrust import strictjson
from fltrust.artifacts.bundle import MAX_BUNDLE, MEDIA_TYPE, SigstoreBundle
from fltrust.artifacts.envelope import MAX_STATEMENT, SignedEnvelope
from fltrust.artifacts.rekor import assemble_bundle, build_body, check_body
from fltrust.errors import EvidenceInvalid, Malformed, Oversized
from fltrust.keys import generate


@pytest.fixture(scope="module", params=list(EntryKind))
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder: Path = tmp_path_factory.mktemp("bundle")
    world = SignedWorld.make(folder)
    world.sign(entry_kind=request.param)
    return world.signature.read_bytes()


def edited(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(data)
    change(value)
    return json.dumps(value, indent=1).encode()


def test_what_is_written_is_read_back_to_the_byte(data: bytes) -> None:
    assert SigstoreBundle.parse(data).to_json() == data


def test_order_and_spacing_are_the_writers_own(data: bytes) -> None:
    value = json.loads(data)
    shuffled = json.dumps(dict(reversed(value.items())), indent=3).encode()
    assert SigstoreBundle.parse(shuffled) == SigstoreBundle.parse(data)


def test_absent_null_and_empty_are_one_thing_to_protobuf(data: bytes) -> None:
    def change(value: dict[str, Any]) -> None:
        value["dsseEnvelope"]["signatures"][0]["keyid"] = ""
        value["messageSignature"] = None
        value["verificationMaterial"]["publicKey"] = None
        entry = value["verificationMaterial"]["tlogEntries"][0]
        entry.setdefault("inclusionPromise", None)
        entry.setdefault("integratedTime", "0")

    assert SigstoreBundle.parse(edited(data, change)) == SigstoreBundle.parse(data)


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_an_older_bundle_has_a_chain(data: bytes, version: str) -> None:
    def change(value: dict[str, Any]) -> None:
        value["mediaType"] = f"application/vnd.dev.sigstore.bundle+json;version={version}"
        leaf = value["verificationMaterial"].pop("certificate")
        value["verificationMaterial"]["x509CertificateChain"] = {"certificates": [leaf, {"rawBytes": "AAAA"}]}

    found = SigstoreBundle.parse(edited(data, change))
    assert found.certificate == SigstoreBundle.parse(data).certificate
    assert found.intermediates == (b"\0\0\0",)
    with pytest.raises(Malformed):
        found.to_json()


def _chain_in_0_3(value: dict[str, Any]) -> None:
    leaf = value["verificationMaterial"].pop("certificate")
    value["verificationMaterial"]["x509CertificateChain"] = {"certificates": [leaf]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(mediaType="application/json"), "unknown-media-type"),
        (lambda v: v.update(messageSignature={"signature": "AAAA"}), "message-signature"),
        (lambda v: v["verificationMaterial"].update(publicKey={"hint": "x"}), "public-key"),
        (_chain_in_0_3, "certificate-count"),
        (lambda v: v["verificationMaterial"].pop("certificate"), "certificate-count"),
        (lambda v: v["dsseEnvelope"].update(payloadType="text/plain"), "unknown-payload-type"),
        (lambda v: v["dsseEnvelope"].update(signatures=[]), "signature-count"),
        (lambda v: v["dsseEnvelope"]["signatures"].append({"sig": "AAAA"}), "signature-count"),
        (
            lambda v: v["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"].append(
                v["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"][0]
            ),
            "duplicate",
        ),
        (lambda v: v["verificationMaterial"]["tlogEntries"][0].update(logIndex="01"), "malformed"),
        (lambda v: v["verificationMaterial"]["tlogEntries"][0].update(logIndex=1), "malformed"),
        (lambda v: v["verificationMaterial"]["tlogEntries"][0].update(logIndex="-1"), "malformed"),
        (lambda v: v["verificationMaterial"]["tlogEntries"][0].update(logIndex="1²"), "malformed"),
    ],
)
def test_what_is_no_bundle_of_a_statement_is_refused_with_its_own_reason(
    data: bytes, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    with pytest.raises(Malformed) as caught:
        SigstoreBundle.parse(edited(data, change))
    assert caught.value.reason == reason


def test_bounds_come_before_parsing() -> None:
    with pytest.raises(Oversized):
        SigstoreBundle.parse(b" " * (MAX_BUNDLE + 1))
    with pytest.raises(Oversized):
        SignedEnvelope(b"x" * (MAX_STATEMENT + 1), b"x" * 70)


def test_an_envelope_has_one_byte_form() -> None:
    envelope = SignedEnvelope.sign(b"{}", signer=generate())
    assert SignedEnvelope.from_json(envelope.to_json()) == envelope
    assert json.loads(envelope.to_json())["payloadType"] == "application/vnd.in-toto+json"


@pytest.mark.parametrize("kind", EntryKind)
def test_a_body_is_about_one_signature_by_one_certificate_over_one_statement(kind: EntryKind) -> None:
    signer = generate()
    envelope, other = (SignedEnvelope.sign(text, signer=signer) for text in (b"{}", b"[]"))
    again = SignedEnvelope.sign(b"{}", signer=signer)
    body = build_body(envelope, b"certificate", kind=kind)
    name, _, version = kind.rpartition("-")
    entry = _entry(name, version, body)
    check_body(entry, envelope, b"certificate")
    for signed, certificate in ((other, b"certificate"), (again, b"certificate"), (envelope, b"another")):
        with pytest.raises(EvidenceInvalid) as caught:
            check_body(entry, signed, certificate)
        assert caught.value.reason == "log-entry-mismatch"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"spec":1}', b'{"spec":{}}', b'{"spec":{"envelopeHash":{}}}']
)
@pytest.mark.parametrize("kind", EntryKind)
def test_a_body_that_is_none_is_about_something_else(kind: EntryKind, body: bytes) -> None:
    name, _, version = kind.rpartition("-")
    with pytest.raises(EvidenceInvalid) as caught:
        check_body(_entry(name, version, body), SignedEnvelope(b"{}", b"x" * 70), b"certificate")
    assert caught.value.reason == "log-entry-mismatch"


def test_a_dsse_entry_by_rekor_itself_is_told_by_what_it_names() -> None:
    """Rekor hashes the envelope as it was sent, and ends lines as it likes: neither can be recomputed."""
    envelope = SignedEnvelope.sign(b"{}", signer=generate())
    value = json.loads(build_body(envelope, b"certificate", kind=EntryKind.DSSE))
    value["spec"]["envelopeHash"]["value"] = "00" * 32
    check_body(_entry("dsse", "0.0.1", strictjson.encode(value)), envelope, b"certificate")
    value["spec"]["signatures"].append(value["spec"]["signatures"][0])
    with pytest.raises(EvidenceInvalid):
        check_body(_entry("dsse", "0.0.1", strictjson.encode(value)), envelope, b"certificate")


def test_an_entry_of_a_kind_not_known_here_is_refused() -> None:
    with pytest.raises(EvidenceInvalid) as caught:
        check_body(_entry("intoto", "0.0.2", b"{}"), SignedEnvelope(b"{}", b"x" * 70), b"c")
    assert caught.value.reason == "log-entry-kind"


def test_a_bundle_is_not_put_together_from_what_does_not_fit(data: bytes) -> None:
    found = SigstoreBundle.parse(data)
    entry = found.entries[0]
    with pytest.raises(EvidenceInvalid):
        assemble_bundle(
            envelope=SignedEnvelope(b"{}", b"x" * 70),
            certificate=found.certificate,
            timestamps=found.timestamps,
            kind=EntryKind(f"{entry.kind}-{entry.version}"),
            body=entry.body,
            log_id=entry.log_id,
            index=0,
            tree_size=1,
            root=entry.proof.root,
            proof=(),
            checkpoint=entry.proof.checkpoint,
        )


def test_the_media_type_is_that_of_bundles_0_3(data: bytes) -> None:
    assert json.loads(data)["mediaType"] == MEDIA_TYPE == "application/vnd.dev.sigstore.bundle.v0.3+json"


def _entry(kind: str, version: str, body: bytes) -> Any:
    from fltrust.artifacts.bundle import InclusionProof, TlogEntry

    return TlogEntry(b"id", kind, version, 0, body, InclusionProof(0, 1, b"", (), b""))
