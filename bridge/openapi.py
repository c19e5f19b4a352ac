"""The OpenAPI document of all routes, read off the routes themselves.

https://spec.openapis.org/oas/v3.0.3
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from bridge.patch import JSON_PATCH
from bridge.search import parameters
from bridge.wire import FHIR_JSON
from mappings import REGISTRY

Schema = dict[str, Any]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ID = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"}
ANYTHING: Schema = {"type": "object", "additionalProperties": True}
BODY: Schema = {FHIR_JSON: {"schema": ANYTHING}, "application/json": {"schema": ANYTHING}}
RESPONSES: Schema = {
    "200": {"description": "The answer.", "content": BODY},
    "201": {"description": "Created.", "content": BODY},
    "204": {"description": "Done."},
    "304": {"description": "The caller has this version."},
    "default": {"$ref": "#/components/responses/Outcome"},
}
OPEN = ("/health/", "/openapi.json", "/metadata", "/.well-known/")
"""Paths with one of these need no login."""
KEY: Schema = {
    "type": "object",
    "required": ["key"],
    "properties": {"key": {"type": "string", "description": "PKCS#8: hex of DER, PEM, or base64 of DER."}},
}


def document(app: Flask, base: str) -> Schema:
    """Returns the OpenAPI document of an application that is reached at `base`."""
    paths: dict[str, Schema] = {}
    for rule in app.url_map.iter_rules():
        if (
            rule.endpoint == "static"
            or rule.rule.endswith("/")
            or app.view_functions.get(rule.endpoint) is None
        ):
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
            "responses": {
                "Outcome": {
                    "description": "What is wrong, as an OperationOutcome.",
                    "content": BODY,
                }
            },
        },
    }


def _expanded(rule: Rule) -> Iterator[tuple[str, str | None]]:
    """Yields the path of a rule once for each resource type that it serves."""
    path = re.sub(r"<(?:[a-z]+:)?(\w+)>", r"{\1}", rule.rule)
    if "{resource_type}" not in path:
        yield path, None
        return
    for kind in REGISTRY:
        yield path.replace("{resource_type}", kind), kind


def _operation(app: Flask, rule: Rule, method: str, path: str, kind: str | None) -> Schema:
    endpoint = rule.endpoint.rpartition(".")[2]
    summary = (app.view_functions[rule.endpoint].__doc__ or "").strip().splitlines()[0]
    operation: Schema = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()} {path}").strip("_"),
        "summary": re.sub(r"\s*https?://\S+", "", summary),
        "parameters": [*_path_parameters(rule), *_search_parameters(endpoint, kind)],
        "responses": RESPONSES,
    }
    if any(part in rule.rule for part in OPEN):
        operation["security"] = []
    if method in ("POST", "PUT", "PATCH"):
        operation["requestBody"] = {"required": True, "content": _content(rule, endpoint, method)}
    return operation


def _path_parameters(rule: Rule) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": ID}
        for name in sorted(rule.arguments)
        if name != "resource_type"
    ]


def _search_parameters(endpoint: str, kind: str | None) -> list[Schema]:
    if endpoint != "search_type" or kind is None:
        return []
    names = [*parameters(kind), "_count"]
    return [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]


def _content(rule: Rule, endpoint: str, method: str) -> Schema:
    if "/keychain/" in rule.rule:
        return {"application/json": {"schema": KEY}}
    if endpoint == "search_form":
        return {"application/x-www-form-urlencoded": {"schema": ANYTHING}}
    content = dict(BODY)
    if method == "PATCH":
        content[JSON_PATCH] = {"schema": {"type": "array", "items": ANYTHING}}
    return content
