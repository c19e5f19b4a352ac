"""Prints time to first page and memory of searches over long histories and many patients. `python -m benchmarks.search`

The application and the embedded store run in this one process: times are those of both, memory too. *Lists* is the
part of the time in which the store lists ids.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from requests.adapters import BaseAdapter

from bridge import demo
from bridge.app import EMBEDDED_URL, create_app
from bridge.config import Config
from tests.helpers import Caller

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
CODES = ("718-7", "2339-0", "29463-7", "8867-4", "15074-8")
HISTORIES = (1_000, 100_000)
PATIENTS = 10_000
BATCH = 2_000
REPEATS = 5
FAMILIES = ("Peeters", "Janssens", "Maes", "Jacobs", "Mertens", "Willems", "Claes", "Goossens")


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    asked.add_argument("--scale", type=float, default=1.0, help="of the numbers of resources")
    scale = asked.parse_args().scale
    with tempfile.TemporaryDirectory() as folder:
        caller = _caller(Path(folder))
        lists = Lists(caller)
        print(f"{'query':<78} {'matches':>8} {'first page':>11} {'lists':>8} {'memory':>9}")
        for size in HISTORIES:
            patient_id = caller.created({"resourceType": "Patient", "name": [{"family": f"Long{size}"}]})[
                "id"
            ]
            count = int(size * scale)
            _load(caller, _observations(patient_id, count))
            for query in _of_history(patient_id):
                print(_line(caller, lists, query, query.replace(patient_id, f"‹{count:,}›")), flush=True)
        _load(caller, _patients(int(PATIENTS * scale)))
        for query in OF_PATIENTS:
            print(_line(caller, lists, query, query), flush=True)


def _of_history(patient_id: str) -> tuple[str, ...]:
    start = f"Observation?patient={patient_id}"
    return (
        f"{start}&_sort=-date&_count=50",
        f"{start}&_count=50",
        f"{start}&code={LOINC}|718-7&_sort=-date&_count=50",
        f"{start}&date=2020-03&_sort=-date&_count=50",
        f"{start}&date=ge2020-03-01&date=lt2020-04-01&_sort=date&_count=50",
        f"{start}&code-value-quantity={LOINC}|718-7$gt95&_count=50",
        f"{start}&_sort=-value-quantity&_count=50",
    )


OF_PATIENTS = (
    "Patient?_count=50",
    "Patient?name=peeters&_count=50",
    "Patient?name=peeters&gender=female&birthdate=ge1980&_count=50",
    "Patient?identifier=urn:bench|77&_count=50",
    "Patient?birthdate=1980-05&_count=50",
    "Patient?address-city=gent&_count=50",
    "Patient?name=peeters&_sort=birthdate&_count=50",
    "Patient?language=nl&_count=50",
)


class Lists(BaseAdapter):
    """Lets upstream calls through, and knows how long those took that list ids."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        session = caller.app.extensions["bridge"].upstream.session
        self.inner, self.seconds = session.get_adapter(EMBEDDED_URL), 0.0
        session.mount(EMBEDDED_URL, self)

    def send(self, request: Any, **options: Any) -> Any:
        start = time.perf_counter()
        response = self.inner.send(request, **options)
        if request.path_url.endswith("/match"):
            self.seconds += time.perf_counter() - start
        return response

    def close(self) -> None:
        self.inner.close()


def _line(caller: Caller, lists: Lists, query: str, shown: str) -> str:
    times, bundle = [], {}
    for _ in range(REPEATS):
        lists.seconds, start = 0.0, time.perf_counter()
        response = caller.get(query)
        times.append(((time.perf_counter() - start) * 1000, lists.seconds * 1000))
        if response.status_code != 200:
            return f"{shown:<78} {'':>8} {response.json['issue'][0]['code']:>11}"
        bundle = response.json
    tracemalloc.start()
    caller.get(query)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = sum(entry["search"]["mode"] == "match" for entry in bundle.get("entry", []))
    more = "+" if any(link["relation"] == "next" for link in bundle["link"]) else ""
    whole, listing = sorted(times)[REPEATS // 2]
    matches = f"{found}{more}"
    return f"{shown:<78} {matches:>8} {whole:>8.0f} ms {listing:>5.0f} ms {peak / 2**20:>6.1f} MB"


def _caller(folder: Path) -> Caller:
    config = Config(data_dir=folder)
    demo.ensure(config)
    caller = Caller(create_app(config), demo.accounts(folder)[0])
    assert caller.load_key().status_code == 200
    return caller


def _load(caller: Caller, resources: Iterator[dict[str, Any]]) -> None:
    while batch := list(islice(resources, BATCH)):
        response = caller.post("", _transaction(batch))
        assert response.status_code == 200, response.text[:500]


def _transaction(resources: Iterable[dict[str, Any]]) -> dict[str, Any]:
    entries = [{"resource": r, "request": {"method": "POST", "url": r["resourceType"]}} for r in resources]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _observations(patient_id: str, count: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(count)
    start = datetime(2010, 1, 1, 8, tzinfo=UTC)
    for at in range(count):
        when = start + timedelta(days=14 * 365 * at / count)
        yield {
            "resourceType": "Observation",
            "status": "final",
            "category": [{"coding": [{"system": "urn:bench:category", "code": "laboratory"}]}],
            "code": {"coding": [{"system": LOINC, "code": CODES[at % len(CODES)]}]},
            "subject": {"reference": f"Patient/{patient_id}"},
            "effectiveDateTime": f"{when:%Y-%m-%dT%H:%M:%S}Z",
            "valueQuantity": {"value": chance.randrange(30, 100), "unit": "g", "system": UCUM, "code": "g"},
        }


def _patients(count: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(7)
    for at in range(count):
        born = datetime(1930, 1, 1, tzinfo=UTC) + timedelta(days=chance.randrange(33_000))
        yield {
            "resourceType": "Patient",
            "identifier": [{"system": "urn:bench", "value": str(at)}],
            "name": [{"family": chance.choice(FAMILIES), "given": [f"Given{at}"]}],
            "gender": chance.choice(("male", "female")),
            "birthDate": f"{born:%Y-%m-%d}",
            "address": [{"city": chance.choice(("Gent", "Liège", "Namur", "Brugge"))}],
            "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "nl"}]}}],
        }


if __name__ == "__main__":
    main()
