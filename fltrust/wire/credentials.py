"""Shared-key credentials on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from fltrust.enrollment.mackeys import KEY_BYTES, MacCredential, MacPurpose
from fltrust.errors import Malformed
from fltrust.identity import Name, Role
from fltrust.wire.pb import credentials_pb2 as pb
from fltrust.wire.values import at_most, bounded, text_within, time_from_field, time_to_pb, word

MAX_DNS_NAMES = 64
MAX_DNS_NAME = 253
_MAX_ID = 64


def create_request_to_pb(
    purpose: MacPurpose, role: Role, name: Name, *, ttl: timedelta, replace: bool, dns_names: Sequence[str]
) -> pb.CreateCredentialRequest:
    return pb.CreateCredentialRequest(
        purpose=purpose,
        role=role,
        name=name,
        ttl_seconds=max(0, int(ttl.total_seconds())),
        replace=replace,
        dns_names=dns_names,
    )


def create_request_from_pb(
    message: pb.CreateCredentialRequest,
) -> tuple[MacPurpose, Role, Name, timedelta, bool, tuple[str, ...]]:
    """Purpose, role, name, time to live, whether an enrolled name may be taken over, DNS names."""
    at_most(message.dns_names, MAX_DNS_NAMES, what="DNS names of a credential")
    return (
        word(MacPurpose, message.purpose, what="a purpose of credentials"),
        word(Role, message.role, what="a role"),
        Name(message.name),
        timedelta(seconds=message.ttl_seconds),
        message.replace,
        tuple(text_within(name, limit=MAX_DNS_NAME, what="a DNS name") for name in message.dns_names),
    )


def credential_to_pb(credential: MacCredential) -> pb.CreateCredentialResponse:
    return pb.CreateCredentialResponse(
        credential_id=credential.credential_id,
        key=credential.key,
        expires_at=time_to_pb(credential.expires_at),
    )


def credential_from_pb(message: pb.CreateCredentialResponse) -> MacCredential:
    key = bounded(message.key, limit=KEY_BYTES, what="a credential's key")
    if len(key) != KEY_BYTES:
        raise Malformed(f"expected a key of {KEY_BYTES} bytes, got {len(key)}")
    return MacCredential(
        text_within(message.credential_id, limit=_MAX_ID, what="a credential id"),
        key,
        time_from_field(message, "expires_at"),
    )
