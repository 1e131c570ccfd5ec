"""The endpoints: one table, from which the routes are made and the OpenAPI document is written.

Each names the gRPC method that it is; who may call it is that method's row in `permissions.METHODS`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fltrust.coordinator.lanes import Urgency
from fltrust.coordinator.rest import answers, forms
from fltrust.coordinator.rest import schemas as s
from fltrust.coordinator.rest.schemas import Schema, listed, obj
from fltrust.coordinator.session import Session
from fltrust.enrollment.mackeys import MacPurpose
from fltrust.enrollment.requests import OPEN, RequestState
from fltrust.errors import Conflict, Malformed
from fltrust.identity import Name, Role, SpiffeId
from fltrust.wire import methods

MAX_PAGE: Final = 500
"""Items in one answer."""
_USUAL_PAGE = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: parts of the path, the query (each name once), the body unread."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    schema: Schema
    what: str
    is_path: bool = False
    is_needed: bool = False
    """Of a query, whether it must be there; of a path it always is."""


Act = Callable[[Session, Asked], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One verb on one path. `act` runs on a thread, and gives JSON or JSON's bytes."""

    verb: str
    path: str
    method: str
    """The gRPC method's full name: the row in the table of callers."""
    summary: str
    act: Act
    answer: Schema
    body: Schema | None = None
    parameters: tuple[Parameter, ...] = ()
    status: int = 200
    is_write: bool = False
    urgency: Urgency = Urgency.USUAL


_ROLE = Parameter("role", s.words(s.NAMED), "What it is.", is_path=True)
_NAME = Parameter("name", s.NAME, "Its name.", is_path=True)
_RUN = Parameter("run", s.NUMBER, "A Flower run.", is_path=True)
_STEP = Parameter("step", s.STEP_TEXT, "A step.", is_path=True)
_ID = Parameter("id", s.ID, "As it is listed.", is_path=True)
_LIMIT = Parameter("limit", s.PAGE, f"Items, {_USUAL_PAGE} by default.")
_AFTER = Parameter("after", {"type": "string", "maxLength": 512}, "Items after this one ('next').")


def _page(name: str, item: Schema) -> Schema:
    return obj({name: listed(item), "next": s.maybe(s.TEXT)})


def _paged(
    name: str,
    items: Iterable[Any],
    asked: Asked,
    *,
    key: Callable[[Any], str],
    as_json: Callable[[Any], object],
) -> dict[str, object]:
    """One page of items in the order of their keys."""
    limit = forms.read_number(asked.query.get("limit", str(_USUAL_PAGE)), "a limit", most=MAX_PAGE)
    if not limit:
        raise Malformed("expected a limit of at least 1")
    after = asked.query.get("after", "")
    if len(after) > 512:
        raise Malformed("expected at most 512 characters as 'after'")
    found = [item for item in sorted(items, key=key) if key(item) > after]
    shown = found[:limit]
    rest = key(shown[-1]) if len(found) > limit else None
    return {name: [as_json(item) for item in shown], "next": rest}


def _bundle(session: Session, _asked: Asked) -> object:
    return answers.bundle_json(session.bundle())


def _trust(session: Session, _asked: Asked) -> object:
    return session.trust_file()


def _participants(session: Session, asked: Asked) -> object:
    role = asked.query.get("role")
    wanted = None if role is None else forms.read_role(role)
    found = [one for one in session.list_enrollments() if wanted in (None, one.spiffe_id.role)]
    return _paged(
        "participants", found, asked, key=lambda one: str(one.spiffe_id), as_json=answers.participant_json
    )


def _participant(session: Session, asked: Asked) -> object:
    return answers.participant_json(session.get_enrollment(_identity(session, asked)))


def _blast(session: Session, asked: Asked) -> object:
    if "since" not in asked.query:
        raise Malformed("expected 'since'")
    since = forms.read_time(asked.query["since"])
    who = SpiffeId(session.caller.spiffe_id.domain, Role.PARTICIPANT, Name(asked.path["name"]))
    return answers.blast_json(session.blast_radius(who, since))


def _identity(session: Session, asked: Asked) -> SpiffeId:
    role = forms.read_role(asked.path["role"])
    return SpiffeId(session.caller.spiffe_id.domain, role, Name(asked.path["name"]))


def _tokens(session: Session, asked: Asked) -> object:
    found = session.list_tokens()
    return _paged("tokens", found, asked, key=lambda one: one.token_id, as_json=answers.token_json)


def _create_token(session: Session, asked: Asked) -> object:
    form = forms.read_token(asked.body)
    token = session.create_token(
        form.role, form.name, ttl=form.ttl, replace=form.replace, dns_names=form.dns_names
    )
    return answers.made_token_json(token)


