"""What a module of the public port is given: enrollment protocols that an operator switched on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.http_requests import BodyReader
from fltrust.coordinator.lanes import Lane

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class PublicContext:
    """Blocking work goes through `lane`, bodies through `body`, and every endpoint through `page`."""

    authority: Authority
    clock: Clock
    lane: Lane
    page: Callable[[str, Handler], Handler]
    body: BodyReader


PublicModule: TypeAlias = Callable[[PublicContext], list[Route]]
