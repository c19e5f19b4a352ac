"""What this server says of itself, read off the registry and the search tables.

https://hl7.org/fhir/R4/capabilitystatement.html
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from bridge import events, search
from bridge.config import Config
from bridge.definitions import definition, operations_of
from bridge.patch import JSON_PATCH, MERGE_PATCH
from mappings import REGISTRY
from mappings.search import Parameter
from mappings.values import Resource

INTERACTIONS = ("read", "vread", "update", "patch", "delete", "history-instance", "create", "search-type")
_CURRENT = "iCure keeps the current version only; history and vread know no other."
HISTORY = {
    "Patient": _CURRENT,
    "HealthElement": _CURRENT,
    "HealthcareParty": _CURRENT,
    "Service": "Older versions are known as far as iCure keeps them: where the Service moved to another Contact.",
}
"""What history there is, by entity type."""
OPERATIONS = {"Patient": ("everything",), "Observation": ("lastn",)}
"""Operations beside $validate, by resource type."""
DEFINITIONS = {
    "validate": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    "everything": "http://hl7.org/fhir/OperationDefinition/Patient-everything",
    "lastn": "http://hl7.org/fhir/OperationDefinition/Observation-lastn",
}
"""Of those operations that R4 defines."""
OPERATION_WORDS = {
    "validate": "POST of a resource, or of Parameters. Profiles are not checked.",
    "everything": (
        "GET, or POST of Parameters: _type, _since, _count. Page by page; Practitioners and Organizations come along "
        "with what refers to them."
    ),
    "lastn": (
        "GET, or POST of Parameters: max, and search parameters of Observation, a patient or subject among them. "
        "More than 10,000 Observations to be read: too-costly."
    ),
}
WEBSOCKET = "http://hl7.org/fhir/StructureDefinition/capabilitystatement-websocket"
RELEASED = "2026-11-21"


def capability_statement(config: Config, base: str) -> Resource:
    """Returns the CapabilityStatement of this deployment."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": RELEASED,
        "kind": "instance",
        "software": {"name": "icure-fhir-bridge", "version": version("icure-fhir-bridge")},
        "implementation": {"description": "FHIR R4 on iCure, end-to-end encrypted", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "patchFormat": [JSON_PATCH, "application/fhir+json", MERGE_PATCH],
        "rest": [
            {
                "extension": [{"url": WEBSOCKET, "valueUri": f"ws{base.removeprefix('http')}/ws"}],
                "mode": "server",
                "documentation": (
                    "Load your private key at /rest/icdx/v1/keychain/{dataOwnerId} first. A transaction is atomic, "
                    "not isolated: others may see a part of it while it is written. What cannot be undone is named in "
                    "the OperationOutcome. Idempotency-Key is honoured for a day. A search finds what is shared with "
                    f"the caller's data owner. Content beyond R4 is {_lenience(config.validation)}; references to "
                    f"something unknown are {_lenience(config.references)}, but for a Patient that is a subject."
                ),
                "security": {
                    "cors": bool(config.cors_origins),
                    "service": [
                        {
                            "coding": [
                                {
                                    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                                    "code": "Basic",
                                }
                            ]
                        }
                    ],
                    "description": "The caller's iCure login: Basic, or Bearer with an iCure JWT.",
                },
                "resource": [
                    *(_resource(resource_type, base, config) for resource_type in REGISTRY),
                    _subscription(),
                ],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
            }
        ],
    }


def _lenience(setting: str) -> str:
    return "refused" if setting == "strict" else "accepted with a warning"


def _resource(resource_type: str, base: str, config: Config) -> dict[str, Any]:
    return {
        "type": resource_type,
        "interaction": [{"code": code} for code in INTERACTIONS],
        "versioning": "versioned-update",
        "documentation": HISTORY[REGISTRY[resource_type].entity_type],
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "full-support",
        "conditionalUpdate": True,
        "conditionalDelete": "single",
        "operation": [*_operations(resource_type, base, config)],
        "searchInclude": search.include_values(resource_type),
        "searchRevInclude": search.reverse_include_values(resource_type),
        "searchParam": [
            {"name": name, "type": parameter.type, "documentation": _search_words(resource_type, parameter)}
            for name, parameter in search.PARAMETERS[resource_type].items()
        ],
    }


def _subscription() -> dict[str, Any]:
    """Returns what is said of Subscriptions, which are kept by the bridge and not by iCure."""
    return {
        "type": "Subscription",
        "interaction": [
            {"code": code} for code in ("read", "vread", "update", "delete", "create", "search-type")
        ],
        "versioning": "versioned-update",
        "documentation": (
            f"Criteria: a search of {', '.join(events.TYPES)}, without includes, order and pages. Channels: "
            "rest-hook, with payload application/fhir+json or none, and websocket. Each caller sees its own; the "
            "current version only."
        ),
        "readHistory": False,
        "updateCreate": False,
        "conditionalCreate": False,
        "conditionalRead": "full-support",
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
        "searchParam": [{"name": name, "type": p.type} for name, p in events.PARAMETERS.items()],
    }


def _search_words(resource_type: str, parameter: Parameter) -> str:
    found = search.found_by(resource_type, parameter)
    return f"{found[0].upper()}{found[1:]}. {parameter.documentation}".strip()


def _operations(resource_type: str, base: str, config: Config) -> Iterator[dict[str, Any]]:
    for name in ("validate", *OPERATIONS.get(resource_type, ())):
        yield {"name": name, "definition": DEFINITIONS[name], "documentation": OPERATION_WORDS[name]}
    for name in operations_of(resource_type):
        if name == "invite" and config.smtp_server is None:
            continue
        own = definition(name, base)
        yield {"name": name, "definition": own["url"], "documentation": own["description"]}


def smart(base: str) -> dict[str, Any]:
    """Returns the SMART configuration: no OAuth of our own. http://hl7.org/fhir/smart-app-launch/conformance.html"""
    return {
        "issuer": base,
        "capabilities": [],
        "grant_types_supported": [],
        "code_challenge_methods_supported": [],
        "scopes_supported": [],
        "documentation": (
            "This server has no authorization endpoint. Send the iCure login with Basic, or an iCure JWT with Bearer."
        ),
    }
