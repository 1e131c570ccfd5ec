"""The signatures that every stranger is asked about, and what each of them has to answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fltrust.artifacts import sign
from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.ports import EntryKind, SigningDesk
from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.trustroot import build_trusted_root
from fltrust.clock import SystemClock
from fltrust.keys.file import FileSigner
from fltrust.pki.csr import create_csr
from fltrust.testing import FakeClock
from fltrust.testing.desk import DOMAIN, RELEASE, ScratchDesk, append_noise

SIGNER = RELEASE
ISSUER = f"spiffe://{DOMAIN}"
TIMES = "timestampVerificationData"
STATEMENT = json.dumps(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "digits", "digest": {"sha256": "ab" * 32}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"resources": [], "serialization": {"method": "files"}},
    }
).encode()


def new_desk(clock: FakeClock | None = None) -> ScratchDesk:
    """A private Sigstore in this process, by the machine's own clock, whose log holds something."""
    desk = ScratchDesk(clock=clock or SystemClock())
    append_noise(desk, (b"what was logged before, %d" % number for number in range(3)))
    return desk


def root_of(desk: ScratchDesk) -> bytes:
    return build_trusted_root(desk.trusted_root)


@dataclass(frozen=True, slots=True)
class Case:
    """One question: does this bundle verify for this identity under this root?"""

    name: str
    bundle: str
    root: bytes
    is_good: bool
    identity: str = str(SIGNER)
    issuer: str = ISSUER
    kind: EntryKind = EntryKind.HASHEDREKORD


def write_model(folder: Path) -> Path:
    """A directory with a file in a folder, an empty folder and a name that is not ASCII."""
    (folder / "parts").mkdir(parents=True)
    (folder / "config.json").write_text('{"layers": 2}\n')
    (folder / "parts" / "weights.dat").write_bytes(bytes(range(256)) * 64)
    (folder / "größe.txt").write_text("klein\n")
    (folder / "empty").mkdir()
    return folder


def bundle_by_hand(
    desk: SigningDesk, kind: EntryKind, *, late: timedelta | None = None, clock: FakeClock | None = None
) -> str:
    """A bundle of the desk's, countersigned `late` after the certificate was issued."""
    signer = FileSigner(ec.generate_private_key(ec.SECP256R1()))
    certificate = desk.certify_signer(create_csr(signer))[0]
    envelope = SignedEnvelope.sign(STATEMENT, signer=signer)
    if late is not None and clock is not None:
        clock.advance(late)
    return desk.countersign(envelope.to_json(), certificate, entry_kind=kind).decode()


def all_cases(folder: Path) -> Iterator[Case]:
    desk = new_desk()
    model = write_model(folder / "digits")
    trust = TrustFile.parse(root_of(desk))
    for kind in EntryKind:
        signed = sign(model, desk=desk, trust=trust, entry_kind=kind, out=folder / f"{kind}.sig")
        good, other = signed.signature.read_text(), bundle_by_hand(desk, kind)
        yield from _of_kind(kind, good, other, root_of(desk))
        yield from _out_of_time(kind)


def _of_kind(kind: EntryKind, good: str, other: str, root: bytes) -> Iterator[Case]:
    def case(name: str, bundle: str = good, *, is_good: bool = False, **more: str) -> Case:
        return Case(f"{kind}: {name}", bundle, root, is_good, kind=kind, **more)

    yield case("as we sign it", is_good=True)
    yield case("for another identity", identity=f"{ISSUER}/signer/somebody-else")
    yield case("of another issuer", issuer="spiffe://elsewhere.example")
    yield replace(case("under another federation's root"), root=root_of(new_desk()))
    yield case("with another payload", with_payload(good, b"digits", b"digitz"))
    yield case("with another signature", with_signature_of(good, other))
    yield case("with another's certificate, time and entry", with_material_of(good, other))
    yield case("with another's log entry", changed(good, "tlogEntries", material(other)["tlogEntries"]))
    yield case("without a log entry", changed(good, "tlogEntries", []))
    yield case("with a timestamp of another", changed(good, TIMES, material(other)[TIMES]))
    yield case("at another place of the log", with_index(good))


def _out_of_time(kind: EntryKind) -> Iterator[Case]:
    clock = FakeClock(SystemClock().now() - timedelta(days=300))
    desk = new_desk(clock)
    bundle, root = bundle_by_hand(desk, kind), root_of(desk)
    yield Case(f"{kind}: 300 days ago, by a certificate long expired", bundle, root, True, kind=kind)
    clock = FakeClock(SystemClock().now() - timedelta(days=2))
    desk = new_desk(clock)
    bundle = bundle_by_hand(desk, kind, late=timedelta(hours=2), clock=clock)
    yield Case(f"{kind}: timestamped after the certificate's end", bundle, root_of(desk), False, kind=kind)


def material(bundle: str) -> dict[str, object]:
    found = json.loads(bundle)["verificationMaterial"]
    assert isinstance(found, dict)
    return found


def with_payload(bundle: str, old: bytes, new: bytes) -> str:
    value = json.loads(bundle)
    payload = base64.b64decode(value["dsseEnvelope"]["payload"])
    assert old in payload
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(old, new)).decode()
    return json.dumps(value)


def with_signature_of(bundle: str, other: str) -> str:
    value = json.loads(bundle)
    value["dsseEnvelope"]["signatures"] = json.loads(other)["dsseEnvelope"]["signatures"]
    return json.dumps(value)


def with_material_of(bundle: str, other: str) -> str:
    value = json.loads(bundle)
    value["verificationMaterial"] = json.loads(other)["verificationMaterial"]
    return json.dumps(value)


def with_index(bundle: str) -> str:
    value = json.loads(bundle)
    (entry,) = value["verificationMaterial"]["tlogEntries"]
    entry["logIndex"] = entry["inclusionProof"]["logIndex"] = "1"
    return json.dumps(value)


def changed(bundle: str, name: str, new: object) -> str:
    """The bundle with one part of its verification material replaced."""
    value = json.loads(bundle)
    assert value["verificationMaterial"][name] != new
    value["verificationMaterial"][name] = new
    return json.dumps(value)
