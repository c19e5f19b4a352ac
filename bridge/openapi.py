"""The OpenAPI document of all routes, read off the routes themselves.

Facts: https://spec.openapis.org/oas/v3.0.3. A response that is not listed by its status is one of `4XX` and `5XX`: an
OperationOutcome.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from bridge.events import PARAMETERS
from bridge.operations import EVERYTHING, MODES
from bridge.patch import JSON_PATCH, MERGE_PATCH
from bridge.search import CONTROLS, parameters
from bridge.search.query import SUMMARIES, TOTALS
from bridge.users import FINDING, FORMS, SHORTEST_PASSWORD
from bridge.wire import FHIR_JSON
from mappings import REGISTRY

Schema = dict[str, Any]
SUBSCRIPTION = "Subscription"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
ID = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"}
TEXT: Schema = {"type": "string"}
OPEN = ("/health/", "/openapi.json", "/metadata", "/.well-known/", "/OperationDefinition/")
"""Paths with one of these need no login."""

KEY: Schema = {
    "type": "object",
    "required": ["key"],
    "properties": {"key": {"type": "string", "description": "PKCS#8: hex of DER, PEM, or base64 of DER."}},
}
KEYCHAIN: Schema = {
    "type": "object",
    "required": ["dataOwnerId", "expiresAt"],
    "properties": {
        "dataOwnerId": TEXT,
        "expiresAt": {"type": "string", "format": "date-time"},
        "fingerprint": TEXT,
        "fingerprints": {"type": "array", "items": TEXT},
    },
}
USER: Schema = {
    "type": "object",
    "properties": {
        **{name: {"type": "string", "minLength": 1} for name in FORMS if name != "autoDelegations"},
        "autoDelegations": {"type": "object", "additionalProperties": {"type": "array", "items": TEXT}},
        "password": {"type": "string", "minLength": SHORTEST_PASSWORD, "writeOnly": True},
    },
}
NEW_TOKEN: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^[A-Za-z0-9_\-]{1,100}$"},
        "seconds": {"type": "integer", "minimum": 1, "description": "-1 for ever."},
    },
}
TOKEN: Schema = {
    "type": "object",
    "required": ["name", "createdAt"],
    "properties": {
        "name": TEXT,
        "token": TEXT,
        "createdAt": {"type": "string", "format": "date-time"},
        "expiresAt": {"type": "string", "format": "date-time"},
    },
}
OPERATIONS = ("everything", "last_n", "access", "invite")
"""Endpoints that take their parameters from the URL or from Parameters."""
OPERATIONS_OF_PATCH = ("add", "remove", "replace", "move", "copy", "test")
PATCH: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["op", "path"],
        "properties": {
            "op": {"type": "string", "enum": list(OPERATIONS_OF_PATCH)},
            "path": TEXT,
            "from": TEXT,
            "value": {},
        },
    },
}

PRETTY: Schema = {"type": "string", "enum": ["true", "false"]}
FORMAT: Schema = {"type": "string", "enum": ["json", JSON, FHIR_JSON]}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
_CONTROLS: Schema = {
    **dict.fromkeys(CONTROLS, TEXT),
    "_count": _COUNT,
    "_total": {"type": "string", "enum": list(TOTALS)},
    "_summary": {"type": "string", "enum": list(SUMMARIES)},
    "_format": FORMAT,
    "_pretty": PRETTY,
}
RETURN: Schema = {
    "type": "string",
    "enum": ["return=minimal", "return=representation", "return=OperationOutcome"],
}
HANDLING: Schema = {"type": "string", "enum": ["handling=strict", "handling=lenient"]}
ETAG: Schema = {"type": "string", "pattern": r'^(W/)?"[A-Za-z0-9\-.]{1,64}"$'}
REQUEST_KEY: Schema = {**TEXT, "pattern": "^[!-~]{1,255}$"}
ONLY_NEW: Schema = {**TEXT, "enum": ["*"]}
HTTP_DATE: Schema = {"type": "string", "example": "Sat, 21 Nov 2026 12:00:00 GMT"}
_CHANGE, _KNOWN = (
    {"If-Match": ETAG, "Prefer": RETURN},
    {"If-None-Match": ETAG, "If-Modified-Since": HTTP_DATE},
)
HEADERS: dict[str, Schema] = {
    "transaction": {"Prefer": RETURN, "Idempotency-Key": REQUEST_KEY},
    "create": {
        "If-None-Exist": {**TEXT, "example": "identifier=http://example.org|1"},
        "Prefer": RETURN,
        "Idempotency-Key": REQUEST_KEY,
    },
    "read": _KNOWN,
    "vread": _KNOWN,
    "update": {**_CHANGE, "If-None-Match": ONLY_NEW},
    "update_where": {**_CHANGE, "If-None-Match": ONLY_NEW},
    "patch": _CHANGE,
    "patch_where": _CHANGE,
    "delete": _CHANGE,
    "delete_where": _CHANGE,
    "share": {
        "If-Match": ETAG,
        "Prefer": {**TEXT, "enum": [*RETURN["enum"], "respond-async"]},
        "Idempotency-Key": REQUEST_KEY,
    },
    "search_type": {"Prefer": HANDLING},
    "search_form": {"Prefer": HANDLING},
    "update_user": {"If-Match": ETAG},
    "delete_user": {"If-Match": ETAG},
}
"""Request headers, by endpoint."""

_DONE: dict[str, str | None] = {"200": "Resource"}
RESPONSES: dict[str, dict[str, str | None]] = {
    "metadata": {"200": "CapabilityStatement"},
    "smart_configuration": {"200": "Object"},
    "transaction": {"200": "Bundle"},
    "search_all": {},
    "search_type": {"200": "Bundle"},
    "search_form": {"200": "Bundle"},
    "everything": {"200": "Bundle"},
    "last_n": {"200": "Bundle"},
    "validate": {"200": "OperationOutcome"},
    "create": {"200": "Resource", "201": "Resource"},
    "read": {"200": "Resource", "304": None},
    "vread": {"200": "Resource", "304": None},
    "history": {"200": "Bundle"},
    "update": {"200": "Resource", "201": "Resource"},
    "update_where": {"200": "Resource", "201": "Resource"},
    "delete": {"200": "OperationOutcome", "204": None},
    "delete_where": {"200": "OperationOutcome", "204": None},
    "share": {"200": "Resource", "202": None},
    "access": {"200": "Parameters"},
    "definition": {"200": "OperationDefinition"},
    "status": {"200": "Resource", "202": None},
    "cancel": {"202": None},
    "listen": {"101": None},
    "load": {"200": "Keychain"},
    "loaded": {"200": "Keychain"},
    "unload": {"204": None},
    "find_users": {"200": "Users"},
    "create_user": {"201": "User"},
    "read_user": {"200": "User"},
    "update_user": {"200": "User"},
    "delete_user": {"204": None},
    "find_tokens": {"200": "Tokens"},
    "create_token": {"201": "Token"},
    "end_token": {"204": None},
    "ready": {"200": "Object", "503": "Object"},
}
"""What is answered by status, by endpoint: the name of a schema, None for no body. For others: a resource."""
PLAIN = {"Object", "Keychain", "User", "Users", "Token", "Tokens"}
"""What is no FHIR."""
BODIES = {"load": "Key", "create_user": "User", "update_user": "User", "create_token": "NewToken"}
"""What is sent that is no FHIR, by endpoint."""
WORDS = {
    "101": "A websocket from here on.",
    "200": "Done.",
    "201": "Created.",
    "202": "Begun, or going on.",
    "204": "Gone.",
    "304": "The caller has this version.",
    "503": "Not now.",
}


def document(app: Flask, base: str) -> Schema:
    """Returns the OpenAPI document of an application that is reached at `base`."""
    paths: dict[str, Schema] = {}
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static" or rule.rule.endswith("/") or rule.endpoint not in app.view_functions:
            continue
        for path, kind in _expanded(rule):
            for method in METHODS:
                if method in (rule.methods or ()):
                    paths.setdefault(path, {})[method.lower()] = _operation(app, rule, method, path, kind)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "iCure FHIR bridge",
            "version": version("icure-fhir-bridge"),
            "description": "FHIR R4 on iCure, end-to-end encrypted.",
        },
        "servers": [{"url": base}],
        "security": [{"basic": []}, {"bearer": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
            "schemas": _schemas(),
        },
    }


def _schemas() -> dict[str, Schema]:
    kinds = (
        *REGISTRY,
        SUBSCRIPTION,
        "Bundle",
        "Parameters",
        "OperationOutcome",
        "CapabilityStatement",
        "OperationDefinition",
    )
    return {
        **{kind: _resource([kind]) for kind in kinds},
        "Resource": _resource(),
        "Object": {"type": "object"},
        "Key": KEY,
        "Keychain": KEYCHAIN,
        "User": USER,
        "Users": _listing("users", "User", next=TEXT),
        "NewToken": NEW_TOKEN,
        "Token": TOKEN,
        "Tokens": _listing("tokens", "Token"),
        "JsonPatch": PATCH,
        "MergePatch": {"type": "object", "additionalProperties": True},
    }


def _listing(name: str, item: str, **others: Schema) -> Schema:
    """Returns the schema of an object that lists these."""
    listed = {name: {"type": "array", "items": _ref(item)}}
    return {"type": "object", "required": [name], "properties": {**listed, **others}}


def _resource(kinds: list[str] | None = None) -> Schema:
    named = {"type": "string", **({"enum": kinds} if kinds else {})}
    return {
        "type": "object",
        "required": ["resourceType"],
        "properties": {"resourceType": named},
        "additionalProperties": True,
        "externalDocs": {"url": f"https://hl7.org/fhir/R4/{kinds[0].lower() if kinds else 'resource'}.html"},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(*names: str) -> Schema:
    """Returns FHIR JSON that is one of these."""
    schema = _ref(names[0]) if len(names) == 1 else {"anyOf": [_ref(name) for name in names]}
    return {FHIR_JSON: {"schema": schema}, JSON: {"schema": schema}}


def _expanded(rule: Rule) -> Iterator[tuple[str, str | None]]:
    """Yields the path of a rule once for each resource type that it serves."""
    path = re.sub(r"<(?:[a-z]+:)?(\w+)>", r"{\1}", rule.rule)
    if "{resource_type}" not in path:
        yield path, SUBSCRIPTION if f"/{SUBSCRIPTION}" in path else None
        return
    for kind in REGISTRY:
        yield path.replace("{resource_type}", kind), kind


def _operation(app: Flask, rule: Rule, method: str, path: str, kind: str | None) -> Schema:
    endpoint = rule.endpoint.rpartition(".")[2]
    summary = (app.view_functions[rule.endpoint].__doc__ or "").strip().splitlines()[0]
    operation: Schema = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()} {path}").strip("_"),
        "summary": re.sub(r"\s*https?://\S+", "", summary),
        "parameters": [
            *({"name": n, "in": "path", "required": True, "schema": ID} for n in _names(rule)),
            *({"name": n, "in": "query", "schema": s} for n, s in _query(rule, endpoint, kind).items()),
            *({"name": n, "in": "header", "schema": s} for n, s in HEADERS.get(endpoint, {}).items()),
        ],
        "responses": _responses(rule, endpoint),
    }
    if any(part in rule.rule for part in OPEN):
        operation["security"] = []
    if method in ("POST", "PUT", "PATCH") and endpoint != "search_all":
        content = _body(endpoint, method, kind)
        optional = endpoint in ("search_form", *OPERATIONS)
        operation["requestBody"] = {"required": not optional, "content": content}
    return operation


def _names(rule: Rule) -> list[str]:
    return sorted(name for name in rule.arguments if name != "resource_type")


def _query(rule: Rule, endpoint: str, kind: str | None) -> dict[str, Schema]:
    if endpoint == "find_users":
        return {**dict.fromkeys(FINDING, TEXT), "limit": {"type": "integer", "minimum": 1}, "start": TEXT}
    if "/fhir/" not in rule.rule or endpoint == "smart_configuration":
        return {}
    shown = {"_format": FORMAT, "_pretty": PRETTY}
    if endpoint == "search_type":
        return {**_criteria(kind), **_CONTROLS, **shown}
    if endpoint in ("read", "vread"):
        return {
            "_summary": {**TEXT, "enum": [s for s in SUMMARIES if s != "count"]},
            "_elements": TEXT,
            **shown,
        }
    if (endpoint == "create" and kind != SUBSCRIPTION) or endpoint.endswith("_where"):
        return {**_criteria(kind), **shown}
    if endpoint == "validate":
        return {"mode": {**TEXT, "enum": list(MODES)}, "profile": TEXT, **shown}
    if endpoint == "everything":
        return {**dict.fromkeys(EVERYTHING, TEXT), "_count": {**_COUNT, "minimum": 1}, **shown}
    if endpoint == "last_n":
        return {**_criteria("Observation"), "max": {"type": "integer", "minimum": 1}, **shown}
    return shown


def _criteria(kind: str | None) -> dict[str, Schema]:
    if kind is None:
        return {}
    known = PARAMETERS if kind == SUBSCRIPTION else parameters(kind)
    return {name: {**TEXT, "description": p.type} for name, p in known.items()}


def _responses(rule: Rule, endpoint: str) -> Schema:
    refusal = {"description": "What is wrong.", "content": _content("OperationOutcome")}
    said: Schema = {"4XX": refusal, "5XX": refusal}
    fallback = _DONE if "/fhir/" in rule.rule else {"200": "Object"}
    for status, name in RESPONSES.get(endpoint, fallback).items():
        said[status] = {"description": WORDS[status]}
        if name is not None:
            said[status]["content"] = {JSON: {"schema": _ref(name)}} if name in PLAIN else _content(name)
    return dict(sorted(said.items()))


def _body(endpoint: str, method: str, kind: str | None) -> Schema:
    if endpoint in BODIES:
        return {JSON: {"schema": _ref(BODIES[endpoint])}}
    if endpoint == "search_form":
        fields = {**_criteria(kind), **_CONTROLS}
        return {FORM: {"schema": {"type": "object", "properties": fields}}}
    if method == "PATCH":
        patches = {JSON_PATCH: {"schema": _ref("JsonPatch")}, MERGE_PATCH: {"schema": _ref("MergePatch")}}
        return {**patches, FHIR_JSON: {"schema": _ref("Parameters")}}
    if endpoint in (*OPERATIONS, "share"):
        return _content("Parameters")
    if kind is None:
        return _content("Bundle")
    return _content("Parameters", kind) if endpoint == "validate" else _content(kind)
