"""The timestamp authority (RFC 3161): its certificate, and its answers.

An answer says that a digest existed at a time, to the second, cut: the true time lies within the stated
accuracy of one second after it. Signed with ECDSA on P-256 and SHA-256; tokens name their certificate
by ESSCertIDv2 (RFC 5816).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import sha256
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from fltrust.clock import Clock
from fltrust.errors import Conflict, Malformed, Unavailable
from fltrust.identity import KeyId, Role, SpiffeId, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256
from fltrust.pki import rfc3161 as tsp
from fltrust.pki.issuing import Entropy, Issuer, new_serial
from fltrust.pki.leaf import PARSE_ERRORS, refuse
from fltrust.pki.profiles import BACKDATE, ServiceKind

TIMESTAMP_POLICY: Final = x509.ObjectIdentifier("2.25.105713099918803529560397040802541693307")
"""The policy that every token names: this module's docstring. A UUID as an OID (X.667): our own."""

MAX_REQUEST: Final = 4 * 1024
"""Bytes of a request; one with a SHA-512 imprint, a policy and a nonce has fewer than 200."""

_MAX_NONCE_BITS = 160
_IMPRINTS = {tsp.SHA256: 32, tsp.SHA384: 48, tsp.SHA512: 64}
_DIGEST = tsp.Algorithm(algorithm=tsp.SHA256, parameters=None)
_SIGNATURE = tsp.Algorithm(algorithm=tsp.ECDSA_WITH_SHA256, parameters=None)
_EXTENDED = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TsaDraft:
    """One timestamp authority's certificate to be. A draft is an occasion, as `fltrust.pki.Draft` is."""

    domain: TrustDomain
    public_key: ec.EllipticCurvePublicKey
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, issuer: Issuer, public_key: ec.EllipticCurvePublicKey, *, now: datetime) -> Self:
        """Draft what the profile says from `now`, or to the issuing certificate's end, if that is sooner."""
        start = now.astimezone(UTC).replace(microsecond=0)
        lifetime = issuer.profiles.services[ServiceKind.TIMESTAMPING].default_lifetime
        first, last = issuer.certificate.not_valid_before_utc, issuer.certificate.not_valid_after_utc
        return cls(issuer.domain, public_key, max(start - BACKDATE, first), min(start + lifetime, last))

    @property
    def spiffe_id(self) -> SpiffeId:
        """The coordinator's: the authority is part of it. The certificate does not say so."""
        return SpiffeId(self.domain, Role.COORDINATOR, None)


def issue_tsa(issuer: Issuer, draft: TsaDraft) -> x509.Certificate:
    """Issue a timestamp authority's certificate, once: digitalSignature and timeStamping, alone and critical.

    It has a name of its own and no SAN: it is nobody's identity. Parsed again and held against the
    profile. Refuses as `Issuer.redeem` does.
    """
    if not is_p256(draft.public_key):
        refuse("expected a P-256 key for the timestamp authority, got a key of another kind")
    profile = issuer.profiles.services[ServiceKind.TIMESTAMPING]
    if not timedelta(0) < draft.not_after - draft.not_before <= profile.max_lifetime + BACKDATE:
        refuse(f"expected a timestamp authority's certificate to live at most {profile.max_lifetime}")
    issuer.check_covers(draft)
    issuer.spend(draft)
    certificate = issuer.check_signed(
        issuer.sign(
            issuer.begin(draft, issuer.draw_serial(), profile)
            .subject_name(_name(draft))
            .add_extension(profile.key_usage, critical=True)
            .add_extension(_EXTENDED, critical=profile.is_extended_critical)
        )
    )
    check_tsa_profile(certificate)
    if certificate.public_key() != draft.public_key:
        refuse("expected the issued certificate to carry the draft's key, it does not")
    return certificate


def check_tsa_profile(certificate: x509.Certificate) -> None:
    """Return only if a certificate may timestamp: critical timeStamping as its only extended key usage
    (RFC 3161, 2.3), no CA, digitalSignature among its usages if it states any. For ours and strangers'."""
    try:
        extensions = {extension.oid: extension for extension in certificate.extensions}
    except PARSE_ERRORS as error:
        refuse(f"expected a timestamp authority's certificate, found {type(error).__name__} on reading it")
    extended = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if extended is None or not extended.critical or extended.value != _EXTENDED:
        refuse("expected critical timeStamping as the only extended key usage, found another")
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if usage is not None and not (isinstance(usage.value, x509.KeyUsage) and usage.value.digital_signature):
        refuse("expected digitalSignature among the key usages of a timestamp authority, found others")
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if constraints is not None and constraints.value != x509.BasicConstraints(ca=False, path_length=None):
        refuse("expected cA:false in a timestamp authority's certificate, found a CA")


