"""The OpenAPI document of the lease API: ``docs/leases.openapi.json``.

What a request may hold comes from the model that the service reads it with; the test sends it what the document allows and
what it does not, and holds every answer against it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reaper.leases import documents, http_api

_SCHEMAS = "#/components/schemas/"
_JSON = "application/json"
_TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
_TEXTS = {"type": "array", "items": _TEXT}
_TIME = {"type": "string", "format": "date-time"}

_HOLDER = {
    "type": "object",
    "required": ["host", "pid", "command", "user"],
    "properties": {"host": _TEXT, "pid": {"type": ["integer", "null"]}, "command": _TEXT, "user": _TEXT},
}
_CLAIM = {
    "type": "object",
    "required": ["labels", "names", "images", "projects"],
    "properties": dict.fromkeys(("labels", "names", "images", "projects"), _TEXTS),
}
_LEASE: dict[str, Any] = {
    "type": "object",
    "required": [
        *(
            "id",
            "label",
            "state",
            "holder",
            "claims",
            "granted_for",
            "since",
            "seen_at",
            "ended_at",
            "claims_until",
            "cause",
        ),
        *("max_age_seconds", "ended_by", "heartbeat_seconds"),
    ],
    "properties": {
        "id": _TEXT,
        "label": {**_TEXT, "description": "what a resource of the lease carries"},
        "state": {"enum": ["live", "reconnecting", "expired", "released"]},
        "holder": _HOLDER,
        "claims": {"type": "array", "items": _CLAIM},
        "granted_for": {**_TEXTS, "description": "the ids of the endpoints on which its claims count"},
        "since": _TIME,
        "seen_at": _TIME,
        "ended_at": {"type": ["string", "null"], "format": "date-time"},
        "claims_until": {"type": ["string", "null"], "format": "date-time"},
        "cause": _TEXT,
        "max_age_seconds": {"type": ["number", "null"], "description": "how old it may become; null for as old as it likes"},
        "ended_by": {**_MAYBE, "description": "who or what ended it, where that was not its holder or the holder's death"},
        "heartbeat_seconds": {"type": ["number", "null"], "description": "null where no heartbeat is needed"},
        "endpoints": {**_TEXTS, "description": "what the service sweeps; for clients that are trusted, or on the socket"},
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}, "additionalProperties": False}

_EXAMPLE = {
    "id": "run-7",
    "holder": {"host": "gpu-1", "pid": 4711, "command": "pytest", "user": "ada"},
    "claims": [{"labels": ["org.testcontainers.session-id=abc"]}],
}

_REFUSED = {
    "400": "the request says something that no lease can have",
    "401": "the token of [leases] is required",
    "403": "this client may not do that",
    "404": "no such lease is open here",
    "408": "the request did not come whole in time",
    "410": "an operator, or its age, has ended it: its holder does not get it back",
    "409": "this id is another lease's",
    "413": "the request is too large",
    "415": "over TCP a request is application/json, which no web page can send unasked",
    "429": "so many leases are open that no more can be",
    "503": "the leases cannot be read or written now; ask again after Retry-After",
}


def _answers(done: Mapping[str, Any], *refused: str) -> dict[str, Any]:
    schema = {_JSON: {"schema": {"$ref": f"{_SCHEMAS}Error"}}}
    return {
        **done,
        **{code: {"description": _REFUSED[code], "content": schema} for code in sorted((*refused, "401", "403", "503"))},
    }


def _lease(description: str) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": {"$ref": f"{_SCHEMAS}Lease"}}}}


def _query(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without the titles that are the model's own names."""
    parts = {
        name: {key: value for key, value in part.items() if key != "title"} for name, part in schema["properties"].items()
    }
    return {key: value for key, value in schema.items() if key != "title"} | {"properties": parts}


def document() -> dict[str, Any]:
    """The document."""
    request = documents.LeaseRequest.model_json_schema(ref_template=_SCHEMAS + "{model}")
    models = {name.strip("_"): _plain(model) for name, model in request.pop("$defs").items()}
    request |= {"required": ["holder"], "example": _EXAMPLE}
    request["properties"]["holder"] = {
        "$ref": f"{_SCHEMAS}Holder",
        "description": "on the local socket the kernel says who it is, and it may be left out",
    }
    taken = {
        code: {
            **_lease(description),
            "links": {
                name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in ("renew", "release")
            },
        }
        for code, description in (("200", "it was taken before, by the same client"), ("201", "it is taken"))
    }
    listed = {
        "type": "object",
        "required": ["leases", "edition", "seq"],
        "properties": {
            "leases": {"type": "array", "items": {"$ref": f"{_SCHEMAS}Lease"}},
            "edition": _TEXT,
            "seq": {"type": "integer", "minimum": 0},
            "label_keys": {**_TEXTS, "description": "with state=open: what claims of any lease know their own by"},
        },
    }
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": "The leases of reaper",
            "version": "1",
            "description": "docs/leases.md says what a lease is. The same is served on the local socket, without a token.",
        },
        "paths": {
            "/leases": {
                "get": {
                    "operationId": "list",
                    "summary": "All leases, or those that have changed since an earlier answer.",
                    "parameters": [
                        _query("after", "seq of an earlier answer", _TEXT),
                        _query("edition", "edition of that answer; of another file all are listed", _TEXT),
                        _query("state", "those that have not ended", {"enum": ["open"]}),
                        _query("id", "the one with this id, ended or not", _TEXT),
                        _query("from", "with until: those that ended with claims and lived at some moment between", _TIME),
                        _query("until", "see from", _TIME),
                    ],
                    "responses": _answers({"200": {"description": "they", "content": {_JSON: {"schema": listed}}}}, "400"),
                },
                "post": {
                    "operationId": "take",
                    "summary": "Take a lease. With hold the answer does not end, and its connection is the lease.",
                    "requestBody": {"required": True, "content": {_JSON: {"schema": {"$ref": f"{_SCHEMAS}Request"}}}},
                    "responses": _answers(taken, "400", "408", "409", "410", "413", "415", "429"),
                },
            },
            "/leases/{id}": {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}, "example": "run-7"}
                ],
                "put": {
                    "operationId": "renew",
                    "summary": "A heartbeat.",
                    "parameters": [
                        _query(
                            "over_for",
                            "how many seconds ago that ended for which it was taken, where the holder goes on to clean up",
                            {"type": "number", "minimum": 0, "maximum": http_api.LONGEST_OVER},
                        ),
                    ],
                    "responses": _answers({"200": _lease("it lives")}, "400", "404", "410"),
                },
                "delete": {
                    "operationId": "release",
                    "summary": "Release a lease: what is left of it is deleted.",
                    "parameters": [
                        _query("cause", "for people", _TEXT),
                        _query(
                            "by", "who ends it in its holder's place; over the socket the kernel says who that is", _TEXT
                        ),
                        _query(
                            "over_for",
                            "how many seconds ago that ended for which it was taken",
                            {"type": "number", "minimum": 0, "maximum": http_api.LONGEST_OVER, "default": 0},
                        ),
                    ],
                    "responses": _answers({"200": _lease("it has ended")}, "400", "404", "410"),
                },
            },
        },
        "components": {
            "schemas": {**models, "Request": _plain(request), "Lease": _LEASE, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }
    renamed: dict[str, Any] = json.loads(json.dumps(found).replace(f"{_SCHEMAS}_", _SCHEMAS))
    return renamed


FILES = {Path("docs/leases.openapi.json"): lambda: json.dumps(document(), indent=2) + "\n"}
