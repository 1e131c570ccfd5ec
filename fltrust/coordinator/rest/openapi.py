"""The OpenAPI 3.1 document, written from the table of endpoints."""

from __future__ import annotations

from typing import Any

from fltrust.coordinator.permissions import METHODS
from fltrust.coordinator.rest.schemas import PROBLEM
from fltrust.coordinator.rest.table import ENDPOINTS, Endpoint, Parameter
from fltrust.coordinator.services import PROBLEM as PROBLEM_TYPE

BASE = "/api/v1"
_PROBLEM = {
    "description": "Refused, and why (RFC 9457).",
    "content": {PROBLEM_TYPE: {"schema": PROBLEM}},
}


def document() -> dict[str, Any]:
    """The document; the same every time."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.verb.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fltrust coordinator",
            "version": "1",
            "description": "For operators and registries. Callers show a client certificate of the trust "
            "domain; what a role may call is the same as over gRPC.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": BASE}],
        "paths": paths,
        "components": {"securitySchemes": {"certificate": {"type": "mutualTLS"}}},
        "security": [{"certificate": []}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    roles = ", ".join(sorted(METHODS.get(endpoint.method, ()))) or "nobody"
    name = endpoint.method.rpartition("/")[2]
    found: dict[str, Any] = {
        "operationId": name[0].lower() + name[1:],
        "summary": endpoint.summary,
        "description": f"As {endpoint.method[1:]}. May be called by: {roles}.",
        "responses": {
            str(endpoint.status): {
                "description": endpoint.summary,
                "content": {"application/json": {"schema": endpoint.answer}},
            },
            "4XX": _PROBLEM,
            "5XX": _PROBLEM,
        },
    }
    if endpoint.parameters:
        found["parameters"] = [_parameter(one) for one in endpoint.parameters]
    if endpoint.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": endpoint.body}},
        }
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "path" if parameter.is_path else "query",
        "required": parameter.is_path or parameter.is_needed,
        "description": parameter.what,
        "schema": parameter.schema,
    }
