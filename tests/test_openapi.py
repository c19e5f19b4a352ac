"""The OpenAPI document is true: whatever it allows is answered as it says, and nothing with a server error."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bridge import demo
from bridge.app import create_app
from bridge.config import Config, SmtpServer
from tests.helpers import Caller, basic
from tests.test_capability import SMALLEST

EXAMPLES = 4
"""Requests made up for each operation."""
OTHERS = "others"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def esmith(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Caller:
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("openapi") / "data"))
    mail = SmtpServer("127.0.0.1", 1, tls=False, starttls=False)  # never reached: esmith has no address
    app = create_app(Config(data_dir=data_dir, smtp_server=mail, smtp_sender="no-reply@example.org"))
    app.testing = True
    return Caller(app, next(a for a in demo.accounts(data_dir) if a["name"] == "esmith"))


@pytest.fixture(scope="module")
def operations(esmith: Caller) -> list[Any]:
    served = schemathesis.openapi.from_wsgi("/openapi.json", esmith.app)
    return [result.ok() for result in served.get_all_operations()]


def about(path: str) -> str:
    """Returns the resource type that a path is about."""
    return next((kind for kind in SMALLEST if f"/{kind}" in path), OTHERS)


@pytest.mark.parametrize("kind", [*SMALLEST, OTHERS])
def test_what_the_document_allows_is_answered_as_it_says(
    esmith: Caller, operations: list[Any], kind: str
) -> None:
    own = [operation for operation in operations if about(operation.path) == kind]
    assert own
    for operation in own:
        _tried(esmith, operation)


def _tried(esmith: Caller, operation: Any) -> None:
    headers = {"Authorization": basic(esmith.account), "Accept-Encoding": "identity"}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), nearer=st.booleans())
    def attempt(case: Any, nearer: bool) -> None:
        assert esmith.load_key().status_code == 200  # a case may have taken it away
        if nearer:
            _brought_nearer(esmith, case)
        answer = case.call_and_validate(headers=headers, checks=CHECKS)
        assert answer.status_code < 500

    attempt()


def _brought_nearer(esmith: Caller, case: Any) -> None:
    """Makes of a case one that is about something that there is, with one parameter only, so that it may succeed."""
    kind = about(case.path)
    case.query = dict(list(case.query.items())[:1])
    body = SMALLEST.get(kind, {"type": "batch"})
    if "logical_id" in case.path_parameters:
        made = esmith.created({"resourceType": kind, **body})
        case.path_parameters["logical_id"] = made["id"]
        body = made
        if "version" in case.path_parameters:
            case.path_parameters["version"] = made["meta"]["versionId"]
    if isinstance(case.body, dict) and "resourceType" in case.body:
        case.body = {"resourceType": kind if kind in SMALLEST else "Bundle", **body}