class _Failure(IntEnum):
    """PKIFailureInfo: which bit says why a request was not answered (RFC 3161, 2.4.2)."""

    BAD_ALG = 0
    BAD_REQUEST = 2
    BAD_DATA_FORMAT = 5
    TIME_NOT_AVAILABLE = 14
    UNACCEPTED_POLICY = 15
    UNACCEPTED_EXTENSION = 16


class TimestampAuthority:
    """Answers time-stamp requests with one key and certificate; safe to call from many threads.

    `chain` is what follows the certificate, without the root: a token that carries certificates carries all.
    """

    def __init__(
        self,
        *,
        signer: Signer,
        certificate: x509.Certificate,
        chain: Sequence[x509.Certificate] = (),
        clock: Clock,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        if certificate.public_key() != signer.public_key:
            raise Conflict("expected the key of the timestamp authority's certificate, got another key")
        check_tsa_profile(certificate)
        self.certificate = certificate
        self.chain = tuple(chain)
        self._signer = signer
        self._clock = clock
        self._entropy = entropy
        # Everything but digest, time, nonce and serial is the same in every token.
        self._sid = tsp.IssuerAndSerial(
            issuer=tsp.as_tlv(certificate.issuer.public_bytes()), serial_number=certificate.serial_number
        )
        self._certificates = asn1.SetOf([certificate, *self.chain])
        named = tsp.SigningCertificateV2(
            certs=[tsp.EssCertIdV2(cert_hash=sha256(certificate.public_bytes(Encoding.DER)).digest())]
        )
        self._fixed_attributes = [
            _attribute(tsp.CONTENT_TYPE, asn1.encode_der(tsp.TST_INFO)),
            _attribute(tsp.SIGNING_CERTIFICATE_V2, asn1.encode_der(named)),
        ]

    def answer(self, request: bytes) -> bytes:
        """Answer a TimeStampReq in DER with a TimeStampResp in DER, whatever was asked.

        1. At most `MAX_REQUEST` bytes of DER, version 1, a nonce of 0 to 160 bits, else *badDataFormat*
           (*badRequest* for another version).
        2. The imprint is SHA-256, SHA-384 or SHA-512, else *badAlg*, and of that length, else
           *badDataFormat*.
        3. The policy is ours, if one is asked for, else *unacceptedPolicy*; no extensions, else
           *unacceptedExtension*.
        4. The authority's certificate is valid now, else *timeNotAvailable*.
        5. The token: nonce as it came, certificates if they were asked for, a fresh serial of 159 bits.
        """
        # 1.
        try:
            if len(request) > MAX_REQUEST:
                raise ValueError
            asked = asn1.decode_der(tsp.TimeStampReq, request)
        except ValueError:
            return _rejected(_Failure.BAD_DATA_FORMAT, "expected a TimeStampReq in DER")
        imprint, nonce = asked.message_imprint, asked.nonce
        if asked.version != 1:
            return _rejected(_Failure.BAD_REQUEST, "expected version 1")
        if nonce is not None and not 0 <= nonce < 2**_MAX_NONCE_BITS:
            return _rejected(_Failure.BAD_DATA_FORMAT, "expected a nonce of at most 160 bits")
        # 2.
        length = _IMPRINTS.get(imprint.hash_algorithm.algorithm)
        if length is None:
            return _rejected(_Failure.BAD_ALG, "expected SHA-256, SHA-384 or SHA-512")
        if len(imprint.hashed_message) != length:
            return _rejected(_Failure.BAD_DATA_FORMAT, "expected an imprint of its algorithm's length")
        # 3.
        if asked.req_policy not in (None, TIMESTAMP_POLICY):
            return _rejected(
                _Failure.UNACCEPTED_POLICY, f"expected policy {TIMESTAMP_POLICY.dotted_string}, or none"
            )
        if asked.extensions is not None:
            return _rejected(_Failure.UNACCEPTED_EXTENSION, "expected no extensions")
        # 4.
        now = self._clock.now()
        if not self.is_valid_at(now):
            return _rejected(_Failure.TIME_NOT_AVAILABLE, "the authority's certificate is not valid now")
        # 5.
        return self._granted(imprint, now, nonce=nonce, with_certificates=asked.cert_req)

    def timestamp(self, message: bytes) -> bytes:
        """Timestamp `message` (for a bundle: the signature's bytes) by its SHA-256; a TimeStampResp in DER
        with its certificates. `Unavailable` while the authority's certificate is not valid."""
        now = self._clock.now()
        if not self.is_valid_at(now):
            raise Unavailable(
                f"expected a timestamp authority that is valid at {now:%Y-%m-%dT%H:%M:%SZ}, its certificate "
                f"ended at {self.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
                hint="renew the issuing CA: fltrust coordinator renew-ca",
            )
        imprint = tsp.MessageImprint(hash_algorithm=_DIGEST, hashed_message=sha256(message).digest())
        return self._granted(imprint, now, nonce=None, with_certificates=True)

    def is_valid_at(self, at: datetime) -> bool:
        return self.certificate.not_valid_before_utc <= at <= self.certificate.not_valid_after_utc

    def _granted(
        self, imprint: tsp.MessageImprint, now: datetime, *, nonce: int | None, with_certificates: bool
    ) -> bytes:
        info = asn1.encode_der(
            tsp.TstInfo(
                version=1,
                policy=TIMESTAMP_POLICY,
                message_imprint=imprint,
                serial_number=int(new_serial(self._entropy)),
                gen_time=tsp.general_time(now),
                accuracy=tsp.Accuracy(seconds=1),
                nonce=nonce,
            )
        )
        digest = _attribute(tsp.MESSAGE_DIGEST, asn1.encode_der(sha256(info).digest()))
        attributes = asn1.SetOf([*self._fixed_attributes, digest])
        signer_info = tsp.SignerInfo(
            version=1,
            sid=self._sid,
            digest_algorithm=_DIGEST,
            signed_attributes=attributes,
            signature_algorithm=_SIGNATURE,
            signature=self._signer.sign(asn1.encode_der(attributes)),
        )
        token = tsp.ContentInfo(
            content_type=tsp.SIGNED_DATA,
            content=tsp.SignedData(
                version=3,  # the content is no plain data (RFC 5652, 5.1)
                digest_algorithms=asn1.SetOf([_DIGEST]),
                content=tsp.EncapsulatedContent(content_type=tsp.TST_INFO, content=info),
                certificates=self._certificates if with_certificates else None,
                signer_infos=asn1.SetOf([signer_info]),
            ),
        )
        status = tsp.PkiStatusInfo(status=0, status_string=None, fail_info=None)
        return asn1.encode_der(tsp.TimeStampResp(status=status, token=token))


def check_own_form(response: bytes, chain: Sequence[x509.Certificate]) -> None:
    """Return only if a response is in the form that `TimestampAuthority` writes; `Malformed` otherwise.

    Of what the signature does not cover, nothing may say anything else: no words beside *granted*, these
    versions and algorithms, three attributes, no certificate that is not of `chain`.
    """
    try:
        read = asn1.decode_der(tsp.TimeStampResp, response)
    except ValueError:
        raise Malformed("expected a timestamp in the form of our authority, found another") from None
    status, token = read.status, read.token
    signed = None if token is None else token.content
    infos = [] if signed is None else signed.signer_infos.as_list()
    if (
        (status.status, status.status_string, status.fail_info) != (0, None, None)
        or token is None
        or signed is None
        or token.content_type != tsp.SIGNED_DATA
        or signed.version != 3
        or [_pair(used) for used in signed.digest_algorithms.as_list()] != [_pair(_DIGEST)]
        or signed.content.content_type != tsp.TST_INFO
        or not set(() if signed.certificates is None else signed.certificates.as_list()) <= set(chain)
        or len(infos) != 1
        or infos[0].version != 1
        or _pair(infos[0].digest_algorithm) != _pair(_DIGEST)
        or _pair(infos[0].signature_algorithm) != _pair(_SIGNATURE)
        or len(infos[0].signed_attributes.as_list()) != 3
    ):
        raise Malformed("expected a timestamp that says what our authority says, found another")


def _pair(algorithm: tsp.Algorithm) -> tuple[x509.ObjectIdentifier, bool]:
    return algorithm.algorithm, algorithm.parameters is None


def _attribute(oid: x509.ObjectIdentifier, value: bytes) -> tsp.Attribute:
    return tsp.Attribute(type=oid, values=asn1.SetOf([tsp.as_tlv(value)]))


def _rejected(failure: _Failure, words: str) -> bytes:
    octets, unused = bytearray(failure // 8 + 1), 7 - failure % 8
    octets[-1] = 1 << unused
    status = tsp.PkiStatusInfo(
        status=2, status_string=[words], fail_info=asn1.BitString(bytes(octets), unused)
    )
    return asn1.encode_der(tsp.TimeStampResp(status=status, token=None))


def _name(draft: TsaDraft) -> x509.Name:
    key_id = KeyId.of_spki(spki_der(draft.public_key))
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, draft.domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"fltrust timestamp authority {key_id[:16]}"),
        ]
    )
