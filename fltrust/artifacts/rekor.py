"""How a signature stands in the log: Rekor's canonicalized bodies, written and checked.

    hashedrekord/0.0.2  {"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":
                          {"data":{"algorithm":"SHA2_256","digest":SHA-256 of the DSSE PAE},
                           "signature":{"content":signature,"verifier":
                             {"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":DER}}}}}}
    dsse/0.0.1          {"apiVersion":"0.0.1","kind":"dsse","spec":
                          {"envelopeHash":{"algorithm":"sha256","value":…},
                           "payloadHash":{"algorithm":"sha256","value":SHA-256 of the payload},
                           "signatures":[{"signature":…,"verifier":certificate in PEM}]}}

An entry is good for one signature by one certificate over one statement; the check recomputes it
whole. Only the ``envelopeHash`` of the second form cannot be recomputed from a bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from fltrust import strictjson
from fltrust.artifacts.bundle import InclusionProof, SigstoreBundle, TlogEntry
from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.errors import EvidenceInvalid, Malformed
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.tlog.ports import MAX_ENTRY

if TYPE_CHECKING:
    from fltrust.artifacts.ports import EntryKind

_KEY_DETAILS = "PKIX_ECDSA_P256_SHA_256"


def build_body(envelope: SignedEnvelope, certificate: bytes, *, kind: EntryKind) -> bytes:
    """The entry's content, as it is hashed into the log: canonical JSON (RFC 8785; it is all ASCII)."""
    name, _, version = kind.rpartition("-")
    return strictjson.encode(
        {"apiVersion": version, "kind": name, "spec": _SPECS[name, version](envelope, certificate)}
    )


def check_body(entry: TlogEntry, envelope: SignedEnvelope, certificate: bytes) -> None:
    """Raise `EvidenceInvalid` unless the entry is about exactly this signature, certificate and statement.

    ``reason``: ``log-entry-kind`` for a kind not known here, else ``log-entry-mismatch``.
    """
    spec_of = _SPECS.get((entry.kind, entry.version))
    if spec_of is None:
        raise EvidenceInvalid(
            f"expected a log entry of hashedrekord/0.0.2 or dsse/0.0.1, got {entry.kind}/{entry.version}",
            reason="log-entry-kind",
        )
    try:
        found = strictjson.decode_any(entry.body, limit=MAX_ENTRY, what="a log entry")
    except Malformed as error:
        raise EvidenceInvalid(error.message, reason="log-entry-mismatch") from None
    expected: object = {
        "apiVersion": entry.version,
        "kind": entry.kind,
        "spec": spec_of(envelope, certificate),
    }
    if entry.kind == "dsse":
        found, expected = _comparable(found), _comparable(expected)
    if found != expected:
        raise EvidenceInvalid(
            "expected the log entry to be about this signature, certificate and statement, "
            "it is about another",
            reason="log-entry-mismatch",
        )


def promise_payload(body: bytes, *, integrated_time: int, log_id: bytes, index: int) -> bytes:
    """What a signed entry timestamp is over (Rekor v1, "SET"): canonical JSON of the entry as logged."""
    return strictjson.encode(
        {
            "body": to_base64(body),
            "integratedTime": integrated_time,
            "logID": log_id.hex(),
            "logIndex": index,
        }
    )


def assemble_bundle(
    *,
    envelope: SignedEnvelope,
    certificate: bytes,
    timestamps: Sequence[bytes],
    kind: EntryKind,
    body: bytes,
    log_id: bytes,
    index: int,
    tree_size: int,
    root: bytes,
    proof: Sequence[bytes],
    checkpoint: bytes,
    integrated_time: int | None = None,
    promise: bytes | None = None,
) -> bytes:
    """The Sigstore bundle (JSON, one byte form) of a signature that was timestamped and logged.

    `certificate` is the leaf in DER; `timestamps` are RFC 3161 responses in DER over the signature;
    `body` is what `build_body` gave. `log_id` is the trusted root's ``logId.keyId`` of the key that
    signed the `checkpoint` (a signed note) and, where there is one, the `promise`.
    """
    name, _, version = kind.rpartition("-")
    entry = TlogEntry(
        log_id=log_id,
        kind=name,
        version=version,
        index=index,
        body=body,
        proof=InclusionProof(index, tree_size, root, tuple(proof), checkpoint),
        integrated_time=integrated_time,
        promise=promise,
    )
    check_body(entry, envelope, certificate)
    return SigstoreBundle(certificate, envelope, (entry,), tuple(timestamps)).to_json()


def _hashedrekord(envelope: SignedEnvelope, certificate: bytes) -> dict[str, object]:
    return {
        "hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": to_base64(envelope.pae_digest)},
            "signature": {
                "content": to_base64(envelope.signature),
                "verifier": {
                    "keyDetails": _KEY_DETAILS,
                    "x509Certificate": {"rawBytes": to_base64(certificate)},
                },
            },
        }
    }


def _dsse(envelope: SignedEnvelope, certificate: bytes) -> dict[str, object]:
    return {
        "envelopeHash": {"algorithm": "sha256", "value": sha256(envelope.to_json()).hexdigest()},
        "payloadHash": {"algorithm": "sha256", "value": envelope.payload_digest.hex},
        "signatures": [
            {"signature": to_base64(envelope.signature), "verifier": to_base64(_pem(certificate))}
        ],
    }


_SPECS = {("hashedrekord", "0.0.2"): _hashedrekord, ("dsse", "0.0.1"): _dsse}


def _comparable(found: object) -> dict[str, object]:
    """A dsse entry without the hash of the envelope, and with the certificate's DER for its PEM, whose
    line ends are the writer's choice; anything else of another shape stays as it is, and differs."""
    if not isinstance(found, dict) or not isinstance(found.get("spec"), dict):
        return {}
    spec: dict[str, object] = dict(found["spec"])
    digest = spec.pop("envelopeHash", None)
    if not isinstance(digest, dict) or set(digest) != {"algorithm", "value"}:
        return {}
    signatures = spec.get("signatures")
    if isinstance(signatures, list):
        spec["signatures"] = [
            {**item, "verifier": _der(item.get("verifier"))} if isinstance(item, dict) else item
            for item in signatures
        ]
    return {**found, "spec": spec}


def _pem(certificate: bytes) -> bytes:
    text = to_base64(certificate)
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n".encode()


def _der(verifier: object) -> bytes | None:
    if not isinstance(verifier, str):
        return None
    try:
        lines = from_base64(verifier, "a verifier").decode("ascii").split()
        return from_base64("".join(lines[2:-2]), "a certificate")
    except (Malformed, UnicodeDecodeError):
        return None
