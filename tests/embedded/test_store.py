from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.embedded import Store, create_app, filters, index
from bridge.embedded.entities import CONTACT, PATIENT
from bridge.embedded.store import DATABASE

from . import test_filters, world
from .world import Client, contact, ok, patient, service

PROCESSES, WRITES = 4, 40


def increment(directory: Path, token: str) -> None:
    """Counts up one patient's `created`, beside others who do the same."""
    app = create_app(directory)
    alice = Client(app, f"Bearer {token}")
    done = 0
    while done < WRITES:
        shared = ok(alice.get("/patient/counter"))
        done += alice.put("/patient", shared | {"created": shared["created"] + 1}).status_code == 200
        alice.create("/contact", contact(service(), id=f"contact-{os.getpid()}-{os.urandom(8).hex()}"))
    app.extensions["store"].close()


def test_several_processes_write_at_once(data_dir, furnished, alice):
    alice.create("/patient", patient(id="counter", created=0))
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=increment, args=(data_dir, furnished[1]["alice"])) for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
        assert worker.exitcode == 0
    counted = ok(alice.get("/patient/counter"))
    assert counted["created"] == PROCESSES * WRITES
    assert counted["rev"].startswith(f"{PROCESSES * WRITES + 1}-")
    assert len(alice.match("/contact", "ContactByHcPartyFilter")) >= PROCESSES * WRITES


def test_threads_share_a_store(app, furnished):
    client = Client(app, f"Bearer {furnished[1]['alice']}")
    made: list[str] = []

    def write() -> None:
        made.extend(client.create("/patient", patient())["id"] for _ in range(20))

    threads = [threading.Thread(target=write) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(client.match("/patient", "PatientByHcPartyFilter")) == sorted(made)


def test_a_store_opened_before_the_fork_serves_after_it(store, data_dir, furnished, alice):
    alice.create("/patient", patient(id="before"))
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: alice.create("/patient", patient(id="in-the-child")))
    child.start()
    alice.create("/patient", patient(id="meanwhile"))
    child.join(120)
    assert child.exitcode == 0
    assert alice.match("/patient", "PatientByHcPartyFilter") == ["before", "in-the-child", "meanwhile"]


WRITER = """
import sys
from pathlib import Path
from bridge.embedded import create_app
from tests.embedded.world import Client, contact, service
alice = Client(create_app(Path(sys.argv[1])), "Bearer " + sys.argv[2])
number = 0
while True:
    names = [f"{sys.argv[3]}-{number}-{part}" for part in range(3)]
    batch = [contact(service(id=f"service-of-{name}"), id=name) for name in names]
    for stored in alice.post("/contact/batch", batch).json():
        print(stored["id"], stored["rev"], flush=True)
    number += 1
"""


