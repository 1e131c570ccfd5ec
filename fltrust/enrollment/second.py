"""The second key (ML-DSA-65) of an enrolled identity: made where it signs, certified on the first one's word.

    second.pem         the key (PKCS#8) and its chain of two, leaf first: one file, replaced whole
    second-next.pem    a key whose certificate was asked for

Both lie in the identity's state folder, encrypted as its own key is. Who issues gets a request (strict JSON):

    {"bundle":<the roots, as a bundle's JSON in text>,"chain":[<DER>, …],"csr":<DER>,"signature":…,
     "type":"urn:fltrust:second-request:v1"}

The CSR names the identity and is signed by the new key; `signature` is over it once more, by the key of the
identity's first certificate, which says that this is who asks. Experimental, as the second chain is.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust import strictjson
from fltrust.enrollment.private import read_private
from fltrust.errors import CertificateRefused, Malformed, NotFound, Refusal, StorageUnavailable
from fltrust.files import exclusively, remove_durably, write_durably
from fltrust.identity import Digest, SpiffeId
from fltrust.keys import Signer
from fltrust.keys.mldsa import MldsaSigner, generate_mldsa, mldsa_from_pem
from fltrust.keys.verify import verify_with
from fltrust.pki import TrustBundle, bundle_from_json, bundle_to_json, verify_certificate
from fltrust.pki.bundle import MAX_BUNDLE, certificates_from_pem, chain_to_pem, pin_bundle
from fltrust.pki.csr import MAX_CSR, create_mldsa_csr, parse_mldsa_csr
from fltrust.pki.second import SecondLeaf, second_leaf_of, verify_second_chain
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN
from fltrust.strictbase64 import from_base64, to_base64

REQUEST_TYPE = "urn:fltrust:second-request:v1"
MAX_REQUEST = 2 * MAX_BUNDLE
_CONTEXT = b"fltrust-second-request-v1\n"
_MAX_FILE = 64 * 1024
_MAX_SIGNATURE = 256
_CHAIN = 2


@dataclass(frozen=True, slots=True)
class SecondPair:
    """A second key and its chain: what an agent signs with beside its first key."""

    signer: MldsaSigner = field(repr=False)
    chain_der: tuple[bytes, ...]
    leaf: SecondLeaf

    def __post_init__(self) -> None:
        if self.leaf.public_key != self.signer.public_key:
            raise CertificateRefused(
                f"expected the second certificate of this key for {self.leaf.spiffe_id}, got another key's",
                reason=Refusal.WRONG_CERTIFICATE,
            )


def no_second_key(who: object) -> NotFound:
    """What is raised where `who` has no second key."""
    return NotFound(
        f"expected a second key (ML-DSA-65) of {who}, it has none",
        reason="second-key-missing",
        hint="make one: fltrust second request",
    )


class SecondHome:
    """The second key in the state folder of `who`.

    `load` may be called from many threads. `request` and `install` are commands: two at the same time, of
    this process or another, go one after the other. Every method raises `Malformed` or `Refused` for a file
    that is not what it should be or is open to others, and `StorageUnavailable` for a disk that refuses.
    """

    def __init__(self, folder: Path, who: SpiffeId, *, passphrase: bytes | None) -> None:
        self._folder = folder
        self._path = folder / "second.pem"
        self._next = folder / "second-next.pem"
        self._who = who
        self._passphrase = passphrase
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, ...], SecondPair] | None = None

    def load(self) -> SecondPair:
        """The pair that is there now; read again only when the file was replaced.

        `NotFound` (``second-key-missing``) where there is none, `CertificateRefused` for another identity's.
        Says nothing about its validity.
        """
        with self._lock:
            try:
                found = self._path.stat()
            except FileNotFoundError:
                raise no_second_key(self._who) from None
            except OSError as error:
                raise StorageUnavailable(f"could not read {self._path}: {error.strerror or error}") from error
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._read is None or self._read[0] != version:
                self._read = (version, self._load())
            return self._read[1]

    def request(self, signer: Signer, chain: Sequence[x509.Certificate], bundle: TrustBundle) -> bytes:
        """Make the next key, and ask for its certificate with the identity's present one (`signer`, `chain`).

        A key that was made before and has no certificate yet is asked for again; never one that is in use.
        """
        with exclusively(self._folder):
            csr = create_mldsa_csr(self._take_next(), self._who)
        return strictjson.encode(
            {
                "type": REQUEST_TYPE,
                "csr": to_base64(csr),
                "chain": [to_base64(certificate.public_bytes(Encoding.DER)) for certificate in chain],
                "bundle": bundle_to_json(bundle).decode(),
                "signature": to_base64(signer.sign(_CONTEXT + csr)),
            }
        )

    def install(self, chain_pem: bytes, *, root: x509.Certificate, at: datetime) -> SecondLeaf:
        """Put the certificate of the key that was asked for in place, in one step; its chain leads to `root`.

        The one before signs no more from then on. What it signed stays verifiable. After a crash the old
        pair is there or this one. `NotFound` where no key waits, `CertificateRefused` for a certificate that
        is not of that key, this identity, this root or this time.
        """
        chain = certificates_from_pem(chain_pem, limit=_CHAIN)
        ders = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
        leaf = verify_second_chain(ders, root=root, at=at, expect=self._who)
        with exclusively(self._folder):
            if not self._next.exists():
                raise NotFound(
                    f"expected a second key of {self._who} that waits for its certificate, found none",
                    hint="fltrust second request makes one",
                )
            pair = SecondPair(self._load_next(), ders, leaf)
            write_durably(self._path, pair.signer.to_pem(self._passphrase) + chain_to_pem(chain))
            remove_durably(self._next)
        return leaf

    def _take_next(self) -> MldsaSigner:
        if self._next.exists():
            waiting = self._load_next()
            # One that is in use was left by a crash after it was installed.
            if not self._path.exists() or self._load().signer.key_id != waiting.key_id:
                return waiting
        made = generate_mldsa()
        write_durably(self._next, made.to_pem(self._passphrase))
        return made

    def _load(self) -> SecondPair:
        pem = read_private(self._path, limit=_MAX_FILE)
        key, begin, chain = pem.partition(b"-----BEGIN CERTIFICATE-----")
        signer = mldsa_from_pem(key, passphrase=self._passphrase, where=self._path)
        found = certificates_from_pem(begin + chain, limit=_CHAIN)
        ders = tuple(certificate.public_bytes(Encoding.DER) for certificate in found)
        return SecondPair(signer, ders, second_leaf_of(ders[0], expect=self._who))

    def _load_next(self) -> MldsaSigner:
        try:
            pem = read_private(self._next, limit=_MAX_FILE)
            return mldsa_from_pem(pem, passphrase=self._passphrase, where=self._next)
        except Malformed as error:
            error.hint = f"remove {self._next} and ask again: its certificate is not here"
            raise


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request whose identity and key were proved."""

    who: SpiffeId
    public_key: MLDSA65PublicKey


