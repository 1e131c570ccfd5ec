"""CRLs of the roots in a CA's folder, ``root-<key id>.crl``: kept, accepted, and made anew to revoke a CA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.errors import Conflict, Malformed, NotFound
from fltrust.files import read_bounded, write_durably
from fltrust.keys.stored import load
from fltrust.keys.verify import is_p256
from fltrust.pki.authority import CaFiles, load_bundle
from fltrust.pki.ca_certificates import is_issued_by
from fltrust.pki.root_crl import create_root_crl, crl_from_der, crl_number, revoked_entry
from fltrust.pki.types import TrustBundle

MAX_ROOT_CRL: Final = 256 * 1024


def load_root_crls(folder: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """The CRLs of the roots of the bundle, in its order; a root that has none here is left out."""
    paths = [CaFiles(folder).root_crl(root) for root in load_bundle(folder).roots]
    return tuple(_read(path) for path in paths if path.exists())


def accept_root_crl(folder: Path, crl: x509.CertificateRevocationList) -> x509.CertificateRevocationList:
    """Keep a root's next CRL, from a ceremony.

    Refused: one that no root of the bundle signed (`Malformed`), and one that is older than the one here
    (`Conflict`): nobody un-revokes by handing in yesterday's.
    """
    root = _root_of(crl, load_bundle(folder))
    path = CaFiles(folder).root_crl(root)
    if path.exists() and crl_number(_read(path)) > crl_number(crl):
        raise Conflict("expected a CRL that is newer than the root's last one, got an older one")
    write_durably(path, crl.public_bytes(Encoding.DER))
    return crl


def revoke_under_root(
    folder: Path,
    certificates: Sequence[x509.Certificate] = (),
    *,
    reason: x509.ReasonFlags = x509.ReasonFlags.ca_compromise,
    root_passphrase: bytes,
    clock: Clock,
) -> tuple[x509.CertificateRevocationList, ...]:
    """Put CA certificates on the CRLs of the roots that signed them, whose keys lie in `folder`.

    What was revoked before stays. Without certificates, every root's CRL is made anew, for another year.
    `NotFound` for a certificate that no root of the bundle signed.
    """
    bundle, files, now = load_bundle(folder), CaFiles(folder), clock.now()
    for certificate in certificates:
        if not any(is_issued_by(certificate, root) for root in bundle.roots):
            raise NotFound("expected a certificate that a root of the bundle signed, got another")
    made = []
    for root in bundle.roots:
        ours = [certificate for certificate in certificates if is_issued_by(certificate, root)]
        if certificates and not ours:
            continue
        path = CaFiles(folder).root_crl(root)
        known = {entry.serial_number: entry for entry in _read(path)} if path.exists() else {}
        for certificate in ours:
            serial = certificate.serial_number
            known.setdefault(serial, revoked_entry(serial, at=now, reason=reason))
        signer = load(files.root_key_of(root), passphrase=root_passphrase)
        crl = create_root_crl(root=root, signer=signer, now=now, revoked=list(known.values()))
        made.append(accept_root_crl(folder, crl))
    return tuple(made)


def _root_of(crl: x509.CertificateRevocationList, bundle: TrustBundle) -> x509.Certificate:
    for root in bundle.roots:
        key = root.public_key()
        if is_p256(key) and crl.issuer == root.subject and crl.is_signature_valid(key):
            return root
    raise Malformed(f"expected a CRL that a root of {bundle.domain} signed, it is not")


def _read(path: Path) -> x509.CertificateRevocationList:
    return crl_from_der(read_bounded(path, limit=MAX_ROOT_CRL))
