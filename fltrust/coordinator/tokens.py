"""Join tokens, made and cancelled by operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.settings import AuthoritySettings
from fltrust.enrollment.dns_names import check_dns_names
from fltrust.enrollment.registration import NEVER_JOIN
from fltrust.enrollment.requests import Assignment
from fltrust.enrollment.token import encode_token, hash_of, new_secret, token_id_of
from fltrust.enrollment.types import JoinToken, TokenRecord, TokenStatus
from fltrust.errors import Conflict, Malformed, NotFound
from fltrust.identity import SpiffeId
from fltrust.pki.types import VerifiedCertificate

MIN_TTL = timedelta(seconds=1)


def _no_name() -> Malformed:
    return Malformed(
        "expected a role that joins; the coordinator never does, and a workload's agent vouches for it"
    )


class TokenOffice:
    """Makes tokens; the secret leaves in the return value and is kept only as a hash."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        ca: CurrentCa,
        settings: AuthoritySettings,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._ledger = ledger
        self._ca = ca
        self._settings = settings
        self._entropy = entropy

    def create(
        self,
        who: SpiffeId,
        *,
        ttl: timedelta,
        replace: bool,
        caller: VerifiedCertificate | None,
        dns_names: tuple[str, ...] = (),
    ) -> JoinToken:
        """Make a single-use token for `who`. Without a caller it is the machine's own (init, tests)."""
        if who.name is None:
            raise _no_name()
        wanted = Assignment(role=who.role, name=who.name, dns_names=dns_names, replace=replace)
        return self.create_many([wanted], ttl=ttl, caller=caller)[0]

    def create_many(
        self, items: Sequence[Assignment], *, ttl: timedelta, caller: VerifiedCertificate | None
    ) -> tuple[JoinToken, ...]:
        """Make a single-use token for each, all in one transaction or none."""
        if not MIN_TTL <= ttl <= self._settings.max_token_ttl:
            raise Malformed(
                f"expected a token's life between {MIN_TTL} and {self._settings.max_token_ttl}, got {ttl}"
            )
        for item in items:
            if item.role in NEVER_JOIN:
                raise _no_name()
            check_dns_names(item.role, item.dns_names, profiles=self._settings.profiles)
        # The newest root: the one that the ports' certificates will lead to for longest.
        root_der = self._ca.bundle.roots[-1].public_bytes(Encoding.DER)
        made = []
        with self._ledger.writing() as work:
            if caller is not None:
                work.state.judge(caller)
            for item in items:
                secret = new_secret(self._entropy)
                secret_hash = hash_of(secret)
                token = JoinToken(self._settings.bootstrap, self._settings.address, root_der, secret)
                encode_token(token)  # refuses what could not be handed out, before it is stored
                record = TokenRecord(
                    token_id=token_id_of(secret_hash),
                    role=item.role,
                    name=item.name,
                    created_at=work.now,
                    expires_at=work.now + ttl,
                    created_by=None if caller is None else caller.spiffe_id,
                    replace=item.replace,
                    status=TokenStatus.PENDING,
                    dns_names=item.dns_names,
                )
                work.tx.tokens.add(record, secret_hash=secret_hash)
                made.append(token)
        return tuple(made)

    def list(self) -> tuple[TokenRecord, ...]:
        with self._ledger.reading() as tx:
            return tx.tokens.all(now=self._ledger.now())

    def cancel(self, token_id: str, *, caller: VerifiedCertificate) -> TokenRecord:
        """Cancel a pending token. `NotFound` if there is none; `Conflict` if it was used or has expired."""
        with self._ledger.writing() as work:
            work.state.judge(caller)
            work.tx.tokens.cancel(token_id, now=work.now)
            record = work.tx.tokens.get(token_id, now=work.now)
        if record is None:
            raise NotFound(f"no token with id {token_id[:32]!r}", hint="list them: fltrust token list")
        if record.status is not TokenStatus.CANCELLED:
            raise Conflict(
                f"token {record.token_id} is {record.status} already", reason=f"token-{record.status}"
            )
        return record
