"""The way in for every signed request (RFC 8555, section 6): who asks is known before what is read."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.requests import Request

from fltrust.coordinator.acme.nonces import Nonces
from fltrust.coordinator.acme.views import Urls
from fltrust.coordinator.limits import RateLimiter
from fltrust.coordinator.services import ServicesContext
from fltrust.protocols.acme.jwk import AccountKey, read_jwk
from fltrust.protocols.acme.jws import CONTENT_TYPE, MAX_BODY, SignedRequest, check_signature, read_jws
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType, malformed, unauthorized
from fltrust.protocols.acme.state import Account, AccountStatus
from fltrust.strictjson import decode_any


@dataclass(frozen=True, slots=True)
class Verified:
    """A request whose signature was checked. `account` is None where a bare key signed it."""

    payload: bytes
    url: str
    key: AccountKey
    account: Account | None

    @property
    def account_id(self) -> str:
        """The account's id; ``malformed`` where a bare key signed what an account must sign."""
        if self.account is None:
            raise malformed("expected a request signed by an account ('kid'), got a bare key ('jwk')")
        return self.account.account_id


class Intake:
    """Reads and verifies signed requests."""

    def __init__(self, context: ServicesContext, nonces: Nonces, rates: RateLimiter) -> None:
        self._context = context
        self._nonces = nonces
        self._rates = rates

    async def take(self, request: Request, urls: Urls, *, by_key: bool = False) -> Verified:
        """Read a request, verify it and use its nonce up.

        1. It is announced as ``application/jose+json``, and within bounds.
        2. It is a JWS in ACME's one form (`read_jws`), for the url that it was sent to.
        3. Its nonce is ours, fresh and unused.
        4. It is signed by an account's present key, an account that is valid; or, where a bare key may ask
           (`by_key`), by the key that it brings. Never both, never the other kind.
        5. The nonce is used up, now that the signature is good; of a request that is sent twice, one gets in.
        """
        # 1.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != CONTENT_TYPE:
            raise AcmeProblem(ProblemType.MALFORMED, f"expected {CONTENT_TYPE}", status=415)
        body = await self._context.body(request, limit=MAX_BODY)
        # 2.
        signed = read_jws(body)
        url = self._context.url + request.url.path
        if not hmac.compare_digest(signed.url.encode(), url.encode()):
            raise unauthorized("expected a request for the url that it was sent to")
        # 3.
        self._nonces.check(signed.nonce)
        # 4.
        if signed.kid is None:
            if not by_key or signed.key is None:
                raise malformed("expected a request signed by an account ('kid'), got a bare key ('jwk')")
            key = signed.key
            account = None
            await self._context.reads.run(lambda: check_signature(signed, key))
        else:
            account, key = await self._by_account(signed, urls)
        # 5.
        self._nonces.use(signed.nonce)
        if account is not None:
            self._rates.take(account.account_id)
        return Verified(signed.payload, url, key, account)

    async def _by_account(self, signed: SignedRequest, urls: Urls) -> tuple[Account, AccountKey]:
        account_id = urls.account_id(signed.kid or "")

        def verify() -> tuple[Account, AccountKey]:
            account = None
            if account_id is not None:
                with self._context.authority.ledger.reading() as tx:
                    account = tx.acme.account(account_id)
            if account is None:
                raise AcmeProblem(
                    ProblemType.ACCOUNT_DOES_NOT_EXIST, "expected 'kid' to be the url of an account here"
                )
            key = read_jwk(decode_any(account.jwk, limit=MAX_BODY, what="an account's key"))
            check_signature(signed, key)
            if account.status is not AccountStatus.VALID:
                raise unauthorized(f"expected an account that is valid, this one is {account.status}")
            return account, key

        return await self._context.reads.run(verify)
