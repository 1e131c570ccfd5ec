"""ACME's endpoints (RFC 8555, section 7.1): each takes a verified request and answers with an object.

GET        /acme/directory, /acme/new-nonce (HEAD too), /acme/renewal-info/<id>
POST, JWS  everything else; what is read is read with POST-as-GET
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.coordinator.acme.accounts import AccountDesk, KeyTaken
from fltrust.coordinator.acme.certificates import WAIT, CertificateDesk
from fltrust.coordinator.acme.nonces import Nonces
from fltrust.coordinator.acme.orders import Attempt, AuthorizationView, OrderDesk, OrderView
from fltrust.coordinator.acme.renewal import renewal_info
from fltrust.coordinator.acme.signed import Intake, Verified
from fltrust.coordinator.acme.validation import Validator
from fltrust.coordinator.acme.views import (
    Urls,
    account_json,
    authorization_json,
    challenge_json,
    order_json,
)
from fltrust.coordinator.http_requests import source_of
from fltrust.coordinator.lanes import Urgency
from fltrust.coordinator.limits import RateLimiter
from fltrust.coordinator.services import Handler, ServicesContext, json_response
from fltrust.errors import FltrustError, NotFound
from fltrust.protocols.acme import messages
from fltrust.protocols.acme.ari import RETRY_AFTER
from fltrust.protocols.acme.jws import MAX_BODY, check_signature, read_inner
from fltrust.protocols.acme.problems import (
    CONTENT_TYPE,
    AcmeProblem,
    ProblemType,
    malformed,
    problem_of,
    unauthorized,
)
from fltrust.protocols.acme.state import ChallengeKind, ChallengeStatus, OrderStatus
from fltrust.strictjson import decode_any

RATE, BURST = 10.0, 100.0
"""Requests of one account per second, over time and at once."""
VALIDATIONS, VALIDATIONS_PER_ACCOUNT = 32, 8
"""At work at once; others wait."""

Act = Callable[[Request, Verified, Urls], Awaitable[Response]]


def routes(context: ServicesContext) -> list[Route]:
    """ACME's routes; none where it is switched off."""
    if not context.settings.acme.enabled:
        return []
    return AcmePages(context).routes()


