"""The endpoints: one table, from which the routes are made and the OpenAPI document is written.

Each names the gRPC method that it is; who may call it is that method's row in `permissions.METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fltrust.coordinator.lanes import Urgency
from fltrust.coordinator.rest import acts
from fltrust.coordinator.rest import schemas as s
from fltrust.coordinator.rest.schemas import Schema, listed, obj
from fltrust.coordinator.session import Session
from fltrust.enrollment.requests import RequestState
from fltrust.wire import methods


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    schema: Schema
    what: str
    is_path: bool = False
    is_needed: bool = False
    """Of a query, whether it must be there; of a path it always is."""


Act = Callable[[Session, acts.Asked], object]


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
_LIMIT = Parameter("limit", s.PAGE, f"Items, {acts.USUAL_PAGE} by default.")
_AFTER = Parameter("after", {"type": "string", "maxLength": 512}, "Items after this one ('next').")


def _page(name: str, item: Schema) -> Schema:
    return obj({name: listed(item), "next": s.maybe(s.TEXT)})


_EVENTS = obj({"events": listed(s.EVENT)})
_REQUESTS = "/fltrust.v1.RequestService"

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        verb="GET",
        path="/bundle",
        method=methods.GET_BUNDLE,
        summary="The roots of the trust domain",
        act=acts.bundle,
        answer=s.BUNDLE,
    ),
    Endpoint(
        verb="GET",
        path="/trust",
        method=methods.GET_TRUST,
        summary="The trust file: what models are verified with",
        act=acts.trust,
        answer=s.ANY_OBJECT,
    ),
    Endpoint(
        verb="GET",
        path="/participants",
        method=methods.LIST_PARTICIPANTS,
        summary="Who is or was enrolled",
        act=acts.participants,
        answer=_page("participants", s.PARTICIPANT),
        parameters=(Parameter("role", s.words(s.NAMED), "Only these."), _LIMIT, _AFTER),
    ),
    Endpoint(
        verb="GET",
        path="/participants/{role}/{name}",
        method=methods.GET_PARTICIPANT,
        summary="One identity",
        act=acts.participant,
        answer=s.PARTICIPANT,
        parameters=(_ROLE, _NAME),
    ),
    Endpoint(
        verb="GET",
        path="/blast-radius/{name}",
        method=methods.BLAST_RADIUS,
        summary="What contains a participant's updates from a time on",
        act=acts.blast,
        answer=s.BLAST,
        parameters=(_NAME, Parameter("since", s.PAST, "From when.", is_needed=True)),
    ),
    Endpoint(
        verb="GET",
        path="/tokens",
        method=methods.LIST_TOKENS,
        summary="Join tokens and what became of them",
        act=acts.tokens,
        answer=_page("tokens", s.TOKEN),
        parameters=(_LIMIT, _AFTER),
    ),
    Endpoint(
        verb="POST",
        path="/tokens",
        method=methods.CREATE_TOKEN,
        summary="Create a single-use join token",
        act=acts.create_token,
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
        act=acts.cancel_token,
        answer=s.TOKEN,
        parameters=(_ID,),
        is_write=True,
    ),
    Endpoint(
        verb="POST",
        path="/credentials",
        method=methods.CREATE_CREDENTIAL,
        summary="Create a single-use credential for an ACME account",
        act=acts.create_credential,
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
        act=acts.revoke,
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
        act=acts.hold,
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
        act=acts.release,
        answer=_EVENTS,
        body=s.RELEASE,
        is_write=True,
    ),
    Endpoint(
        verb="GET",
        path="/rounds",
        method=methods.LIST_ROUNDS,
        summary="Rounds, without evidence",
        act=acts.rounds,
        answer=_page("rounds", s.ROUND),
        parameters=(Parameter("run", s.NUMBER, "Only this run's."), _LIMIT, _AFTER),
    ),
    Endpoint(
        verb="GET",
        path="/rounds/{run}/{step}",
        method=methods.GET_ROUND,
        summary="One round with its receipt",
        act=acts.one_round,
        answer=s.ROUND,
        parameters=(_RUN, _STEP),
    ),
    Endpoint(
        verb="POST",
        path="/runs/{run}/close",
        method=methods.CLOSE_RUN,
        summary="Close a run",
        act=acts.close_run,
        answer=s.NO_BODY,
        parameters=(_RUN,),
        is_write=True,
    ),
    Endpoint(
        verb="GET",
        path="/lineage/{tensors}",
        method=methods.FIND_LINEAGE,
        summary="Provenance of the aggregate with these tensors, back to the initial model",
        act=acts.lineage,
        answer=obj({"bundles": listed(s.ANY_OBJECT)}),
        parameters=(Parameter("tensors", s.DIGEST, "The digest of a canonical tensor set.", is_path=True),),
    ),
    Endpoint(
        verb="GET",
        path="/requests",
        method=f"{_REQUESTS}/ListRequests",
        summary="Requests to enroll",
        act=acts.requests,
        answer=_page("requests", s.REQUEST),
        parameters=(Parameter("state", s.words(RequestState), "Only these."), _LIMIT, _AFTER),
    ),
    Endpoint(
        verb="GET",
        path="/requests/{id}",
        method=f"{_REQUESTS}/GetRequest",
        summary="One request to enroll",
        act=acts.request,
        answer=s.REQUEST,
        parameters=(_ID,),
    ),
    Endpoint(
        verb="POST",
        path="/requests/{id}/approve",
        method=f"{_REQUESTS}/ApproveRequest",
        summary="Count the caller's approval of a request",
        act=acts.approve,
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
        act=acts.deny,
        answer=s.REQUEST,
        body=s.DECISION,
        parameters=(_ID,),
        is_write=True,
    ),
)
