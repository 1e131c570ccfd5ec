"""What a signature costs by the kind of its key, and what ML-DSA-65 adds: signatures a second, and bytes.

One thread unless said. Keys in files sign in this process; SoftHSM is a software token, so its figure is the
cost of the way there (lock, call, verification of what comes back) and not that of an HSM.
Run it: ``python -m benchmarks.keys`` prints JSON. Without SoftHSM its rows are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import SystemClock
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import Signer, generate, verify_signature
from fltrust.keys.mldsa import generate_mldsa, verify_mldsa
from fltrust.pki import Draft, Issuer, create_issuing, create_root
from fltrust.pki.second import (
    SecondAuthority,
    create_second_issuing,
    create_second_root,
    verify_second_chain,
)
from fltrust.updates.dsse import Envelope
from fltrust.updates.second import SecondSignature

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
DOMAIN = TrustDomain("hospitals.example")
PAYLOAD = b"x" * 1_500
"""About the size of an update's statement."""
SECONDS = 1.0


def measure() -> dict[str, float]:
    figures: dict[str, float] = {}
    signer, mldsa = generate(), generate_mldsa()
    classical, second = signer.sign(PAYLOAD), mldsa.sign(PAYLOAD)
    figures["p256_sign_per_s"] = _rate(lambda: signer.sign(PAYLOAD))
    figures["p256_verify_per_s"] = _rate(lambda: verify_signature(signer.public_key, classical, PAYLOAD))
    figures["mldsa65_sign_per_s"] = _rate(lambda: mldsa.sign(PAYLOAD))
    figures["mldsa65_verify_per_s"] = _rate(lambda: verify_mldsa(mldsa.public_key, second, PAYLOAD))
    figures |= _chains()
    if MODULE.exists():
        figures |= _softhsm()
    return figures


def _chains() -> dict[str, float]:
    now = SystemClock().now()
    who = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")
    root_key, issuing_key, key = generate(), generate(), generate()
    root = create_root(DOMAIN, signer=root_key, now=now)
    issuing = create_issuing(root=root, root_signer=root_key, public_key=issuing_key.public_key, now=now)
    leaf = Issuer(certificate=issuing, signer=issuing_key).redeem(Draft.of(who, key.public_key, now=now))
    first = Envelope.sign(PAYLOAD, signer=key)
    second_root_key, second_issuing_key, second_key = (generate_mldsa() for _ in range(3))
    second_root = create_second_root(DOMAIN, second_root_key, now=now)
    authority = SecondAuthority(
        create_second_issuing(second_root, second_root_key, second_issuing_key, now=now), second_issuing_key
    )
    issued = authority.issue(who, second_key.public_key, now=now, not_after=now + timedelta(hours=1))
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in issued)
    second = SecondSignature.sign(PAYLOAD, signer=second_key, chain=chain)
    return {
        "first_chain_bytes": sum(map(_size, (leaf, issuing))),
        "second_chain_bytes": sum(map(len, chain)),
        "first_envelope_bytes": len(first.to_json()),
        "second_signature_bytes": len(second.to_json()),
        "second_chain_verify_per_s": _rate(
            lambda: verify_second_chain(chain, root=second_root, at=now, expect=who)
        ),
    }


def _softhsm() -> dict[str, float]:
    from fltrust.keys.homes import generate_key, open_key

    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        (where / "tokens").mkdir()
        (where / "conf").write_text(f"directories.tokendir = {where}/tokens\nlog.level = ERROR\n")
        (where / "pin").write_text("1234")
        (where / "pin").chmod(0o600)
        os.environ["SOFTHSM2_CONF"] = str(where / "conf")
        command = [
            "softhsm2-util",
            "--init-token",
            "--free",
            "--label",
            "b",
            "--pin",
            "1234",
            "--so-pin",
            "1234",
        ]
        subprocess.run([*command, "--pin", "1234", "--so-pin", "1234"], check=True, capture_output=True)
        uri = f"pkcs11:token=b;object=k?module-path={MODULE}&pin-source=file:{where}/pin"
        signer = open_key(generate_key(uri))
        return {
            "softhsm_sign_per_s": _rate(lambda: signer.sign(PAYLOAD)),
            "softhsm_sign_four_threads_per_s": _together(signer),
        }


def _together(signer: Signer) -> float:
    counts = [0.0] * 4

    def run(place: int) -> None:
        counts[place] = _rate(lambda: signer.sign(PAYLOAD))

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def _rate(call: Callable[[], object]) -> float:
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < SECONDS:
        call()
        count += 1
    return count / spent


def _size(certificate: x509.Certificate) -> int:
    return len(certificate.public_bytes(Encoding.DER))


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
