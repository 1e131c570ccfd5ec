"""The SPIFFE bundle endpoint on the services port: our roots, for whoever federates with us.

Anybody may read it. With the profile ``https_spiffe`` a reader verifies the port's certificate, the
coordinator's own X.509-SVID, under the bundle that it has; with ``https_web`` a proxy with a certificate of
the Web PKI stands before it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.coordinator.services import ServicesContext
from fltrust.pki.jwks import MEDIA_TYPE, publish

PATH = "/spiffe/bundle"
REFRESH: Final = timedelta(minutes=1)
"""How often we ask to be asked: how late a foreign domain may hear of a new root."""


def routes(context: ServicesContext) -> list[Route]:
    """The one page."""

    async def bundle(_request: Request) -> Response:
        data = publish(context.authority.bundle(), refresh=REFRESH)
        return Response(data, media_type=MEDIA_TYPE, headers={"cache-control": "no-cache"})

    return [Route(PATH, context.page("spiffe-bundle", bundle), methods=["GET"])]