def test_acknowledged_writes_survive_a_kill(data_dir, furnished):
    root = Path(__file__).parents[2]
    acknowledged: dict[str, str] = {}
    for run in range(3):
        command = [sys.executable, "-c", WRITER, str(data_dir), furnished[1]["alice"], f"run{run}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
        assert process.stdout is not None
        for _ in range(30):
            contact_id, rev = process.stdout.readline().split()
            acknowledged[contact_id] = rev
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                contact_id, rev = line.split()
                acknowledged[contact_id] = rev
    store = Store(data_dir)
    alice = Client(create_app(data_dir, store=store), f"Bearer {furnished[1]['alice']}")
    for contact_id, rev in acknowledged.items():
        stored = ok(alice.get(f"/contact/{contact_id}"))
        assert stored["rev"] == rev
        assert ok(alice.get(f"/contact/service/service-of-{contact_id}"))["contactId"] == contact_id
    in_index = alice.match("/contact", "ContactByHcPartyFilter")
    assert acknowledged.keys() <= set(in_index)
    assert len(in_index) % 3 == 0, "a batch is one transaction"
    store.close()


def test_what_raises_leaves_nothing_behind(store):
    with pytest.raises(LookupError), store.writing() as writing:
        writing.save(PATIENT, patient(id="gone", gender="unknown", active=True), None)
        raise LookupError
    with store.reading() as view:
        assert view.get(PATIENT, "gone") is None
        assert view.found("patient", "", world.ALICE) == []


def test_a_view_shows_one_moment(store):
    with store.reading() as view:
        assert view.get(CONTACT, "c") is None
        with store.writing() as writing:
            writing.save(CONTACT, contact(id="c"), None)
        assert view.get(CONTACT, "c") is None
    with store.reading() as view:
        assert view.get(CONTACT, "c") is not None


def test_the_database_syncs_every_transaction(store):
    with store._connection() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_database_of_a_later_version_is_left_alone(data_dir, store):
    store.close()
    connection = sqlite3.connect(data_dir / DATABASE)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(RuntimeError, match="999"):
        Store(data_dir)


VERSION_1 = """
DROP TABLE IF EXISTS old;
CREATE TABLE old (
    field TEXT NOT NULL, owner TEXT NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL, item TEXT NOT NULL,
    PRIMARY KEY (field, owner, key, number, item)
) WITHOUT ROWID;
INSERT INTO old SELECT * FROM entries WHERE field <> 'contact.id';
INSERT INTO old
    SELECT 'contact.service', owner, service, 0, item FROM entries JOIN service_versions ON contact = item
    WHERE field = 'contact.id';
DROP VIEW entries;
DROP TABLE postings;
DROP TABLE scopes;
ALTER TABLE old RENAME TO entries;
PRAGMA user_version = 1;
"""


def test_the_index_of_the_first_version_is_carried_over(data_dir, store):
    parts = [service(id=name, codes=[world.code("718-7")]) for name in "xyz"]
    with store.writing() as writing:
        writing.save(CONTACT, contact(*parts, id="c", secretForeignKeys=["s"]), None)
        writing.save(CONTACT, contact(parts[0], id="d"), None)
        writing.save(PATIENT, patient(id="p", gender="male", active=True), None)
    store.close()
    connection = sqlite3.connect(data_dir / DATABASE)
    rows = connection.execute("SELECT * FROM entries ORDER BY field, owner, key, number, item").fetchall()
    connection.executescript(VERSION_1)
    connection.close()
    with Store(data_dir)._connection() as carried_over:
        again = "SELECT * FROM entries ORDER BY field, owner, key, number, item"
        assert carried_over.execute(again).fetchall() == rows
        assert carried_over.execute("PRAGMA user_version").fetchone() == (2,)


EVERY_FILTER = {
    name: next((members for members, found in cases if found), None)
    for table in (
        test_filters.BY_PATIENTS,
        test_filters.BY_CONTACTS,
        test_filters.BY_SERVICES,
        test_filters.BY_ELEMENTS,
    )
    for name, cases in table.items()
}


@pytest.mark.parametrize(("name", "members"), [case for case in EVERY_FILTER.items() if case[1] is not None])
def test_every_filter_searches_the_index(store, name, members):
    plans: list[str] = []

    def explain(where: str, parameters, order: str = "number, item") -> list[str]:
        with store._connection() as connection:
            query = f"EXPLAIN QUERY PLAN SELECT item FROM entries AS e WHERE {where} ORDER BY {order}"
            plans.extend(row[3] for row in connection.execute(query, parameters))
        return []

    with store.reading() as view:
        view.ids = explain  # type: ignore[method-assign]
        known = filters.FILTERS[name]
        for rows in known.search(filters.read(known.members, members)):
            rows.ids(view, world.ALICE)
    searched = [plan for plan in plans if "USING PRIMARY KEY" in plan]
    assert searched
    assert all(re.search(r"SEARCH \w+ USING PRIMARY KEY \((scope|service)=\?", plan) for plan in searched)
    assert not [plan for plan in plans if plan.startswith("SCAN")]


writes = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["save", "delete", "purge"]), st.integers(0, 3)),
    max_size=10,
)


@given(writes=writes)
def test_after_any_writes_the_index_is_what_a_fresh_one_would_be(tmp_path_factory, writes):
    store = Store(tmp_path_factory.mktemp("index"))
    for contact_id, action, number in writes:
        with store.writing() as writing:
            known = writing.get(CONTACT, contact_id)
            if action == "purge" and known is not None:
                writing.purge(CONTACT, known)
            elif action != "purge":
                parts = [
                    service(id=f"s{n}", modified=number, codes=[world.code(str(number))])
                    for n in range(number)
                ]
                entity = contact(*parts, id=contact_id, secretForeignKeys=[str(number)])
                if action == "delete":
                    entity["deletionDate"] = 1
                writing.save(CONTACT, entity, known)
    with store._connection() as connection:
        rows = {*connection.execute("SELECT * FROM entries")}
        contacts = [orjson.loads(row[0]) for row in connection.execute("SELECT body FROM documents")]
    store.close()
    expected = set().union(*(index.rows("Contact", one) for one in contacts))
    newest: dict[str, tuple[int, str]] = {}
    for one in contacts:
        for service_id, part in index.newest_services(one).items():
            newest[service_id] = max(newest.get(service_id, (-1, "")), (part["modified"], one["id"]))
    for one in contacts:
        here = [
            part
            for service_id, part in index.newest_services(one).items()
            if newest[service_id][1] == one["id"]
        ]
        expected |= index.service_rows(one, here)
    assert rows == expected