def _cancel_token(session: Session, asked: Asked) -> object:
    forms.read_nothing(asked.body)
    return answers.token_json(session.cancel_token(forms.read_id(asked.path["id"])))


def _create_credential(session: Session, asked: Asked) -> object:
    form = forms.read_credential(asked.body)
    made = session.create_credential(
        MacPurpose.ACME,
        form.role,
        form.name,
        ttl=form.ttl,
        replace=form.replace,
        dns_names=form.dns_names,
    )
    return answers.credential_json(made)


def _revoke(session: Session, asked: Asked) -> object:
    form = forms.read_revocation(asked.body)
    if form.compromised_since is not None and form.compromised_since > session.now():
        raise Conflict("expected 'compromisedSince' to have passed", reason="time-in-future")
    return answers.events_json(
        session.revoke(form.target, reason=form.reason, compromised_since=form.compromised_since)
    )


def _hold(session: Session, asked: Asked) -> object:
    form = forms.read_hold(asked.body)
    return answers.events_json(session.hold(form.target, reason=form.reason))


def _release(session: Session, asked: Asked) -> object:
    return answers.events_json(session.release(forms.read_release(asked.body)))


def _rounds(session: Session, asked: Asked) -> object:
    run = asked.query.get("run")
    found = session.list_rounds(None if run is None else forms.read_run(run))
    return _paged(
        "rounds",
        found,
        asked,
        key=lambda one: f"{int(one.key.run_id):020}.{one.key.step:010}",
        as_json=answers.round_json,
    )


def _round(session: Session, asked: Asked) -> object:
    run, step = forms.read_run(asked.path["run"]), forms.read_number(asked.path["step"], "a step")
    return answers.round_json(session.get_round(run, step))


def _close_run(session: Session, asked: Asked) -> object:
    forms.read_nothing(asked.body)
    session.close_run(forms.read_run(asked.path["run"]))
    return {}


def _lineage(session: Session, asked: Asked) -> object:
    found = session.find_lineage(forms.read_digest(asked.path["tensors"]))
    return {"bundles": [json.loads(bundle) for bundle in itertools.islice(found, MAX_PAGE)]}


def _requests(session: Session, asked: Asked) -> object:
    state = asked.query.get("state")
    if state is not None and state not in set(RequestState):
        raise Malformed(f"expected a state of {', '.join(RequestState)}")
    views = session.list_requests(open_only=state in {str(one) for one in OPEN})
    found = [view for view in views if state in (None, view.request.state)]
    return _paged(
        "requests", found, asked, key=lambda view: view.request.request_id, as_json=answers.request_json
    )


def _request(session: Session, asked: Asked) -> object:
    return answers.request_json(session.get_request(forms.read_id(asked.path["id"])))


def _approve(session: Session, asked: Asked) -> object:
    reason = forms.read_decision(asked.body)
    return answers.request_json(session.approve_request(forms.read_id(asked.path["id"]), reason=reason))


def _deny(session: Session, asked: Asked) -> object:
    reason = forms.read_decision(asked.body)
    return answers.request_json(session.deny_request(forms.read_id(asked.path["id"]), reason=reason))


