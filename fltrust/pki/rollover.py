"""The next issuing CA and the next root of a folder: made beside the present ones, then put in their place.

Files beside those of `fltrust.pki.authority`:

    next-issuing.key .csr .pem      the issuing CA to come: its key, its request, its certificate once signed
    issuing-<key id>.key            earlier keys of the issuing CA, for the CRLs of what they signed
    root-<key id>.key               a further root's key, where it lies here at all
    cross-<serial>.pem              one root, certified by another
    dropped-<key id>.pem            a root that was dropped: it does not come back
    bundle.json                     the trust bundle with its sequence, once it is not the first root alone

Every step is durable before it returns, and a crash in it leaves what was before or what is after: a key is
written under its own name before the certificate that needs it, and one file's replacement is the switch.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.errors import Conflict, NotFound, Refusal
from fltrust.files import read_bounded, sync_folder, write_durably
from fltrust.identity import Digest
from fltrust.keys.file import generate
from fltrust.keys.signer import Signer
from fltrust.keys.stored import load, save
from fltrust.pki.authority import (
    CaFiles,
    load_bundle,
    load_issuer,
    load_issuing_history,
    read_certificate,
)
from fltrust.pki.bundle import (
    MAX_BUNDLE,
    MAX_ROOTS,
    bundle_to_json,
    chain_to_pem,
    make_bundle,
    root_fingerprint,
)
from fltrust.pki.ca_certificates import (
    RootSuccession,
    check_authority,
    check_root_succession,
    create_issuing,
    create_root_succession,
    is_issued_by,
)
from fltrust.pki.csr import MAX_CSR, create_csr, parse_csr
from fltrust.pki.issuing import Entropy, Issuer, domain_of_ca
from fltrust.pki.leaf import refuse
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import CaKind, Profiles
from fltrust.pki.root_crl import create_root_crl
from fltrust.pki.types import TrustBundle


def prepare_issuing(folder: Path, *, passphrase: bytes) -> bytes:
    """Make the key of the next issuing CA in `folder` and return its request (PKCS#10, DER).

    Asked again before the switch, it gives the same key's request. `passphrase` is the present issuing
    key's, which the next one is encrypted with too. `NotFound` if there is no CA.
    """
    files = CaFiles(folder)
    present = read_certificate(files.issuing_certificate)
    if files.next_issuing_key.exists():
        signer = load(files.next_issuing_key, passphrase=passphrase)
        if signer.public_key != present.public_key():  # else it is left from a switch that a crash cut short
            return _keep_request(files, signer)
    load(files.key_of(present), passphrase=passphrase)  # a passphrase that is wrong is said now
    files.next_issuing_certificate.unlink(missing_ok=True)
    signer = generate()
    save(signer, files.next_issuing_key, passphrase=passphrase)
    return _keep_request(files, signer)


def issuing_request(folder: Path) -> bytes:
    """The request of the next issuing CA, as `prepare_issuing` gave it; `NotFound` before that."""
    path = CaFiles(folder).next_issuing_request
    if not path.exists():
        raise NotFound(f"expected a request at {path}, found none", hint="make the next issuing key first")
    return read_bounded(path, limit=MAX_CSR)


def accept_issuing(folder: Path, certificate: x509.Certificate, *, clock: Clock) -> x509.Certificate:
    """Take in the certificate of the next issuing CA, from a root ceremony; it is not used before the switch.

    1. It carries the key of the request, else `Conflict`.
    2. It is of the bundle's trust domain (``wrong-domain``) and keeps to the profile of an issuing CA
       (``certificate-profile``).
    3. A root of the bundle signed it (``certificate-path``).
    4. It is valid now (``certificate-expired``, ``certificate-not-yet-valid``).
    """
    files, bundle = CaFiles(folder), load_bundle(folder)
    # 1.
    if certificate.public_key() != parse_csr(issuing_request(folder)):
        raise Conflict("expected a certificate for the next issuing key, got one for another key")
    # 2. to 4.
    check_issuing(certificate, bundle, at=clock.now())
    write_durably(files.next_issuing_certificate, chain_to_pem([certificate]))
    return certificate


def sign_next_issuing(
    folder: Path,
    *,
    root_passphrase: bytes,
    clock: Clock,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
) -> x509.Certificate:
    """Sign the next issuing CA's request with the newest root, whose key lies in `folder`, and accept it."""
    files, root = CaFiles(folder), load_bundle(folder).roots[-1]
    certificate = create_issuing(
        root=root,
        root_signer=load(files.root_key_of(root), passphrase=root_passphrase),
        public_key=parse_csr(issuing_request(folder)),
        now=clock.now(),
        entropy=entropy,
        profiles=profiles,
        public_url=public_url,
    )
    return accept_issuing(folder, certificate, clock=clock)


def switch_issuing(
    folder: Path,
    *,
    passphrase: bytes,
    clock: Clock,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
) -> Issuer:
    """Put the accepted next issuing CA in the place of the present one, and return it ready to issue.

    The old certificate and the old key stay in the folder (`load_retired_issuers`). `NotFound` before a
    certificate was accepted; what `accept_issuing` checks is checked again.
    """
    files = CaFiles(folder)
    following = read_certificate(
        files.next_issuing_certificate, hint="have its request signed in a root ceremony"
    )
    check_issuing(following, load_bundle(folder), at=clock.now())
    if load(files.next_issuing_key, passphrase=passphrase).public_key != following.public_key():
        raise Conflict("expected the key of the next issuing certificate, got another key")
    present = read_certificate(files.issuing_certificate)
    if present.public_key() == following.public_key():
        raise Conflict("expected an issuing CA with another key than the present one's, got the same")
    key = _bytes_of(files.next_issuing_key)
    write_durably(files.earlier_issuing(present), chain_to_pem([present]))
    write_durably(files.earlier_issuing_key(present), _bytes_of(files.key_of(present)))
    write_durably(files.earlier_issuing_key(following), key)
    write_durably(files.issuing_certificate, chain_to_pem([following]))  # the switch
    write_durably(files.issuing_key, key)
    for path in (
        files.earlier_issuing_key(following),
        files.next_issuing_certificate,
        files.next_issuing_request,
        files.next_issuing_key,
    ):
        path.unlink(missing_ok=True)
    sync_folder(folder)
    return load_issuer(
        folder, passphrase=passphrase, clock=clock, entropy=entropy, profiles=profiles, public_url=public_url
    )


def load_retired_issuers(
    folder: Path, *, passphrase: bytes, at: datetime, public_url: PublicUrl | None = None
) -> tuple[Issuer, ...]:
    """Earlier issuing CAs, oldest first, that are not over at `at` and whose key is kept: for their CRLs.

    Each with the last certificate that its key had. None of them should issue any more.
    """
    files, history = CaFiles(folder), load_issuing_history(folder)
    last = {files.earlier_issuing_key(certificate): certificate for certificate in history}
    last.pop(files.earlier_issuing_key(history[-1]))
    return tuple(
        Issuer(certificate=certificate, signer=load(path, passphrase=passphrase), public_url=public_url)
        for path, certificate in last.items()
        if path.exists() and at <= certificate.not_valid_after_utc
    )


def roll_root(
    folder: Path,
    *,
    root_passphrase: bytes,
    clock: Clock,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
) -> TrustBundle:
    """Make the next root with the newest root's key, which lies in `folder`; see `accept_root`.

    The new key is encrypted with `root_passphrase` and lies beside the old one.
    """
    files, old = CaFiles(folder), load_bundle(folder).roots[-1]
    new_signer = generate()
    succession = create_root_succession(
        old=old,
        old_signer=load(files.root_key_of(old), passphrase=root_passphrase),
        new_signer=new_signer,
        now=clock.now(),
        entropy=entropy,
        profiles=profiles,
        public_url=public_url,
    )
    save(new_signer, files.further_root_key(succession.new), passphrase=root_passphrase)
    crl = create_root_crl(root=succession.new, signer=new_signer, now=clock.now())
    write_durably(files.root_crl(succession.new), crl.public_bytes(Encoding.DER))
    return accept_root(folder, succession)


def accept_root(folder: Path, succession: RootSuccession) -> TrustBundle:
    """Add the new root of a succession to the bundle and keep the cross-certificates; returns the bundle.

    Its sequence is the next one, its last root is the new one; refusals as `check_new_root`'s. The present
    issuing CA goes on under the old root until `switch_issuing`.
    """
    check_new_root(folder, succession)
    files = CaFiles(folder)
    for cross in (succession.new_with_old, succession.old_with_new):
        write_durably(files.cross(cross), chain_to_pem([cross]))
    return change_roots(folder, add=[succession.new])


def check_new_root(folder: Path, succession: RootSuccession) -> None:
    """Return only if the new root of a succession can be added to the bundle now.

    1. It is a succession (``certificate-path``) of certificates within the profiles
       (``certificate-profile``).
    2. Its old root is in the bundle, its new one is not, and there is room for it, else `Conflict`.
    3. The new root's key was never dropped (`Conflict`, ``root-dropped``): whoever has the
       cross-certificates of a rollover, which are public, can turn them around.
    """
    # 1.
    check_root_succession(succession)
    for root in (succession.old, succession.new):
        check_authority(root, CaKind.ROOT)
    for cross in (succession.new_with_old, succession.old_with_new):
        check_authority(cross, CaKind.ROLLOVER)
    # 2.
    roots = load_bundle(folder).roots
    if succession.old not in roots:
        raise Conflict("expected a succession of a root of the bundle, got one of another root")
    _refuse_known(succession.new, roots)
    if len(roots) >= MAX_ROOTS:
        raise Conflict(f"expected at most {MAX_ROOTS} roots in the bundle, got one more")
    # 3.
    if CaFiles(folder).dropped_root(succession.new).exists():
        raise Conflict(
            "expected a root that was never in the bundle, got one that was dropped from it",
            reason="root-dropped",
            hint="make a new root, with a new key",
        )


def drop_root(folder: Path, fingerprint: Digest) -> TrustBundle:
    """Take a root out of the bundle; returns the bundle, with the next sequence.

    Refused (`Conflict`) while the present issuing CA leads to no other root of the bundle. What earlier
    issuing CAs signed under the dropped root no longer leads anywhere: wait until it ended.
    """
    gone = [root for root in load_bundle(folder).roots if root_fingerprint(root) == fingerprint]
    if not gone:
        raise NotFound(f"expected a root of the bundle with fingerprint {fingerprint}, found none")
    return change_roots(folder, remove=gone)


def change_roots(
    folder: Path,
    *,
    add: Sequence[x509.Certificate] = (),
    remove: Sequence[x509.Certificate] = (),
) -> TrustBundle:
    """Write the bundle anew, with the next sequence; roots that are added come last.

    `Conflict` for one that is there already or is not there, a bundle without roots, one that the present
    issuing CA does not lead to. ``wrong-domain`` for a root of another trust domain.
    """
    before = load_bundle(folder)
    for root in add:
        _refuse_known(root, before.roots)
        if domain_of_ca(root) != before.domain:
            refuse(f"expected a root of {before.domain}, got another's", reason=Refusal.WRONG_DOMAIN)
    if any(root not in before.roots for root in remove):
        raise Conflict("expected to remove a root of the bundle, it is not in it")
    roots = [*(root for root in before.roots if root not in remove), *add]
    issuing = read_certificate(CaFiles(folder).issuing_certificate)
    if not any(is_issued_by(issuing, root) for root in roots):
        raise Conflict(
            "expected the present issuing CA to lead to a root that stays, it leads to none",
            reason="root-in-use",
            hint="switch to an issuing CA under the new root first",
        )
    after = make_bundle(before.domain, roots, sequence=before.sequence + 1)
    for root in remove:  # before the bundle: what is dropped is known as dropped, whatever comes between
        write_durably(CaFiles(folder).dropped_root(root), chain_to_pem([root]))
    write_durably(CaFiles(folder).bundle, bundle_to_json(after))
    return after


def load_cross_certificates(folder: Path) -> tuple[x509.Certificate, ...]:
    """Roots certified by other roots of ours, and whatever cross-certificate was kept, oldest first."""
    found = [read_certificate(path) for path in folder.glob("cross-*.pem")]
    return tuple(sorted(found, key=lambda certificate: certificate.not_valid_before_utc))


def load_former_roots(folder: Path) -> tuple[x509.Certificate, ...]:
    """Roots that were dropped from the bundle, oldest first: what was signed under them goes on verifying."""
    found = [read_certificate(path) for path in folder.glob("dropped-*.pem")]
    return tuple(sorted(found, key=lambda certificate: certificate.not_valid_before_utc))


def check_issuing(certificate: x509.Certificate, bundle: TrustBundle, *, at: datetime) -> None:
    """Steps 2 to 4 of `accept_issuing`."""
    # 2.
    if domain_of_ca(certificate) != bundle.domain:
        refuse(f"expected an issuing CA of {bundle.domain}, got another's", reason=Refusal.WRONG_DOMAIN)
    check_authority(certificate, CaKind.ISSUING)
    # 3.
    if not any(is_issued_by(certificate, root) for root in bundle.roots):
        refuse(
            f"expected an issuing certificate signed by a root of {bundle.domain}, it is not",
            reason=Refusal.CERTIFICATE_PATH,
        )
    if any(certificate.public_key() == root.public_key() for root in bundle.roots):
        refuse("expected a key of the issuing CA's own, got a root's")
    # 4.
    if at > certificate.not_valid_after_utc:
        refuse("expected an issuing certificate that is valid, it ended", reason=Refusal.CERTIFICATE_EXPIRED)
    if at < certificate.not_valid_before_utc:
        refuse(
            "expected an issuing certificate that is valid, it has yet to begin",
            reason=Refusal.CERTIFICATE_NOT_YET_VALID,
        )


def _refuse_known(root: x509.Certificate, roots: Sequence[x509.Certificate]) -> None:
    if root.public_key() in [known.public_key() for known in roots]:
        raise Conflict("expected a root that is not in the bundle, got one that is")


def _keep_request(files: CaFiles, signer: Signer) -> bytes:
    request = create_csr(signer)
    write_durably(files.next_issuing_request, request)
    return request


def _bytes_of(path: Path) -> bytes:
    return read_bounded(path, limit=MAX_BUNDLE)
