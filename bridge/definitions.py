"""Operations that R4 does not define, as OperationDefinitions. https://hl7.org/fhir/R4/operationdefinition.html"""

from __future__ import annotations

from bridge.sharing import SHARED
from mappings.values import Json, Resource

_WORDS = {
    "share": "Gives another data owner access, encrypted for each of its keys. What is shared already stays as it is.",
    "access": "Tells who can open a resource, with what permission, and through whom.",
    "invite": "Makes a user for a patient, and sends the patient a temporary password by e-mail.",
}
_OF = {"share": tuple(SHARED), "access": tuple(SHARED), "invite": ("Patient",)}
_READING = ("access",)
_PARAMETERS: dict[str, tuple[tuple[str, str, int, str, str, str], ...]] = {
    "share": (
        (
            "recipient",
            "in",
            1,
            "1",
            "Reference",
            "A Practitioner, Organization or Patient who is a data owner.",
        ),
        ("permission", "in", 1, "1", "code", "read or write."),
        ("include", "in", 0, "*", "code", "Of a Patient: types of its data that are shared along."),
        ("recipient", "out", 1, "1", "Reference", "The recipient, by server id."),
        ("permission", "out", 1, "1", "code", "read or write."),
        ("fingerprint", "out", 1, "*", "string", "A key of the recipient for which it was encrypted."),
        ("shared", "out", 0, "*", "Reference", "What is shared now."),
        ("unchanged", "out", 0, "*", "Reference", "What was shared before."),
        ("failed", "out", 0, "*", "", "What could not be shared along: reference and outcome."),
    ),
    "access": (("access", "out", 1, "*", "", "who, permission and through whom."),),
    "invite": (
        ("user", "out", 1, "1", "string", "The id of the new user in iCure."),
        ("login", "out", 1, "1", "string", "Its login: the e-mail address."),
        ("expires", "out", 1, "1", "instant", "When the temporary password ends."),
    ),
}
_PARTS = {
    "failed": (("reference", "Reference"), ("outcome", "OperationOutcome")),
    "access": (("who", "Reference"), ("permission", "code"), ("through", "Reference")),
}
OPERATIONS = tuple(_WORDS)


def operations_of(resource_type: str) -> list[str]:
    """Returns the names of those that a resource type has."""
    return [name for name in OPERATIONS if resource_type in _OF[name]]


def definition(name: str, base: str) -> Resource:
    """Returns the OperationDefinition of an operation."""
    return {
        "resourceType": "OperationDefinition",
        "id": name,
        "url": f"{base}/OperationDefinition/{name}",
        "name": name.capitalize(),
        "status": "active",
        "kind": "operation",
        "affectsState": name not in _READING,
        "description": _WORDS[name],
        "code": name,
        "resource": list(_OF[name]),
        "system": False,
        "type": False,
        "instance": True,
        "parameter": [_parameter(*one) for one in _PARAMETERS[name]],
    }


def _parameter(name: str, use: str, least: int, most: str, kind: str, text: str) -> Json:
    said: dict[str, Json] = {"name": name, "use": use, "min": least, "max": most, "documentation": text}
    if kind:
        return {**said, "type": kind}
    parts = [{"name": n, "use": use, "min": 1, "max": "1", "type": k} for n, k in _PARTS[name]]
    return {**said, "part": parts}
