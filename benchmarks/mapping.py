"""Processor time of mapping one Observation to iCure, alone and among the results of a laboratory's import.

`python -m benchmarks.mapping`, in some ten seconds. In the import codes, units, ranges and performers come again, while
values, times and identifiers are new each time.
"""

from __future__ import annotations

import random
import time
from typing import Any

from benchmarks.examples import observation, sent
from bridge import wire
from mappings.engine import Context
from mappings.observation import OBSERVATION
from mappings.repeats import Repeats
from mappings.values import Number, Resource

RESULTS, TESTS, ROUNDS = 500, 25, 40
SUBJECT = "Patient/9a106b7f-2fa1-4b54-b3cb-c29cbfebe2ee"
UNITS = ("g/dL", "mmol/L", "mg/dL", "U/L")
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"


def result(nth: int, chance: random.Random) -> dict[str, Any]:
    """Returns one of 25 laboratory tests with a value and times of its own."""
    test = nth % TESTS
    unit = UNITS[test % len(UNITS)]
    low, high = test * 10 + 10, test * 10 + 35
    value = chance.gauss((low + high) / 2, 9)
    flag, meaning = ("L", "Low") if value < low else ("H", "High") if value > high else ("N", "Normal")
    said = {"unit": unit.lower(), "system": "http://unitsofmeasure.org", "code": unit}
    code = {
        "system": "http://loinc.org",
        "code": f"{700 + test}-{test % 10}",
        "display": f"Test {test} in Blood",
    }
    day = f"2024-{1 + nth % 12:02d}-{1 + nth % 28:02d}"
    resource = {
        **observation(SUBJECT, nth),
        "code": {"coding": [code], "text": f"Test {test}"},
        "valueQuantity": {"value": Number(f"{value:.2f}"), **said},
        "interpretation": [{"coding": [{"system": INTERPRETATION, "code": flag, "display": meaning}]}],
        "referenceRange": [{"low": {"value": Number(f"{low}.50"), **said}, "high": {"value": high, **said}}],
        "performer": [{"reference": f"Practitioner/h{test % 3}", "display": "Laboratory"}],
        "effectiveDateTime": f"{day}T{chance.randrange(24):02d}:{chance.randrange(60):02d}:10+01:00",
        "issued": f"{day}T{chance.randrange(24):02d}:15:{chance.randrange(60):02d}+01:00",
        "note": [{"text": f"Remark {nth}"}],
    }
    return {name: value for name, value in resource.items() if name != "note" or nth % 10 == 0}


def microseconds(resources: list[Resource], context: Context) -> float:
    """Returns the processor time of one of these resources."""
    start = time.process_time()
    for resource in resources:
        OBSERVATION.to_icure(resource, {"id": "an id"}, None, context)
    return (time.process_time() - start) / len(resources) * 1e6


def main() -> None:
    """Prints the best of many rounds."""
    chance = random.Random(7)
    resources = [wire.parse(sent(result(nth, chance))) for nth in range(RESULTS)]
    alone = min(microseconds(resources, Context(now=1)) for _ in range(ROUNDS))
    among = min(microseconds(resources, Context(now=1, repeats=Repeats())) for _ in range(ROUNDS))
    print(f"an Observation alone             {alone:6.1f} µs")
    print(f"one of {RESULTS} in a transaction     {among:6.1f} µs")


if __name__ == "__main__":
    main()