def verify_request(data: bytes, *, roots: Collection[Digest], at: datetime) -> VerifiedRequest:
    """Read what `SecondHome.request` wrote, and verify it with nothing trusted but the roots' fingerprints.

    1. It is bounded, of the one form and type, else `Oversized`, `Malformed`.
    2. Its bundle has such a root, and its chain leads there and is valid at `at`, else `CertificateRefused`.
    3. The chain's key signed the CSR, else `SignatureInvalid`.
    4. The CSR is of an ML-DSA-65 key, signed by it, and for the identity of the chain (`parse_mldsa_csr`).

    Whether that identity was revoked is not known here: both signatures need its first certificate.
    """
    # 1.
    what = "a request for a second certificate"
    fields = strictjson.Fields(strictjson.decode(data, limit=MAX_REQUEST, what=what), what)
    kind = fields.text("type", limit=128)
    if kind != REQUEST_TYPE:
        raise Malformed(f"expected {what} of type {REQUEST_TYPE!r}, got {kind[:80]!r}")
    csr = from_base64(fields.text("csr", limit=2 * MAX_CSR), "the request")
    signature = from_base64(fields.text("signature", limit=_MAX_SIGNATURE), "the signature")
    each = 2 * MAX_CERTIFICATE
    chain = [from_base64(c, "a certificate") for c in fields.texts("chain", limit=MAX_CHAIN, each=each)]
    bundle = bundle_from_json(fields.text("bundle", limit=MAX_BUNDLE).encode())
    fields.done()
    # 2.
    trusted = pin_bundle(bundle, *roots)
    certificate = verify_certificate(chain, bundle=trusted, at=at, expect_domain=trusted.domain)
    # 3.
    verify_with(certificate.leaf.public_key(), signature, _CONTEXT + csr)
    # 4.
    return VerifiedRequest(certificate.spiffe_id, parse_mldsa_csr(csr, expect=certificate.spiffe_id))