class AcmePages:
    """What is answered; belongs to one event loop. Transactions are made on the lanes."""

    def __init__(self, context: ServicesContext, validator: Validator | None = None) -> None:
        self._context = context
        self._accounts = AccountDesk(context.authority)
        self._orders = OrderDesk(context.authority, self._accounts)
        self._certificates = CertificateDesk(context.authority, self._accounts, self._orders)
        self._nonces = Nonces(monotonic=time.monotonic)
        rates = RateLimiter(rate=RATE, burst=BURST, monotonic=time.monotonic)
        self._intake = Intake(context, self._nonces, rates)
        self._validator = validator or Validator(context.settings.acme)
        self._slots = asyncio.Semaphore(VALIDATIONS)
        self._slots_of: dict[str, asyncio.Semaphore] = {}  # accounts are made by operators: they are few
        self._at_work: dict[tuple[str, ChallengeKind], asyncio.Task[None]] = {}

    @property
    def _urls(self) -> Urls:
        return Urls(self._context.url)

    def routes(self) -> list[Route]:
        return [
            self._open("/acme/directory", "directory", self._directory, ["GET"]),
            self._open("/acme/new-nonce", "new-nonce", self._new_nonce, ["GET", "HEAD"]),
            self._open("/acme/renewal-info/{id}", "renewal-info", self._renewal_info, ["GET"]),
            self._signed("/acme/new-account", "new-account", self._new_account, by_key=True),
            self._signed("/acme/acct/{account}", "account", self._account),
            self._signed("/acme/acct/{account}/orders", "orders", self._list_orders),
            self._signed("/acme/key-change", "key-change", self._key_change),
            self._signed("/acme/new-order", "new-order", self._new_order),
            self._signed("/acme/order/{order}", "order", self._order),
            self._signed("/acme/order/{order}/finalize", "finalize", self._finalize),
            self._signed("/acme/authz/{authorization}", "authorization", self._authorization),
            self._signed("/acme/chall/{authorization}/{kind}", "challenge", self._challenge),
            self._signed("/acme/cert/{order}", "certificate", self._certificate),
            self._signed("/acme/revoke-cert", "revoke", self._revoke, by_key=True),
        ]

    def _open(self, path: str, name: str, handler: Handler, methods: list[str]) -> Route:
        return Route(path, self._context.page(f"acme-{name}", handler, refuse=_refuse), methods=methods)

    def _signed(self, path: str, name: str, act: Act, *, by_key: bool = False) -> Route:
        async def answer(request: Request) -> Response:
            urls = self._urls
            try:
                with self._context.authority.counters.refusals():
                    verified = await self._intake.take(request, urls, by_key=by_key)
                    response = await act(request, verified, urls)
            except FltrustError as error:
                response = _refuse(error)
                if isinstance(error, KeyTaken):
                    response.headers["location"] = urls.account(error.account_id)
            response.headers["replay-nonce"] = self._nonces.make()
            response.headers.append("link", f'<{urls.of("directory")}>;rel="index"')
            return response

        return Route(path, self._context.page(f"acme-{name}", answer, refuse=_refuse), methods=["POST"])

    # Open to anybody.

    async def _directory(self, _request: Request) -> Response:
        return json_response(self._urls.directory())

    async def _new_nonce(self, request: Request) -> Response:
        headers = {"replay-nonce": self._nonces.make(), "cache-control": "no-store"}
        return Response(status_code=200 if request.method == "HEAD" else 204, headers=headers)

    async def _renewal_info(self, request: Request) -> Response:
        text, authority = request.path_params["id"], self._context.authority
        found = await self._context.reads.run(lambda: renewal_info(authority, text))
        return json_response(found, headers={"retry-after": str(int(RETRY_AFTER.total_seconds()))})

    # Accounts.

    async def _new_account(self, _request: Request, verified: Verified, urls: Urls) -> Response:
        if verified.account is not None:
            raise malformed("expected a new account's own key ('jwk'), got an account ('kid')")
        wanted = messages.read_new_account(verified.payload)
        opened = await self._context.writes.run(
            lambda: self._accounts.open(wanted, verified.key, url=verified.url)
        )
        return json_response(
            account_json(opened.account, urls),
            status=201 if opened.is_new else 200,
            headers={"location": urls.account(opened.account.account_id)},
        )

    async def _account(self, request: Request, verified: Verified, urls: Urls) -> Response:
        account = _own_account(request, verified)
        if verified.payload and verified.account is not None:
            change = messages.read_account_change(verified.payload)
            changed = await self._context.writes.run(lambda: self._accounts.change(account, change))
            return json_response(account_json(changed, urls))
        assert verified.account is not None  # noqa: S101 - `_own_account` saw to it
        return json_response(account_json(verified.account, urls))

    async def _list_orders(self, request: Request, verified: Verified, urls: Urls) -> Response:
        account = _own_account(request, verified)
        messages.check_empty(verified.payload)
        found = await self._context.reads.run(lambda: self._orders.list(account))
        return json_response({"orders": [urls.order(one) for one in found]})

    async def _key_change(self, _request: Request, verified: Verified, urls: Urls) -> Response:
        """Give the account another key: the old one signs the request, the new one what is in it (7.3.5)."""
        account = verified.account_id
        inner = read_inner(decode_any(verified.payload, limit=MAX_BODY, what="a key change"))
        if inner.key is None or inner.url != verified.url:
            raise malformed("expected a key change signed by the new key ('jwk'), for the same url")
        new = inner.key
        check_signature(inner, new)
        change = messages.read_key_change(inner.payload)
        if change.account != urls.account(account):
            raise unauthorized("expected a key change for the account that asks")
        changed = await self._context.writes.run(
            lambda: self._accounts.change_key(account, old=change.old_key, new=new)
        )
        return json_response(account_json(changed, urls), headers={"location": urls.account(account)})

    # Orders.

    async def _new_order(self, _request: Request, verified: Verified, urls: Urls) -> Response:
        account, wanted = verified.account_id, messages.read_new_order(verified.payload)
        view = await self._context.writes.run(lambda: self._orders.create(account, wanted))
        where = {"location": urls.order(view.order.order_id)}
        return json_response(order_json(view, urls), status=201, headers=where)

    async def _order(self, request: Request, verified: Verified, urls: Urls) -> Response:
        account, order = verified.account_id, request.path_params["order"]
        messages.check_empty(verified.payload)
        view = await self._context.reads.run(lambda: self._orders.read(account, order))
        if view.status is OrderStatus.PROCESSING:
            where = source_of(request)
            view = await self._context.writes.run(
                lambda: self._certificates.progress(account, order, source=where)
            )
        return _order_response(view, urls)

    async def _finalize(self, request: Request, verified: Verified, urls: Urls) -> Response:
        account, order = verified.account_id, request.path_params["order"]
        csr_der, where = messages.read_finalize(verified.payload), source_of(request)
        view = await self._context.writes.run(
            lambda: self._certificates.finalize(account, order, csr_der, key=verified.key, source=where)
        )
        return _order_response(view, urls)

    async def _certificate(self, request: Request, verified: Verified, _urls: Urls) -> Response:
        account, order = verified.account_id, request.path_params["order"]
        messages.check_empty(verified.payload)
        pem = await self._context.reads.run(lambda: self._certificates.chain(account, order))
        return Response(
            pem, media_type="application/pem-certificate-chain", headers={"cache-control": "no-store"}
        )

    async def _revoke(self, _request: Request, verified: Verified, _urls: Urls) -> Response:
        wanted = messages.read_revocation(verified.payload)
        account = None if verified.account is None else verified.account.account_id
        key = verified.key if account is None else None
        await self._context.writes.run(
            lambda: self._certificates.revoke(wanted, account_id=account, key=key), urgency=Urgency.NOW
        )
        return Response(status_code=200, headers={"cache-control": "no-store"})

    # Authorizations and challenges.

    async def _authorization(self, request: Request, verified: Verified, urls: Urls) -> Response:
        account, wanted = verified.account_id, request.path_params["authorization"]
        if verified.payload:
            messages.read_authorization_change(verified.payload)
            view = await self._context.writes.run(lambda: self._orders.deactivate(account, wanted))
        else:
            view = await self._read_authorization(account, wanted)
        return json_response(authorization_json(view, urls))

    async def _challenge(self, request: Request, verified: Verified, urls: Urls) -> Response:
        account, wanted = verified.account_id, request.path_params["authorization"]
        try:
            kind = ChallengeKind(request.path_params["kind"])
        except ValueError:
            raise NotFound("no such challenge of this authorization") from None
        if not verified.payload:
            view = await self._read_authorization(account, wanted)
        else:
            messages.read_challenge_response(verified.payload)
            view, attempt = await self._context.writes.run(lambda: self._orders.answer(account, wanted, kind))
            if attempt is not None:
                self._begin(attempt, account)
        challenge = next((one for one in view.challenges if one.kind is kind), None)
        if challenge is None:
            raise NotFound("no such challenge of this authorization")
        response = json_response(challenge_json(challenge, urls))
        response.headers.append("link", f'<{urls.of("authz", wanted)}>;rel="up"')
        return response

    async def _read_authorization(self, account: str, wanted: str) -> AuthorizationView:
        """Read it; a validation that a crash cut short is begun again for whoever looks."""
        view = await self._context.reads.run(lambda: self._orders.read_authorization(account, wanted))
        for challenge in view.challenges:
            left = challenge.status is ChallengeStatus.PROCESSING
            if left and (wanted, challenge.kind) not in self._at_work:
                again = partial(self._orders.answer, account, wanted, challenge.kind)
                view, attempt = await self._context.writes.run(again)
                if attempt is not None:
                    self._begin(attempt, account)
        return view

    def _begin(self, attempt: Attempt, account: str) -> None:
        """Validate beside the request, unless that is at work already."""
        key = attempt.authorization_id, attempt.kind
        if key not in self._at_work:
            task = asyncio.create_task(self._validate(attempt, account))
            self._at_work[key] = task
            task.add_done_callback(lambda _task: self._at_work.pop(key, None))

    async def _validate(self, attempt: Attempt, account: str) -> None:
        problem: AcmeProblem | None = None
        try:
            own = self._slots_of.setdefault(account, asyncio.Semaphore(VALIDATIONS_PER_ACCOUNT))
            async with own, self._slots:
                await self._validator.validate(
                    attempt.kind, attempt.name, token=attempt.token, thumbprint=attempt.thumbprint
                )
        except AcmeProblem as found:
            problem = found
        except Exception:
            problem = AcmeProblem(ProblemType.SERVER_INTERNAL, "the validation broke")
        self._context.authority.counters.add(
            f"acme.validations.{'valid' if problem is None else problem.kind}"
        )
        await self._context.writes.run(lambda: self._orders.finish(attempt, problem))


def _own_account(request: Request, verified: Verified) -> str:
    account: str = request.path_params["account"]
    if account != verified.account_id:
        raise unauthorized("expected the account that asks, got another's url")
    return account


def _order_response(view: OrderView, urls: Urls) -> Response:
    headers = {"location": urls.order(view.order.order_id)}
    if view.status is OrderStatus.PROCESSING:
        headers["retry-after"] = str(int(WAIT.total_seconds()))
    return json_response(order_json(view, urls), headers=headers)


def _refuse(error: FltrustError) -> Response:
    problem = problem_of(error)
    headers = {"retry-after": "1"} if problem.status in (429, 503) else {}
    return json_response(problem.document(), status=problem.status, kind=CONTENT_TYPE, headers=headers)
