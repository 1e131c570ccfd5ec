"""A CA whose root was never on this machine: its key and request first, its certificates from a ceremony."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.errors import Conflict, Malformed, NotFound, Refusal, StorageUnavailable
from fltrust.files import make_private_folder, read_bounded, sync_folder, write_durably
from fltrust.identity import Digest, TrustDomain
from fltrust.keys.file import generate
from fltrust.keys.signer import Signer
from fltrust.keys.stored import save
from fltrust.keys.verify import is_p256
from fltrust.pki.authority import CaFiles
from fltrust.pki.bundle import chain_to_pem, make_bundle, root_fingerprint
from fltrust.pki.ca_certificates import check_authority, is_issued_by
from fltrust.pki.csr import MAX_CSR, create_csr, parse_csr
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.leaf import refuse
from fltrust.pki.profiles import CaKind
from fltrust.pki.rollover import check_issuing
from fltrust.pki.types import TrustBundle


def begin_ca(folder: Path, *, issuing_passphrase: bytes, issuing_signer: Signer | None = None) -> bytes:
    """Make the issuing key of a new CA in `folder` and return its request (PKCS#10, DER).

    Asked again before `finish_ca`, it returns the same request. `Conflict` for a folder with anything else.
    """
    files = CaFiles(folder)
    if files.next_issuing_request.exists() and not files.issuing_certificate.exists():
        return read_bounded(files.next_issuing_request, limit=MAX_CSR)
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"expected no folder or an empty one at {folder}, found files in it")
    if not folder.parent.exists():
        make_private_folder(folder.parent)
    draft = CaFiles(folder.with_name(f".{folder.name}.incomplete-{secrets.token_hex(8)}"))
    make_private_folder(draft.folder)
    try:
        signer = issuing_signer or generate()
        save(signer, draft.issuing_key, passphrase=issuing_passphrase)
        request = create_csr(signer)
        write_durably(draft.next_issuing_request, request)
        os.rename(draft.folder, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise StorageUnavailable(f"could not create {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft.folder, ignore_errors=True)
    return request


def finish_ca(
    folder: Path,
    domain: TrustDomain,
    *,
    root: x509.Certificate,
    fingerprint: Digest,
    issuing: x509.Certificate,
    crl: x509.CertificateRevocationList,
    clock: Clock,
) -> TrustBundle:
    """Complete what `begin_ca` began, with the certificates of a ceremony; returns the trust bundle.

    1. The root has `fingerprint`, which came by another way, is self-signed, of `domain`, and keeps to its
       profile, else ``certificate-path``, ``wrong-domain`` or ``certificate-profile``.
    2. The issuing certificate carries the request's key (`Conflict`) and is what `accept_issuing` accepts.
    3. Everything is written, the root last: before that there is no CA here.
    """
    files = CaFiles(folder)
    if not files.next_issuing_request.exists():
        raise NotFound(f"expected a request in {folder}, found none", hint="fltrust ca request new")
    if files.root_certificate.exists():
        raise Conflict(f"expected a CA that waits for its root in {folder}, found one that has it")
    # 1.
    if root_fingerprint(root) != fingerprint or not is_issued_by(root, root):
        refuse(
            f"expected the root {fingerprint}, got {root_fingerprint(root)}",
            reason=Refusal.CERTIFICATE_PATH,
        )
    if domain_of_ca(root) != domain:
        refuse(f"expected a root of {domain}, got {domain_of_ca(root)}'s", reason=Refusal.WRONG_DOMAIN)
    check_authority(root, CaKind.ROOT)
    bundle = make_bundle(domain, [root])
    # 2.
    if issuing.public_key() != parse_csr(read_bounded(files.next_issuing_request, limit=MAX_CSR)):
        raise Conflict("expected a certificate for the key of the request, got one for another key")
    check_issuing(issuing, bundle, at=clock.now())
    key = root.public_key()
    if not is_p256(key) or crl.issuer != root.subject or not crl.is_signature_valid(key):
        raise Malformed("expected a CRL that the root signed, it is not")
    # 3.
    write_durably(files.issuing_certificate, chain_to_pem([issuing]))
    write_durably(files.root_crl(root), crl.public_bytes(Encoding.DER))
    write_durably(files.root_certificate, chain_to_pem([root]))
    files.next_issuing_request.unlink(missing_ok=True)
    sync_folder(folder)
    return bundle
