"""Credentials of protocols that share a key with the client: join tokens whose secret is derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.settings import AuthoritySettings
from fltrust.coordinator.tokens import MIN_TTL
from fltrust.enrollment.dns_names import check_dns_names
from fltrust.enrollment.mackeys import MacCredential, MacKeys, MacPurpose
from fltrust.enrollment.token import hash_of, new_secret, token_id_of
from fltrust.enrollment.types import TokenRecord, TokenStatus
from fltrust.errors import Malformed
from fltrust.identity import Role, SpiffeId
from fltrust.pki.types import VerifiedCertificate

ROLES: Mapping[MacPurpose, frozenset[Role]] = MappingProxyType(
    {
        MacPurpose.ACME: frozenset({Role.SERVER}),
        MacPurpose.CMP: frozenset({Role.SERVER, Role.DEVICE}),
    }
)
"""What each protocol enrolls: nothing that may call a method of ours."""


class CredentialOffice:
    """Makes credentials. Each is a join token that nobody knows the secret of: what is handed out is a key
    derived from its id, so that the token's list, its cancelling and its being spent once serve it too."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        settings: AuthoritySettings,
        mac_keys: MacKeys,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._mac_keys = mac_keys
        self._entropy = entropy

    def create(
        self,
        purpose: MacPurpose,
        who: SpiffeId,
        *,
        ttl: timedelta,
        replace: bool,
        dns_names: Sequence[str],
        caller: VerifiedCertificate,
    ) -> MacCredential:
        """Make a single-use credential for `who`, whose certificates may carry `dns_names` and no other.

        `Malformed` for a role that the protocol does not enroll, a life out of bounds, and DNS names that the
        role's profile has no room for, are none, or are named twice.
        """
        if who.role not in ROLES[purpose] or who.name is None:
            roles = ", ".join(sorted(ROLES[purpose]))
            raise Malformed(f"expected a role of {roles} for {purpose.upper()}, got {who.role}")
        if not MIN_TTL <= ttl <= self._settings.max_token_ttl:
            raise Malformed(
                f"expected a credential's life between {MIN_TTL} and {self._settings.max_token_ttl}, "
                f"got {ttl}"
            )
        check_dns_names(who.role, dns_names, profiles=self._settings.profiles)
        secret_hash = hash_of(new_secret(self._entropy))
        token_id = token_id_of(secret_hash)
        with self._ledger.writing() as work:
            work.state.judge(caller)
            record = TokenRecord(
                token_id=token_id,
                role=who.role,
                name=who.name,
                created_at=work.now,
                expires_at=work.now + ttl,
                created_by=caller.spiffe_id,
                replace=replace,
                status=TokenStatus.PENDING,
                dns_names=tuple(dns_names),
            )
            work.tx.tokens.add(record, secret_hash=secret_hash)
        return MacCredential(token_id, self._mac_keys.key_of(purpose, token_id), record.expires_at)