_EVENTS = obj({"events": listed(s.EVENT)})
_REQUESTS = "/fltrust.v1.RequestService"

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        verb="GET",
        path="/bundle",
        method=methods.GET_BUNDLE,
        summary="The roots of the trust domain",
        act=_bundle,
        answer=s.BUNDLE,
    ),
    Endpoint(
        verb="GET",
        path="/trust",
        method=methods.GET_TRUST,
        summary="The trust file: what models are verified with",
        act=_trust,
        answer=s.ANY_OBJECT,
    ),
    Endpoint(
        verb="GET",
        path="/participants",
        method=methods.LIST_PARTICIPANTS,
        summary="Who is or was enrolled",
        act=_participants,
        answer=_page("participants", s.PARTICIPANT),
        parameters=(Parameter("role", s.words(s.NAMED), "Only these."), _LIMIT, _AFTER),
    ),
    Endpoint(
        verb="GET",
        path="/participants/{role}/{name}",
        method=methods.GET_PARTICIPANT,
        summary="One identity",
        act=_participant,
        answer=s.PARTICIPANT,
        parameters=(_ROLE, _NAME),
    ),
    Endpoint(
        verb="GET",
        path="/blast-radius/{name}",
        method=methods.BLAST_RADIUS,
        summary="What contains a participant's updates from a time on",
        act=_blast,
        answer=s.BLAST,
        parameters=(_NAME, Parameter("since", s.PAST, "From when.", is_needed=True)),
    ),
    Endpoint(
        verb="GET",
        path="/tokens",
        method=methods.LIST_TOKENS,
        summary="Join tokens and what became of them",
        act=_tokens,
        answer=_page("tokens", s.TOKEN),
        parameters=(_LIMIT, _AFTER),
    ),
    Endpoint(
        verb="POST",
        path="/tokens",
        method=methods.CREATE_TOKEN,
        summary="Create a single-use join token",
        act=_create_token,
        answer=s.MADE_TOKEN,
        body=s.NEW_TOKEN,
        status=201,
        is_write=True,
    ),
    Endpoint(
        verb="DELETE",
        path="/tokens/{id}",
        method=methods.CANCEL_TOKEN,
        summary="Cancel a join token that was not used yet",
        act=_cancel_token,
        answer=s.TOKEN,
        parameters=(_ID,),
        is_write=True,
    ),
    Endpoint(
        verb="POST",
        path="/credentials",
        method=methods.CREATE_CREDENTIAL,
        summary="Create a single-use credential for an ACME account",
        act=_create_credential,
        answer=s.MADE_CREDENTIAL,
        body=s.NEW_CREDENTIAL,
        status=201,
        is_write=True,
    ),
    Endpoint(
        verb="POST",
        path="/revocations",
        method=methods.REVOKE,
        summary="Revoke an identity, a certificate, a key or a run's participants",
        act=_revoke,
        answer=_EVENTS,
        body=s.REVOCATION,
        is_write=True,
        urgency=Urgency.NOW,
    ),
    Endpoint(
        verb="POST",
        path="/holds",
        method=methods.HOLD,
        summary="Put on hold",
        act=_hold,
        answer=_EVENTS,
        body=s.HOLD,
        is_write=True,
        urgency=Urgency.NOW,
    ),
    Endpoint(
        verb="POST",
        path="/releases",
        method=methods.RELEASE,
        summary="End a hold",
        act=_release,
        answer=_EVENTS,
        body=s.RELEASE,
        is_write=True,
    ),
    Endpoint(
        verb="GET",
        path="/rounds",
        method=methods.LIST_ROUNDS,
        summary="Rounds, without evidence",
        act=_rounds,
        answer=_page("rounds", s.ROUND),
        parameters=(Parameter("run", s.NUMBER, "Only this run's."), _LIMIT, _AFTER),
    ),
    Endpoint(
        verb="GET",
        path="/rounds/{run}/{step}",
        method=methods.GET_ROUND,
        summary="One round with its receipt",
        act=_round,
        answer=s.ROUND,
        parameters=(_RUN, _STEP),
    ),
    Endpoint(
        verb="POST",
        path="/runs/{run}/close",
        method=methods.CLOSE_RUN,
        summary="Close a run",
        act=_close_run,
        answer=s.NO_BODY,
        parameters=(_RUN,),
        is_write=True,
    ),
    Endpoint(
        verb="GET",
        path="/lineage/{tensors}",
        method=methods.FIND_LINEAGE,
        summary="Provenance of the aggregate with these tensors, back to the initial model",
        act=_lineage,
        answer=obj({"bundles": listed(s.ANY_OBJECT)}),
        parameters=(Parameter("tensors", s.DIGEST, "The digest of a canonical tensor set.", is_path=True),),
    ),
    Endpoint(
        verb="GET",
        path="/requests",
        method=f"{_REQUESTS}/ListRequests",
        summary="Requests to enroll",
        act=_requests,
        answer=_page("requests", s.REQUEST),
        parameters=(Parameter("state", s.words(RequestState), "Only these."), _LIMIT, _AFTER),
    ),
    Endpoint(
        verb="GET",
        path="/requests/{id}",
        method=f"{_REQUESTS}/GetRequest",
        summary="One request to enroll",
        act=_request,
        answer=s.REQUEST,
        parameters=(_ID,),
    ),
    Endpoint(
        verb="POST",
        path="/requests/{id}/approve",
        method=f"{_REQUESTS}/ApproveRequest",
        summary="Count the caller's approval of a request",
        act=_approve,
        answer=s.REQUEST,
        body=s.DECISION,
        parameters=(_ID,),
        is_write=True,
    ),
    Endpoint(
        verb="POST",
        path="/requests/{id}/deny",
        method=f"{_REQUESTS}/DenyRequest",
        summary="Deny a request, for good",
        act=_deny,
        answer=s.REQUEST,
        body=s.DECISION,
        parameters=(_ID,),
        is_write=True,
    ),
)
