"""Keys in AWS KMS. Extra: ``aws``.

    awskms:///alias/fltrust-issuing?region=eu-central-1
    awskms:///arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab

Who may use the key is AWS's to say: credentials come from where boto3 finds them, never from the URI.

What is signed is what AWS documents: a message of at most 4,096 bytes goes as ``MessageType=RAW``, which KMS
hashes; of a longer one the SHA-256 goes, as ``MessageType=DIGEST``, which KMS does not hash again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.serialization import load_der_public_key

from fltrust.errors import FltrustError, Malformed, NotFound, Refused, Unavailable
from fltrust.keys.hardware import HardwareSigner
from fltrust.keys.query import parse_query
from fltrust.keys.verify import is_p256

_ALGORITHM = "ECDSA_SHA_256"
_SPEC = "ECC_NIST_P256"
_MAX_RAW = 4_096
_MAX_URI = 2_048
_DAYS_UNTIL_DELETION = 7
_KEY = re.compile(
    r"(?:alias/[A-Za-z0-9/_-]{1,250}"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}"
    r"|arn:aws[a-z-]*:kms:[a-z0-9-]{1,32}:[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]{1,250})\Z"
)
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}\Z")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsUri:
    """A key in AWS KMS, by id, alias or ARN. `endpoint` is for a VPC's own, or one on this machine."""

    key: str
    region: str | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if not _KEY.match(self.key):
            raise Malformed("expected an id, 'alias/…' or ARN of a key in an awskms URI")
        if self.region is not None and not _REGION.match(self.region):
            raise Malformed("expected a region such as 'eu-central-1' in an awskms URI")
        if self.endpoint is not None:
            parts = urlsplit(self.endpoint)
            is_local = parts.scheme == "http" and parts.hostname in _LOOPBACK
            if not parts.hostname or parts.username or (parts.scheme != "https" and not is_local):
                raise Malformed("expected an endpoint 'https://…' in an awskms URI, without credentials")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI; `Malformed` for one that says what we do not understand."""
        if len(text) > _MAX_URI or not text.startswith("awskms:///"):
            raise Malformed("expected an AWS KMS URI 'awskms:///alias/…'")
        key, _, query = text.removeprefix("awskms:///").partition("?")
        given = parse_query(query, {"region", "endpoint"})
        return cls(key=key, region=given.get("region"), endpoint=given.get("endpoint"))

    def __str__(self) -> str:
        query = "&".join(
            f"{name}={value}"
            for name, value in (("region", self.region), ("endpoint", self.endpoint))
            if value is not None
        )
        return f"awskms:///{self.key}" + (f"?{query}" if query else "")


def client_of(uri: KmsUri) -> Any:
    """A KMS client for the URI's region; safe to use from many threads."""
    region = uri.region or (uri.key.split(":")[3] if uri.key.startswith("arn:") else None)
    config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        return boto3.client("kms", region_name=region, endpoint_url=uri.endpoint, config=config)
    except BotoCoreError as error:
        _refuse(uri, error)


def open_signer(uri: KmsUri, *, client: Any = None) -> HardwareSigner:
    """Open a P-256 signing key in KMS; it signs once, on trial, before it is returned.

    Refused: a key that is not there, disabled or waiting for deletion (`NotFound`, ``key-gone``), without
    permission (`Refused`, ``key-denied``), of another kind or for another use (`Malformed`); `Unavailable`
    while KMS does not answer.
    """
    kms = client or client_of(uri)
    found = _call(uri, kms.get_public_key, KeyId=uri.key)
    algorithms = found.get("SigningAlgorithms") or []
    if found.get("KeyUsage") != "SIGN_VERIFY" or _ALGORITHM not in algorithms:
        raise Malformed(
            f"expected a key for SIGN_VERIFY with {_ALGORITHM} at {uri}, found one for "
            f"{str(found.get('KeyUsage'))[:40]}"
        )
    try:
        public_key = load_der_public_key(found["PublicKey"])
    except (KeyError, ValueError, TypeError):
        raise Malformed(f"expected a public key in DER from {uri}, got something else") from None
    if not is_p256(public_key):
        raise Malformed(f"expected a P-256 key at {uri}, found another kind")

    def ask(data: bytes) -> bytes:
        kind, message = ("RAW", data) if len(data) <= _MAX_RAW else ("DIGEST", sha256(data).digest())
        answer = _call(
            uri, kms.sign, KeyId=uri.key, Message=message, MessageType=kind, SigningAlgorithm=_ALGORITHM
        )
        return bytes(answer.get("Signature") or b"")

    signer = HardwareSigner(public_key, ask, where=str(uri))
    signer.try_out()
    return signer


def generate_key(uri: KmsUri, *, client: Any = None) -> KmsUri:
    """Make a P-256 signing key in KMS under the URI's alias; returns the URI of that alias."""
    if not uri.key.startswith("alias/"):
        raise Malformed("expected 'alias/…' in the URI of a key to make: KMS chooses the id itself")
    kms = client or client_of(uri)
    made = _call(uri, kms.create_key, KeySpec=_SPEC, KeyUsage="SIGN_VERIFY", Description="fltrust")
    key_id = made["KeyMetadata"]["KeyId"]
    try:
        _call(uri, kms.create_alias, AliasName=uri.key, TargetKeyId=key_id)
    except FltrustError:  # the alias is taken: leave no nameless key behind
        _call(uri, kms.schedule_key_deletion, KeyId=key_id, PendingWindowInDays=_DAYS_UNTIL_DELETION)
        raise
    return uri


def destroy_key(uri: KmsUri, *, client: Any = None) -> datetime | None:
    """Have KMS destroy the key, which cannot sign from now on.

    Returns when it will be gone, since KMS waits for seven days; None if it is not there.
    """
    kms = client or client_of(uri)
    try:
        found = _call(uri, kms.describe_key, KeyId=uri.key)["KeyMetadata"]
    except NotFound:
        return None
    if found.get("KeyState") == "PendingDeletion":
        ends: datetime | None = found.get("DeletionDate")
        return ends
    answer = _call(
        uri, kms.schedule_key_deletion, KeyId=found["KeyId"], PendingWindowInDays=_DAYS_UNTIL_DELETION
    )
    gone_at: datetime | None = answer.get("DeletionDate")
    return gone_at


def _call(uri: KmsUri, method: Any, **arguments: object) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = method(**arguments)
    except (ClientError, BotoCoreError) as error:
        _refuse(uri, error)
    return answer


_GONE = {"NotFoundException", "KMSInvalidStateException", "DisabledException"}
_DENIED = {
    "AccessDeniedException",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidSignatureException",
}


def _refuse(uri: KmsUri, error: Exception) -> NoReturn:
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if code in _GONE:
        raise NotFound(f"expected a key in force at {uri}, KMS says {code}", reason="key-gone") from None
    if code in _DENIED or type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        raise Refused(
            f"expected to be allowed to use {uri}, KMS says {code or type(error).__name__}",
            reason="key-denied",
            hint="kms:GetPublicKey and kms:Sign, for the credentials that boto3 finds",
        ) from None
    if code == "AlreadyExistsException":
        raise Refused(f"expected no key at {uri}, found one", reason="key-exists") from None
    raise Unavailable(
        f"expected an answer from KMS about {uri}, got {code or type(error).__name__}",
        reason="key-unavailable",
    ) from None
