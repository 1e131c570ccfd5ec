"""A trust file from a place that is not trusted, held against the fingerprint of a root that is.

The certificate authorities are checked against the fingerprint; everything else is bound to them by the
status that the coordinator signs:

    the certificate log's key    verifies the promise in the certificate that signed the status
    the log's key                verifies the checkpoint that the status states
    the timestamp authority      leads to the root

So whoever changes the file on the way can only make it fail, or be old.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.artifacts.evidence import Trust
from fltrust.artifacts.judgement import verify_status
from fltrust.artifacts.logkeys import log_keys_of
from fltrust.artifacts.trustfile import TrustFile
from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed, PolicyNotMet, UntrustedSigner
from fltrust.identity import Digest
from fltrust.keys.verify import PublicKey
from fltrust.tlog.checkpoint import CheckpointPolicy

MAX_STATUS_AGE = timedelta(hours=1)
"""How old the status of a file may be that was fetched a moment ago."""


def check_pinned(data: bytes, *, root: Digest, at: datetime) -> TrustFile:
    """Return the trust file if all that it trusts is bound to the root with this fingerprint.

    1. It is a trust file of a trust domain, within its bounds.
    2. Every certificate authority and timestamp authority leads to the root, else `UntrustedSigner`.
    3. It has a status that verifies with nothing but the file (`fltrust.artifacts.judgement`), signed by the
       domain's coordinator, and is no older than `MAX_STATUS_AGE` at `at`, else `PolicyNotMet`
       (``status-stale``): an old file says nothing of what was revoked since.
    4. There is no certificate log but the one that the status was signed under, and no log but that one and
       the one whose checkpoint the status states, else `UntrustedSigner`.
    """
    # 1.
    file = TrustFile.parse(data)
    if file.domain is None or file.status is None:
        raise EvidenceMissing(
            "expected a trust file with a trust domain and a status, got one without",
            reason="status-missing",
        )
    # 2.
    trust = Trust.of(file)
    for chain in (*trust.root.certificate_authorities, *trust.root.timestamp_authorities):
        if _fingerprint(chain.anchor) != root:
            raise UntrustedSigner(
                f"expected everything to lead to the root {root}, got another: {_fingerprint(chain.anchor)}",
                reason="certificate-path",
                hint="is this the trust file of that federation?",
            )
    # 3.
    status = verify_status(file.status, trust=trust)
    if not at - MAX_STATUS_AGE <= status.at <= at + MAX_STATUS_AGE:
        raise PolicyNotMet(
            f"expected a status of the last {MAX_STATUS_AGE}, got one of {status.at:%Y-%m-%dT%H:%M:%SZ}",
            reason="status-stale",
            hint="is the clock right? else the file was kept back on its way",
        )
    # 4.
    if len(trust.root.ct_logs) != 1:  # it verified the promise in 3
        raise _unbound("one certificate log", f"{len(trust.root.ct_logs)}")
    if status.checkpoint is None:
        raise EvidenceMissing("expected a checkpoint in the status, got none", reason="checkpoint-missing")
    promised = _spki(trust.root.ct_logs[0].public_key)
    others = [log for log in trust.root.tlogs if _spki(log.public_key) != promised]
    if len(others) != 1:
        raise _unbound("one log whose checkpoint the status states", f"{len(others)}")
    try:
        CheckpointPolicy(log_keys_of(file)).verify(status.checkpoint.encode())
    except Malformed as error:
        raise EvidenceInvalid(error.message, reason="checkpoint-malformed") from None
    return file


def _unbound(expected: str, got: str) -> UntrustedSigner:
    return UntrustedSigner(
        f"expected {expected} in a trust file from the network, got {got}",
        reason="log-unknown",
        hint="export it from the coordinator as an enrolled identity, without --url",
    )


def _fingerprint(certificate: x509.Certificate) -> Digest:
    return Digest.sha256_of(certificate.public_bytes(Encoding.DER))


def _spki(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
