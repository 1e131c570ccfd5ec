"""What each endpoint does: a request read strictly, one call of the session, its answer as JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fltrust.coordinator.rest import answers, forms
from fltrust.coordinator.session import Session
from fltrust.enrollment.mackeys import MacPurpose
from fltrust.enrollment.requests import OPEN, RequestState
from fltrust.errors import Conflict, Malformed
from fltrust.identity import Name, Role, SpiffeId

MAX_PAGE: Final = 500
"""Items in one answer."""
USUAL_PAGE = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: parts of the path, the query (each name once), the body unread."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


def _paged(
    name: str,
    items: Iterable[Any],
    asked: Asked,
    *,
    key: Callable[[Any], str],
    as_json: Callable[[Any], object],
) -> dict[str, object]:
    """One page of items in the order of their keys."""
    limit = forms.read_number(asked.query.get("limit", str(USUAL_PAGE)), "a limit", most=MAX_PAGE)
    if not limit:
        raise Malformed("expected a limit of at least 1")
    after = asked.query.get("after", "")
    if len(after) > 512:
        raise Malformed("expected at most 512 characters as 'after'")
    found = [item for item in sorted(items, key=key) if key(item) > after]
    shown = found[:limit]
    rest = key(shown[-1]) if len(found) > limit else None
    return {name: [as_json(item) for item in shown], "next": rest}


def bundle(session: Session, _asked: Asked) -> object:
    return answers.bundle_json(session.bundle())


def trust(session: Session, _asked: Asked) -> object:
    return session.trust_file()


def participants(session: Session, asked: Asked) -> object:
    role = asked.query.get("role")
    wanted = None if role is None else forms.read_role(role)
    found = [one for one in session.list_enrollments() if wanted in (None, one.spiffe_id.role)]
    return _paged(
        "participants", found, asked, key=lambda one: str(one.spiffe_id), as_json=answers.participant_json
    )


def participant(session: Session, asked: Asked) -> object:
    return answers.participant_json(session.get_enrollment(identity_of(session, asked)))


def blast(session: Session, asked: Asked) -> object:
    if "since" not in asked.query:
        raise Malformed("expected 'since'")
    since = forms.read_time(asked.query["since"])
    who = SpiffeId(session.caller.spiffe_id.domain, Role.PARTICIPANT, Name(asked.path["name"]))
    return answers.blast_json(session.blast_radius(who, since))


def identity_of(session: Session, asked: Asked) -> SpiffeId:
    role = forms.read_role(asked.path["role"])
    return SpiffeId(session.caller.spiffe_id.domain, role, Name(asked.path["name"]))


def tokens(session: Session, asked: Asked) -> object:
    found = session.list_tokens()
    return _paged("tokens", found, asked, key=lambda one: one.token_id, as_json=answers.token_json)


def create_token(session: Session, asked: Asked) -> object:
    form = forms.read_token(asked.body)
    token = session.create_token(
        form.role, form.name, ttl=form.ttl, replace=form.replace, dns_names=form.dns_names
    )
    return answers.made_token_json(token)


def cancel_token(session: Session, asked: Asked) -> object:
    forms.read_nothing(asked.body)
    return answers.token_json(session.cancel_token(forms.read_id(asked.path["id"])))


def create_credential(session: Session, asked: Asked) -> object:
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


def revoke(session: Session, asked: Asked) -> object:
    form = forms.read_revocation(asked.body)
    if form.compromised_since is not None and form.compromised_since > session.now():
        raise Conflict("expected 'compromisedSince' to have passed", reason="time-in-future")
    return answers.events_json(
        session.revoke(form.target, reason=form.reason, compromised_since=form.compromised_since)
    )


def hold(session: Session, asked: Asked) -> object:
    form = forms.read_hold(asked.body)
    return answers.events_json(session.hold(form.target, reason=form.reason))


def release(session: Session, asked: Asked) -> object:
    return answers.events_json(session.release(forms.read_release(asked.body)))


def rounds(session: Session, asked: Asked) -> object:
    run = asked.query.get("run")
    found = session.list_rounds(None if run is None else forms.read_run(run))
    return _paged(
        "rounds",
        found,
        asked,
        key=lambda one: f"{int(one.key.run_id):020}.{one.key.step:010}",
        as_json=answers.round_json,
    )


def one_round(session: Session, asked: Asked) -> object:
    run, step = forms.read_run(asked.path["run"]), forms.read_number(asked.path["step"], "a step")
    return answers.round_json(session.get_round(run, step))


def close_run(session: Session, asked: Asked) -> object:
    forms.read_nothing(asked.body)
    session.close_run(forms.read_run(asked.path["run"]))
    return {}


def lineage(session: Session, asked: Asked) -> object:
    found = session.find_lineage(forms.read_digest(asked.path["tensors"]))
    return {"bundles": [json.loads(bundle) for bundle in itertools.islice(found, MAX_PAGE)]}


def requests(session: Session, asked: Asked) -> object:
    state = asked.query.get("state")
    if state is not None and state not in set(RequestState):
        raise Malformed(f"expected a state of {', '.join(RequestState)}")
    views = session.list_requests(open_only=state in {str(one) for one in OPEN})
    found = [view for view in views if state in (None, view.request.state)]
    return _paged(
        "requests", found, asked, key=lambda view: view.request.request_id, as_json=answers.request_json
    )


def request(session: Session, asked: Asked) -> object:
    return answers.request_json(session.get_request(forms.read_id(asked.path["id"])))


def approve(session: Session, asked: Asked) -> object:
    reason = forms.read_decision(asked.body)
    return answers.request_json(session.approve_request(forms.read_id(asked.path["id"]), reason=reason))


def deny(session: Session, asked: Asked) -> object:
    reason = forms.read_decision(asked.body)
    return answers.request_json(session.deny_request(forms.read_id(asked.path["id"]), reason=reason))
