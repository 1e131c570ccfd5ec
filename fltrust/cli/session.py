"""A session with the coordinator, as the identity in a state folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fltrust.identity import Name, Role, SpiffeId, TrustDomain

if TYPE_CHECKING:
    from fltrust.agent.credentials import Credentials
    from fltrust.client.coordinator import CoordinatorClient


@contextmanager
def operator_session(state: Path | None) -> Iterator[tuple[CoordinatorClient, Credentials]]:
    """Connect as the operator in `state`, or as the only operator of this machine; yields who it is, too."""
    from fltrust.agent.session import connect
    from fltrust.agent.state import find_state, passphrase_from_environment
    from fltrust.cli.output import speak_of

    folder = state or find_state(Role.OPERATOR)
    with connect(folder, passphrase=passphrase_from_environment()) as session:
        speak_of(session[1].spiffe_id.domain)
        yield session


def identity_from(text: str, *, domain: TrustDomain) -> SpiffeId:
    """Read `site-a` (a participant), `operator/admin`, or a whole SPIFFE ID."""
    if text.startswith("spiffe://"):
        return SpiffeId.parse(text)
    if "/" not in text:
        return SpiffeId(domain, Role.PARTICIPANT, Name(text))
    return SpiffeId.parse(f"spiffe://{domain}/{text}")
