"""The embedded certificate authority: a root that is used once a year, an issuing CA that is used always.

On disk, in a folder of its own (0700):

    root.pem      root.key      the root; its key is encrypted and is not needed to run
    root-<key id>.crl           the root's CRL
    issuing.pem   issuing.key   the issuing CA; its key is encrypted too
    issuing-<serial>.pem        earlier certificates of the issuing CA, for what was signed under them

What comes beside them when a CA or a root is replaced: `fltrust.pki.rollover`.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.errors import Conflict, Malformed, NotFound, Refusal, StorageUnavailable
from fltrust.files import make_private_folder, read_bounded, sync_folder, write_durably
from fltrust.identity import Serial, TrustDomain
from fltrust.keys.file import generate
from fltrust.keys.signer import Signer
from fltrust.keys.stored import load, save
from fltrust.keys.verify import is_p256
from fltrust.pki.bundle import (
    MAX_BUNDLE,
    bundle_from_json,
    certificates_from_pem,
    chain_to_pem,
    make_bundle,
)
from fltrust.pki.ca_certificates import create_issuing, create_root, is_issued_by
from fltrust.pki.issuing import Entropy, Issuer, domain_of_ca
from fltrust.pki.leaf import ca_key_id, refuse
from fltrust.pki.pointers import PublicUrl, key_identifier_of
from fltrust.pki.profiles import Profiles
from fltrust.pki.root_crl import create_root_crl
from fltrust.pki.types import TrustBundle


@dataclass(frozen=True, slots=True)
class CaFiles:
    """Where the parts of a CA lie in its folder."""

    folder: Path

    @property
    def root_certificate(self) -> Path:
        return self.folder / "root.pem"

    @property
    def root_key(self) -> Path:
        return self.folder / "root.key"

    @property
    def issuing_certificate(self) -> Path:
        return self.folder / "issuing.pem"

    @property
    def issuing_key(self) -> Path:
        return self.folder / "issuing.key"

    def earlier_issuing(self, certificate: x509.Certificate) -> Path:
        return self.folder / f"issuing-{Serial(certificate.serial_number).hex}.pem"

    def earlier_issuing_key(self, certificate: x509.Certificate) -> Path:
        return self.folder / f"issuing-{key_identifier_of(certificate)}.key"

    def key_of(self, issuing: x509.Certificate) -> Path:
        """Where the key of an issuing certificate lies: under its own name, or as the present one's."""
        named = self.earlier_issuing_key(issuing)
        return named if named.exists() else self.issuing_key

    def further_root_key(self, root: x509.Certificate) -> Path:
        return self.folder / f"root-{key_identifier_of(root)}.key"

    def root_key_of(self, root: x509.Certificate) -> Path:
        named = self.further_root_key(root)
        return named if named.exists() else self.root_key

    def cross(self, certificate: x509.Certificate) -> Path:
        return self.folder / f"cross-{Serial(certificate.serial_number).hex}.pem"

    def dropped_root(self, root: x509.Certificate) -> Path:
        return self.folder / f"dropped-{ca_key_id(root.public_key())}.pem"

    def root_crl(self, root: x509.Certificate) -> Path:
        return self.folder / f"root-{key_identifier_of(root)}.crl"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle.json"

    @property
    def next_issuing_key(self) -> Path:
        return self.folder / "next-issuing.key"

    @property
    def next_issuing_request(self) -> Path:
        return self.folder / "next-issuing.csr"

    @property
    def next_issuing_certificate(self) -> Path:
        return self.folder / "next-issuing.pem"


def init_ca(
    folder: Path,
    domain: TrustDomain,
    *,
    root_passphrase: bytes,
    issuing_passphrase: bytes,
    clock: Clock,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
    root_signer: Signer | None = None,
    issuing_signer: Signer | None = None,
) -> TrustBundle:
    """Make a CA for `domain` in `folder`, whole or not at all, and return its trust bundle.

    A signer that is given (in an HSM, say) is that CA's key; what is not, is made, and kept in a file.

    Refuses (`Conflict`) a folder with anything in it: a root minted anew over an old one would make
    every certificate and every join token worthless. Of two that race, one wins. Everything is written
    and synced in a folder beside it, which then takes the name; a crash before that leaves no CA.
    """
    now = clock.now()
    root_signer, issuing_signer = root_signer or generate(), issuing_signer or generate()
    root = create_root(domain, signer=root_signer, now=now, entropy=entropy, profiles=profiles)
    issuing = create_issuing(
        root=root,
        root_signer=root_signer,
        public_key=issuing_signer.public_key,
        now=now,
        entropy=entropy,
        profiles=profiles,
        public_url=public_url,
    )
    _refuse_if_taken(folder)
    if not folder.parent.exists():
        make_private_folder(folder.parent)
    draft = CaFiles(folder.with_name(f".{folder.name}.incomplete-{secrets.token_hex(8)}"))
    make_private_folder(draft.folder)
    try:
        save(root_signer, draft.root_key, passphrase=root_passphrase)
        save(issuing_signer, draft.issuing_key, passphrase=issuing_passphrase)
        write_durably(draft.issuing_certificate, chain_to_pem([issuing]))
        write_durably(draft.root_certificate, chain_to_pem([root]))
        crl = create_root_crl(root=root, signer=root_signer, now=now)
        write_durably(draft.root_crl(root), crl.public_bytes(Encoding.DER))
        _take_name(draft.folder, folder)
    except BaseException:
        shutil.rmtree(draft.folder, ignore_errors=True)
        raise
    return make_bundle(domain, [root])


