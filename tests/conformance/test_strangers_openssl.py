"""openssl alone checks every signature in a bundle of ours: certificate, statement, timestamp, checkpoint."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cases import bundle_by_hand, new_desk, root_of

from fltrust.artifacts.ports import EntryKind
from fltrust.clock import SystemClock
from fltrust.testing import FakeClock


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A bundle and a trusted root as files that openssl reads."""

    folder: Path
    at: int

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60
        )


@pytest.fixture(params=[0, 300], ids=["signed now", "signed 300 days ago"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Unpacked:
    clock = FakeClock(SystemClock().now() - timedelta(days=request.param))
    desk = new_desk(clock)
    bundle = json.loads(bundle_by_hand(desk, EntryKind.HASHEDREKORD))
    root = json.loads(root_of(desk))
    envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    (stamp,) = material["timestampVerificationData"]["rfc3161Timestamps"]
    (entry,) = material["tlogEntries"]
    text, _, signature = entry["inclusionProof"]["checkpoint"]["envelope"].partition("\n\n")
    written: Mapping[str, bytes] = {
        "leaf.pem": pem(material["certificate"]["rawBytes"]),
        "statement": b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload),
        "signature": base64.b64decode(envelope["signatures"][0]["sig"]),
        "stamp.tsr": base64.b64decode(stamp["signedTimestamp"]),
        "checkpoint": text.encode() + b"\n",
        "checkpoint.sig": base64.b64decode(signature.split()[-1])[4:],
        "log.der": base64.b64decode(root["tlogs"][0]["publicKey"]["rawBytes"]),
        **chain("ca", root["certificateAuthorities"][0]),
        **chain("tsa", root["timestampAuthorities"][0]),
    }
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
    return Unpacked(tmp_path, int(clock.now().timestamp()))


def chain(name: str, authority: Mapping[str, object]) -> Mapping[str, bytes]:
    """The root, and all that stands between it and what it vouches for, as PEM files."""
    chain = authority["certChain"]
    assert isinstance(chain, dict)
    found = [pem(item["rawBytes"]) for item in chain["certificates"]]
    return {f"{name}-root.pem": found[-1], f"{name}-between.pem": b"".join(found[:-1])}


def pem(raw: str) -> bytes:
    return ssl.DER_cert_to_PEM_cert(base64.b64decode(raw)).encode()


CHAIN = ("verify", "-CAfile", "ca-root.pem", "-untrusted", "ca-between.pem", "-x509_strict")
STAMP = ("ts", "-verify", "-in", "stamp.tsr", "-CAfile", "tsa-root.pem", "-untrusted", "tsa-between.pem")


def test_the_certificates_chain_holds_when_it_was_signed_and_not_after_its_end(files: Unpacked) -> None:
    done = files.run(*CHAIN, "-attime", str(files.at), "leaf.pem")
    assert done.returncode == 0, done.stderr
    late = files.run(*CHAIN, "-attime", str(files.at + 7200), "leaf.pem")
    assert late.returncode != 0
    assert "expired" in late.stderr


def test_the_statement_is_signed_by_the_certificates_key(files: Unpacked) -> None:
    key = files.run("x509", "-in", "leaf.pem", "-pubkey", "-noout")
    (files.folder / "leaf.pub").write_text(key.stdout)
    verify = ("dgst", "-sha256", "-verify", "leaf.pub", "-signature", "signature", "statement")
    assert files.run(*verify).stdout == "Verified OK\n"
    (files.folder / "statement").write_bytes((files.folder / "statement").read_bytes() + b" ")
    assert files.run(*verify).returncode != 0


def test_the_timestamp_is_of_the_signature_and_says_when(files: Unpacked) -> None:
    at = ("-attime", str(files.at))
    done = files.run(*STAMP, *at, "-data", "signature")
    assert "Verification: OK" in done.stdout + done.stderr, done.stderr
    assert files.run(*STAMP, *at, "-data", "statement").returncode != 0
    text = files.run("ts", "-reply", "-in", "stamp.tsr", "-text").stdout
    stated = next(line for line in text.splitlines() if line.startswith("Time stamp: "))
    when = datetime.strptime(stated.removeprefix("Time stamp: "), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert abs(when.timestamp() - files.at) <= 1


def test_the_checkpoint_is_signed_by_the_logs_key(files: Unpacked) -> None:
    verify = ("pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", "log.der")
    done = files.run(*verify, "-in", "checkpoint", "-sigfile", "checkpoint.sig")
    assert done.returncode == 0, done.stderr + done.stdout
    assert files.run(*verify, "-in", "statement", "-sigfile", "checkpoint.sig").returncode != 0
