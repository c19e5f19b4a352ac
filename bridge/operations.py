"""FHIR operations beyond the interactions: $validate, $everything, $lastn."""

from __future__ import annotations

from bridge import wire
from bridge.errors import BridgeError, Invalid, Issue, outcome, warning
from mappings.values import Resource

WELL = Issue("informational", "No issues detected.", severity="information")
MODES = ("create", "update", "delete", "profile")


def validate(body: Resource, resource_type: str, logical_id: str | None, *, strict: bool) -> Resource:
    """Returns an OperationOutcome of what is wrong with a resource, sent alone or as `resource` in Parameters.

    https://hl7.org/fhir/R4/resource-operation-validate.html
    """
    resource, issues = _validated(body)
    if resource is None:
        return outcome(issues or [WELL])
    try:
        checked, warnings = wire.check(resource, expected_type=resource_type, strict=strict)
    except BridgeError as e:
        return outcome([*issues, *e.issues])
    issues += warnings
    if logical_id is not None and checked.get("id") != logical_id:
        issues.append(Issue("invalid", "The id is not that of the URL.", f"{resource_type}.id"))
    return outcome(issues or [WELL])


def _validated(body: Resource) -> tuple[Resource | None, list[Issue]]:
    """Returns the resource to be validated and what there is to say of the request."""
    if body.get("resourceType") != "Parameters":
        return body, []
    parameters = body.get("parameter")
    named = (
        {p.get("name"): p for p in parameters if isinstance(p, dict)} if isinstance(parameters, list) else {}
    )
    issues: list[Issue] = []
    mode = named.get("mode", {}).get("valueCode")
    if mode is not None and mode not in MODES:
        raise Invalid(f"mode is one of {', '.join(MODES)}.", "Parameters.parameter")
    if "profile" in named:
        issues.append(
            warning("not-supported", "Profiles are not checked; R4 itself is.", "Parameters.parameter")
        )
    resource = named.get("resource", {}).get("resource")
    if isinstance(resource, dict):
        return resource, issues
    if mode == "delete":
        return None, issues
    raise Invalid("Parameters need a resource.", "Parameters.parameter")