def load_bundle(folder: Path) -> TrustBundle:
    """Read the trust bundle of the CA in `folder`; no key is touched. `NotFound` if there is no CA.

    Before any change it is the root alone, with sequence 1 (`fltrust.pki.rollover`).
    """
    files = CaFiles(folder)
    root = read_certificate(files.root_certificate)
    if not files.bundle.exists():
        return make_bundle(domain_of_ca(root), [root])
    bundle = bundle_from_json(read_bounded(files.bundle, limit=MAX_BUNDLE))
    if {bundle.domain} != set(map(domain_of_ca, (root, *bundle.roots))):
        raise Conflict(f"expected a trust bundle of {domain_of_ca(root)} in {files.bundle}, found another's")
    return bundle


def load_issuer(
    folder: Path,
    *,
    passphrase: bytes,
    clock: Clock,
    entropy: Entropy = secrets.token_bytes,
    profiles: Profiles | None = None,
    public_url: PublicUrl | None = None,
) -> Issuer:
    """Read the issuing CA in `folder`, ready to issue; the root's key is not needed.

    Checks that key and certificate belong together (`Conflict`), that a root of the bundle signed it
    (``certificate-path``) and that it is not over (``certificate-expired``). `NotFound` if there is
    no CA; `fltrust.keys.load`'s refusals for the key.
    """
    files = CaFiles(folder)
    bundle, issuing = load_bundle(folder), read_certificate(files.issuing_certificate)
    signer = load(files.key_of(issuing), passphrase=passphrase)
    issuer = Issuer(
        certificate=issuing, signer=signer, entropy=entropy, profiles=profiles, public_url=public_url
    )
    if bundle.domain != issuer.domain:
        raise Conflict(f"expected an issuing CA of {bundle.domain} in {folder}, found {issuer.domain}")
    if not any(is_issued_by(issuing, root) for root in bundle.roots):
        refuse(
            f"expected the issuing certificate in {folder} to be signed by a root of the bundle, it is not",
            reason=Refusal.CERTIFICATE_PATH,
        )
    if clock.now() > issuing.not_valid_after_utc:
        refuse(
            f"expected an issuing certificate of {issuer.domain} that is valid, the one in {folder} "
            f"expired at {issuing.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            reason=Refusal.CERTIFICATE_EXPIRED,
        )
    return issuer


def renew_issuing(
    folder: Path,
    *,
    root_passphrase: bytes,
    clock: Clock,
    entropy: Entropy = secrets.token_bytes,
) -> x509.Certificate:
    """Give the issuing CA in `folder` a new certificate for its key, a year from now, durably.

    The key and the name stay, so leaves issued before lead to the root through either certificate.
    The old one is kept under its serial, then one file is replaced, whole: a crash leaves the old
    certificate or the new one. Refusals as
    `create_issuing`'s and `fltrust.keys.load`'s; `NotFound` if there is no CA.
    """
    files = CaFiles(folder)
    root, old = load_bundle(folder).roots[-1], read_certificate(files.issuing_certificate)
    public_key = old.public_key()
    if not is_p256(public_key):
        raise Malformed(f"expected a P-256 key in {files.issuing_certificate}, found another kind")
    issuing = create_issuing(
        root=root,
        root_signer=load(files.root_key_of(root), passphrase=root_passphrase),
        public_key=public_key,
        now=clock.now(),
        entropy=entropy,
    )
    write_durably(files.earlier_issuing(old), chain_to_pem([old]))
    write_durably(files.issuing_certificate, chain_to_pem([issuing]))
    return issuing


def load_issuing_history(folder: Path) -> tuple[x509.Certificate, ...]:
    """Every certificate that the issuing CA in `folder` had, oldest first, the present one last."""
    files = CaFiles(folder)
    present = read_certificate(files.issuing_certificate)
    earlier = {read_certificate(path) for path in folder.glob("issuing-*.pem")} - {present}
    return (*sorted(earlier, key=lambda certificate: certificate.not_valid_before_utc), present)


def _refuse_if_taken(folder: Path) -> None:
    try:
        taken = any(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageUnavailable(f"could not read {folder}: {error.strerror or error}") from error
    if taken:
        raise _taken(folder)


def _take_name(draft: Path, folder: Path) -> None:
    # rename(2) replaces an empty folder and refuses any other: the check and the act are one.
    try:
        os.rename(draft, folder)
        sync_folder(folder.parent)
    except (FileExistsError, NotADirectoryError):
        raise _taken(folder) from None
    except OSError as error:
        if any(folder.glob("*")):
            raise _taken(folder) from None
        raise StorageUnavailable(f"could not create {folder}: {error.strerror or error}") from error


def _taken(folder: Path) -> Conflict:
    return Conflict(
        f"expected no folder or an empty one at {folder}, found files in it",
        hint="use the CA that is there, or choose another folder; a root is never overwritten",
    )


_NO_CA = "'fltrust coordinator init' makes a CA; under an offline root 'ca request new', then 'ca accept'"


def read_certificate(path: Path, *, hint: str = _NO_CA) -> x509.Certificate:
    """Read the one certificate in a file; `NotFound` with this hint where there is none."""
    if not path.exists():
        raise NotFound(f"expected a CA certificate at {path}, found none", hint=hint)
    certificates = certificates_from_pem(read_bounded(path, limit=MAX_BUNDLE), limit=1)
    if len(certificates) != 1:
        raise Malformed(f"expected one certificate in {path}, found {len(certificates)}")
    return certificates[0]
