"""The OpenAPI 3.1 document, made of the routes and the pydantic models."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gatewayd import __version__
from gatewayd.http import schemas
from gatewayd.http.bodies import JSON, MULTIPART, URLENCODED
from gatewayd.http.events import EVENT_STREAM, LAST_EVENT_ID
from gatewayd.http.idempotency import HEADER, MAX_LENGTH
from gatewayd.http.problems import PROBLEM_TYPE, dumps
from gatewayd.http.routes import KANNEL_PATH, ROUTES, Route, in_force
from gatewayd.http.schemas_inbound import EventDocument

TEXT = "text/plain"
_REF = "#/components/schemas/{model}"
_PROBLEMS = {
    400: "The request cannot be read.",
    401: "Nobody knows who is asking.",
    403: "The key has not the scope.",
    404: "There is no such thing.",
    408: "The body did not come in time.",
    409: "The Idempotency-Key was used with another body, or it is not possible now.",
    413: "The body is too large.",
    415: "The content type is not understood.",
    422: "A field is not acceptable; `errors` names it. Nothing was kept.",
    429: "Over the rate or the segments of the API key, or too many bad keys from this address. Nothing was kept; try "
    "again after `Retry-After` seconds.",
    500: "The gateway failed.",
    503: "The spool cannot be used now. Nothing was kept; try again after `Retry-After` seconds.",
}
_FORM = {
    "type": "object",
    "required": ["destination", "message"],
    "properties": {
        "destination": {"type": "string", "examples": ["098344484"]},
        "message": {"type": "string", "minLength": 1},
        "campaign": {"type": "string", "maxLength": 128},
        "agent": {"type": "string", "maxLength": 128},
    },
    "additionalProperties": True,
}


@cache
def text(kannel_path: str = KANNEL_PATH) -> bytes:
    """The document as JSON, with Kannel's interface at a path, or without it ("")."""
    paths: dict[str, dict[str, Any]] = {}
    for route in in_force(ROUTES, kannel_path):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "gatewayd",
                "version": __version__,
                "description": "An SMS gateway. A success answer to a submission means: the message is on disk.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": paths,
            "webhooks": {"event": {"post": _webhook()}},
            "components": {
                "schemas": _schemas(),
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`gw_…`)."},
                    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    "basic": {"type": "http", "scheme": "basic", "description": "The API key as password."},
                },
            },
        }
    ).encode()


def _webhook() -> dict[str, Any]:
    return {
        "operationId": "event",
        "summary": "An event: what webhooks and callbacks get, and the data of each in the stream of events.",
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref(EventDocument)}}},
        "responses": {"2XX": {"description": "It was taken."}},
    }


def document(kannel_path: str) -> web.Response:
    return web.Response(body=text(kannel_path), content_type=JSON)


def _models() -> list[type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {"Problem": schemas.Problem, "EventDocument": EventDocument}
    for route in ROUTES:
        answers = [model for given in route.answers.values() for model in _each(given)]
        taken = [route.body] if isinstance(route.body, type) else []
        found.update({model.__name__: model for model in (*answers, *taken)})
    return list(found.values())


def _each(given: type[BaseModel] | tuple[type[BaseModel], ...] | None) -> tuple[type[BaseModel], ...]:
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)


def _schemas() -> dict[str, Any]:
    inputs = {route.body for route in ROUTES}
    modes = [(model, "validation" if model in inputs else "serialization") for model in _models()]
    _, definitions = models_json_schema(modes, ref_template=_REF, by_alias=True)  # type: ignore[arg-type]
    found: dict[str, Any] = definitions["$defs"]
    return found


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{route.path}".replace("/", "_").replace("{", "").replace("}", ""),
        "summary": route.summary,
        "security": [] if route.scope is None else [{"bearer": []}, {"header": []}, {"basic": []}],
        "responses": _responses(route),
    }
    if route.scope is not None:
        operation["description"] = f"Needs the scope `{route.scope.value}`."
    parameters = _parameters(route)
    if parameters:
        operation["parameters"] = parameters
    body = _request_body(route)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in re.findall(r"\{(\w+)\}", route.path):
        found.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    for name, schema, description in route.query:
        found.append({"name": name, "in": "query", "schema": schema, "description": description})
    if route.produces == EVENT_STREAM:
        found.append(
            {
                "name": LAST_EVENT_ID,
                "in": "header",
                "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
                "description": "Go on after this event; a client that connects again sends it by itself.",
            }
        )
    if route.idempotent:
        found.append(
            {
                "name": HEADER,
                "in": "header",
                "schema": {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": "^[!-~]+$"},
                "description": "A repetition with the same key and body gets the first answer and sends nothing. Kept "
                "for 7 days.",
            }
        )
    return found


def _request_body(route: Route) -> dict[str, Any] | None:
    if route.body is None:
        return None
    if route.body == "text":
        form = {"type": "object", "properties": {name: schema for name, schema, _ in route.query}}
        return {"required": False, "content": {TEXT: {"schema": {"type": "string"}}, URLENCODED: {"schema": form}}}
    if isinstance(route.body, str):
        return {"required": True, "content": {URLENCODED: {"schema": _FORM}, MULTIPART: {"schema": _FORM}}}
    schema: dict[str, Any] = _ref(route.body)
    if route.many:
        array = {"type": "array", "items": _ref(route.body), "minItems": 1, "maxItems": schemas.MAX_MESSAGES}
        schema = {"oneOf": [schema, array]}
    required = any(field.is_required() for field in route.body.model_fields.values())
    return {"required": required, "content": {JSON: {"schema": schema}}}


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, given in route.answers.items():
        models = _each(given)
        schema: dict[str, Any] = {"type": "object" if route.produces == JSON else "string"}
        if len(models) == 1:
            schema = _ref(models[0])
        elif models:
            schema = {"oneOf": [_ref(model) for model in models]}
        responses[str(status)] = {"description": route.summary, "content": {route.produces: {"schema": schema}}}
        if route.idempotent:
            replayed = {
                "description": "`true` where this is the answer of the first time.",
                "schema": {"type": "string"},
            }
            responses[str(status)]["headers"] = {"Idempotency-Replayed": replayed}
    for status in route.problems:
        responses[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {PROBLEM_TYPE: {"schema": _ref(schemas.Problem)}},
        }
        if route.plain_problems:
            responses[str(status)]["content"][TEXT] = {"schema": {"type": "string"}}
    return responses
