"""What is sent: ordinary laboratory results, about 1 kB each."""

from __future__ import annotations

from typing import Any

from bridge import wire
from mappings.values import Number

SELF = "urn:uuid:7d0b6ab2-6a5e-4f6c-9d0e-3b1f6b6f7a10"
EXAMPLE_NUMBER = b"12345"
"""Stands in an identifier of every request."""
UCUM = {"system": "http://unitsofmeasure.org", "code": "g/dL"}


def patient() -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"use": "usual", "system": "urn:oid:1.2.36.146.595.217.0.1", "value": "12345"}],
        "active": True,
        "name": [{"use": "official", "family": "Chalmers", "given": ["Peter", "James"]}],
        "telecom": [{"system": "phone", "value": "(03) 5555 6473", "use": "work", "rank": 1}],
        "gender": "male",
        "birthDate": "1974-12-25",
        "address": [
            {"use": "home", "line": ["534 Erewhon St"], "city": "PleasantVille", "postalCode": "3999"}
        ],
    }


def observation(subject: str, nth: int = 0) -> dict[str, Any]:
    category = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}
    code = {"system": "http://loinc.org", "code": "718-7", "display": "Hemoglobin [Mass/volume] in Blood"}
    low = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "L"}
    return {
        "resourceType": "Observation",
        "identifier": [{"system": "urn:oid:1.2.36.146.595.217.0.2", "value": f"lab-12345-{nth}"}],
        "status": "final",
        "category": [{"coding": [{**category, "display": "Laboratory"}], "text": "Laboratory"}],
        "code": {"coding": [code], "text": "Hemoglobin"},
        "subject": {"reference": subject},
        "effectiveDateTime": f"2024-04-05T10:{nth % 60:02d}:10+01:00",
        "issued": "2024-04-05T15:30:10+01:00",
        "valueQuantity": {"value": Number(f"7.{nth % 90 + 10}"), "unit": "g/dl", **UCUM},
        "interpretation": [{"coding": [{**low, "display": "Low"}]}],
        "note": [{"text": "Sample taken while fasting."}],
        "referenceRange": [
            {
                "low": {"value": Number("7.50"), "unit": "g/dl", **UCUM},
                "high": {"value": 10, "unit": "g/dl", **UCUM},
            }
        ],
    }


def transaction(observations: int) -> dict[str, Any]:
    """Returns a Bundle of one Patient and observations of it."""
    resources = [patient(), *(observation(SELF, nth) for nth in range(observations))]
    entries = [{"resource": r, "request": {"method": "POST", "url": r["resourceType"]}} for r in resources]
    entries[0]["fullUrl"] = SELF
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def sent(resource: dict[str, Any]) -> bytes:
    return wire.dump(resource)
