"""FHIR R4 resources and iCure entities, mapped both ways without loss."""

from mappings.condition import CONDITION
from mappings.engine import Mapping
from mappings.observation import OBSERVATION
from mappings.organization import ORGANIZATION
from mappings.patient import PATIENT
from mappings.practitioner import PRACTITIONER

REGISTRY: dict[str, Mapping] = {
    "Patient": PATIENT,
    "Observation": OBSERVATION,
    "Condition": CONDITION,
    "Practitioner": PRACTITIONER,
    "Organization": ORGANIZATION,
}
"""The resource types that are served, each with its mapping."""
