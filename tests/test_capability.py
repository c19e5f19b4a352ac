"""The CapabilityStatement: all that it lists works, and nothing works that it does not list."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationdefinition import OperationDefinition

from bridge import demo, wire
from bridge.app import create_app
from bridge.config import Config
from mappings import REGISTRY
from mappings.values import Resource
from tests.helpers import DEMO_PATIENT, FHIR, Caller, assert_outcome
from tests.test_sharing import asking

JSON_PATCH = "application/json-patch+json"
ABOUT = {"subject": {"reference": f"Patient/{DEMO_PATIENT}"}}
NUMBER = {"system": "http://example.org/numbers", "value": "7"}
SMALLEST: dict[str, Resource] = {
    "Patient": {},
    "Observation": {"status": "final", "code": {"text": "x"}, **ABOUT},
    "Condition": {"code": {"text": "x"}, **ABOUT},
    "Practitioner": {"name": [{"family": "Peeters"}]},
    "Organization": {"name": "Sint-Jan"},
    "Subscription": {
        "status": "requested",
        "reason": "x",
        "criteria": "Patient",
        "channel": {"type": "websocket"},
    },
}
every_type = pytest.mark.parametrize("kind", REGISTRY)


def resource(kind: str, **members: Any) -> Resource:
    return {"resourceType": kind, **SMALLEST[kind], **members}


@pytest.fixture(scope="module")
def caller(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Caller:
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("capability") / "data"))
    app = create_app(Config(data_dir=data_dir))
    app.testing = True
    account = next(a for a in demo.accounts(data_dir) if a["name"] == "esmith")
    one = Caller(app, account)
    assert one.load_key().status_code == 200
    return one


@pytest.fixture(scope="module")
def statement(caller: Caller) -> Resource:
    said: Resource = caller.get("metadata").json
    return said


@pytest.fixture
def listed(statement: Resource, kind: str) -> Resource:
    """What is said of one resource type."""
    (one,) = (r for r in statement["rest"][0]["resource"] if r["type"] == kind)
    return dict(one)


def works(response: Any) -> bool:
    """Whether it was done; what was not is refused in words."""
    if response.status_code < 300:
        return True
    assert_outcome(response, response.status_code)
    assert response.status_code < 500
    return False


# the statement itself


def test_it_is_valid(statement: Resource) -> None:
    said = CapabilityStatement.model_validate(statement)
    assert (said.fhirVersion, said.kind, said.status) == ("4.0.1", "instance", "active")
    assert said.implementation.url == f"http://localhost{FHIR}"
    assert wire.check(statement, strict=True)[1] == []


def test_it_lists_the_types_that_are_served(statement: Resource) -> None:
    assert [r["type"] for r in statement["rest"][0]["resource"]] == [*REGISTRY, "Subscription"]


@pytest.mark.parametrize(
    "kind", ["Medication", "Encounter", "Binary", "Bundle", "Parameters", "Nonsense", "patient"]
)
def test_other_types_are_refused(caller: Caller, kind: str) -> None:
    assert_outcome(caller.get(kind), 404)
    assert_outcome(caller.get(f"{kind}/1"), 404)
    assert_outcome(caller.post(kind, {"resourceType": kind}), 404)


# interactions

Try = Callable[[Caller, str], Any]
"""Tries an interaction with a resource type."""


def on_one(method: str, path: str = "", body: Any = None, content_type: str = "application/fhir+json") -> Try:
    """Returns how to try something on a resource that was just created."""

    def attempt(caller: Caller, kind: str) -> Any:
        made = caller.created(resource(kind))
        url = f"{kind}/{made['id']}{path.format(version=made['meta']['versionId'])}"
        return caller.send(method, url, made if body == "itself" else body, Content_Type=content_type)

    return attempt


CHANGE = b'[{"op":"add","path":"/language","value":"nl"}]'
INTERACTIONS: dict[str, Try] = {
    "read": on_one("GET"),
    "vread": on_one("GET", "/_history/{version}"),
    "update": on_one("PUT", body="itself"),
    "patch": on_one("PATCH", body=CHANGE, content_type=JSON_PATCH),
    "delete": on_one("DELETE"),
    "history-instance": on_one("GET", "/_history"),
    "history-type": lambda caller, kind: caller.get(f"{kind}/_history"),
    "create": lambda caller, kind: caller.post(kind, resource(kind)),
    "search-type": lambda caller, kind: caller.get(f"{kind}?_count=1"),
}


@every_type
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_an_interaction_works_exactly_when_it_is_listed(
    caller: Caller, listed: Resource, kind: str, interaction: str
) -> None:
    tried = INTERACTIONS[interaction](caller, kind)
    assert works(tried) == (interaction in {i["code"] for i in listed["interaction"]}), tried.text


@every_type
def test_no_interaction_is_listed_that_r4_does_not_know(listed: Resource) -> None:
    assert {i["code"] for i in listed["interaction"]} <= INTERACTIONS.keys()


def bundle(kind: str) -> Resource:
    entry = {"resource": resource("Patient"), "request": {"method": "POST", "url": "Patient"}}
    return {"resourceType": "Bundle", "type": kind, "entry": [entry]}


WHOLE: dict[str, Callable[[Caller], Any]] = {
    "transaction": lambda caller: caller.post("", bundle("transaction")),
    "batch": lambda caller: caller.post("", bundle("batch")),
    "search-system": lambda caller: caller.get("?_id=1"),
    "history-system": lambda caller: caller.get("_history"),
}


@pytest.mark.parametrize("interaction", WHOLE)
def test_an_interaction_of_the_whole_system_works_exactly_when_it_is_listed(
    caller: Caller, statement: Resource, interaction: str
) -> None:
    tried = WHOLE[interaction](caller)
    assert works(tried) == (interaction in {i["code"] for i in statement["rest"][0]["interaction"]})


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_an_interaction_with_subscriptions_works_exactly_when_it_is_listed(
    caller: Caller, statement: Resource, interaction: str
) -> None:
    (listed,) = (r for r in statement["rest"][0]["resource"] if r["type"] == "Subscription")
    tried = INTERACTIONS[interaction](caller, "Subscription")
    assert works(tried) == (interaction in {i["code"] for i in listed["interaction"]}), tried.text


def test_a_parameter_of_subscriptions_works_exactly_when_it_is_listed(
    caller: Caller, statement: Resource
) -> None:
    (listed,) = (r for r in statement["rest"][0]["resource"] if r["type"] == "Subscription")
    said = {parameter["name"] for parameter in listed["searchParam"]}
    tried = ("_id", "status", "type", "url", "criteria", "contact", "payload", "_lastUpdated", "_sort")
    worked = {name for name in tried if works(caller.get(f"Subscription?{name}=x", Prefer="handling=strict"))}
    assert worked == said


def test_the_websocket_is_where_it_is_said(caller: Caller, statement: Resource) -> None:
    (said,) = statement["rest"][0]["extension"]
    assert said["url"] == "http://hl7.org/fhir/StructureDefinition/capabilitystatement-websocket"
    path = said["valueUri"].removeprefix("ws://localhost")
    assert_outcome(caller.get(path), 400)
    assert "websockets" in caller.get(path).text


# what is said of interactions


@every_type
def test_update_creates_where_it_says_so(caller: Caller, listed: Resource, kind: str) -> None:
    made = resource(kind, id=str(uuid.uuid4()))
    assert works(caller.send("PUT", f"{kind}/{made['id']}", made)) == listed["updateCreate"]


@every_type
def test_conditional_create_makes_no_second_one(caller: Caller, listed: Resource, kind: str) -> None:
    number = {**NUMBER, "value": f"created {kind}"}
    sent, condition = resource(kind, identifier=[number]), f"identifier={number['system']}|{number['value']}"
    statuses = [caller.post(kind, sent, If_None_Exist=condition).status_code for _ in range(2)]
    assert (statuses == [201, 200]) == listed["conditionalCreate"]


@every_type
def test_conditional_read_spares_what_is_known(caller: Caller, listed: Resource, kind: str) -> None:
    read = caller.get(f"{kind}/{caller.created(resource(kind))['id']}")
    url = f"{kind}/{read.json['id']}"
    etag = caller.get(url, If_None_Match=read.headers["ETag"]).status_code
    since = caller.get(url, If_Modified_Since=read.headers["Last-Modified"]).status_code
    support = {(304, 304): "full-support", (304, 200): "not-match", (200, 304): "modified-since"}
    assert support.get((etag, since), "not-supported") == listed["conditionalRead"]


@every_type
def test_conditional_update_finds_the_one(caller: Caller, listed: Resource, kind: str) -> None:
    number = {**NUMBER, "value": f"updated {kind}"}
    made = caller.created(resource(kind, identifier=[number]))
    query = quote(f"{number['system']}|{number['value']}")
    changed = resource(kind, identifier=[number], language="nl")
    tried = caller.send("PUT", f"{kind}?identifier={query}", changed)
    assert works(tried) == listed["conditionalUpdate"]
    assert (tried.json["id"], tried.json["language"]) == (made["id"], "nl")


@every_type
def test_conditional_delete_is_of_one(caller: Caller, listed: Resource, kind: str) -> None:
    number = {**NUMBER, "value": f"deleted {kind}"}
    query = f"{kind}?identifier={quote(number['system'] + '|' + number['value'])}"
    caller.created(resource(kind, identifier=[number]))
    second = caller.created(resource(kind, identifier=[number]))
    several = works(caller.delete(query))
    if not several:
        caller.delete(f"{kind}/{second['id']}")
    one = several or works(caller.delete(query))
    assert listed["conditionalDelete"] == ("multiple" if several else "single" if one else "not-supported")


FORMATS = {
    "application/fhir+json": ("application/fhir+json", "json"),
    "json": ("json", "json"),
    "application/fhir+xml": ("application/fhir+xml", "xml"),
    "xml": ("xml", "xml"),
    "text/turtle": ("text/turtle", "turtle"),
    "ttl": ("ttl", "turtle"),
}


@pytest.mark.parametrize("media_type", FORMATS)
def test_a_format_is_answered_exactly_when_it_is_listed(
    caller: Caller, statement: Resource, media_type: str
) -> None:
    answered = caller.get(f"Patient/{DEMO_PATIENT}?_format={quote(media_type)}")
    assert works(answered) == (media_type in statement["format"])


OPERATION = {
    "name": "operation",
    "part": [
        {"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Patient"},
        {"name": "name", "valueString": "language"},
        {"name": "value", "valueCode": "nl"},
    ],
}
PATCHES: dict[str, Any] = {
    JSON_PATCH: CHANGE,
    "application/fhir+json": {"resourceType": "Parameters", "parameter": [OPERATION]},
    "application/merge-patch+json": {"language": "nl"},
    "application/xml-patch+xml": b'<diff><add sel="Patient"><language value="nl"/></add></diff>',
    "application/fhir+xml": b'<Parameters xmlns="http://hl7.org/fhir"/>',
}


@pytest.mark.parametrize("media_type", PATCHES)
def test_a_kind_of_patch_works_exactly_when_it_is_listed(
    caller: Caller, statement: Resource, media_type: str
) -> None:
    tried = on_one("PATCH", body=PATCHES[media_type], content_type=media_type)(caller, "Patient")
    assert works(tried) == (media_type in statement["patchFormat"])


# operations

OPERATIONS = {
    *("validate", "everything", "lastn", "meta", "meta-add", "meta-delete", "match", "stats", "graphql"),
    *("expunge", "document", "convert", "graph", "translate", "share", "access"),
}
"""Some of R4's, of other servers', and ours."""
OURS = {"share", "access"}


@every_type
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_an_operation_works_exactly_when_it_is_listed(
    caller: Caller, listed: Resource, kind: str, operation: str
) -> None:
    said = {o["name"]: o["definition"] for o in listed["operation"]}
    assert works(_operated(caller, kind, operation)) == (operation in said)
    if operation in OURS & said.keys():
        defined = wire.parse(caller.get(said[operation]).data)
        assert OperationDefinition.model_validate(defined).url == said[operation]
        assert (defined["code"], kind in defined["resource"]) == (operation, True)
    elif operation in said:
        assert said[operation].startswith("http://hl7.org/fhir/OperationDefinition/")


def _operated(caller: Caller, kind: str, operation: str) -> Any:
    """Returns the best answer to an operation, on one and on all of a type, by GET and POST."""
    made = caller.created(resource(kind))
    colleague = next(
        a for a in demo.accounts(caller.app.extensions["bridge"].config.data_dir) if a["name"] == "jdoe"
    )
    sent = asking(f"Practitioner/{colleague['dataOwnerId']}", "read") if operation == "share" else made
    answers = [
        answer
        for path in (f"{kind}/{made['id']}/${operation}", f"{kind}/${operation}?patient={DEMO_PATIENT}")
        for answer in (caller.get(path), caller.post(path, sent))
    ]
    return min(answers, key=lambda answer: answer.status_code)


@every_type
def test_no_operation_is_listed_that_is_not_tried(listed: Resource) -> None:
    assert {o["name"] for o in listed["operation"]} <= OPERATIONS


# search

_ADDRESS = "address address-city address-country address-postalcode address-state address-use"
_VALUES = "code-value-concept code-value-quantity data-absent-reason value-concept value-quantity"
_R4 = {
    "Patient": f"""
        active {_ADDRESS} birthdate death-date deceased email family gender general-practitioner given identifier
        language link name organization phone phonetic telecom
    """,
    "Observation": f"""
        based-on category code code-value-concept code-value-date code-value-quantity code-value-string combo-code
        component-code data-absent-reason date derived-from device encounter focus has-member identifier method
        part-of patient performer specimen status subject value-concept value-date value-quantity value-string
        {" ".join(f"{part}-{name}" for part in ("combo", "component") for name in _VALUES.split())}
    """,
    "Condition": """
        abatement-age abatement-date abatement-string asserter body-site category clinical-status code encounter
        evidence evidence-detail identifier onset-age onset-date onset-info patient recorded-date severity stage
        subject verification-status
    """,
    "Practitioner": f"""
        active {_ADDRESS} communication email family gender given identifier name phone phonetic telecom
    """,
    "Organization": f"active {_ADDRESS} endpoint identifier name partof phonetic type",
}
R4 = {kind: set(names.split()) for kind, names in _R4.items()}
"""The search parameters of each type: https://hl7.org/fhir/R4/searchparameter-registry.html."""
_OF_ALL = "_content _filter _id _lastUpdated _list _profile _query _security _source _tag _text _type"
OF_ALL = set(_OF_ALL.split())
_ELSEWHERE = "_contained _containedType _score _graph _maxresults _offset _page _getpages _in _language"
ELSEWHERE = set(_ELSEWHERE.split())
"""Some of R4's controls, and of other servers' parameters."""
PLAUSIBLE = {
    "token": ("http://example.org|x", "x"),
    "string": ("anna",),
    "date": ("2024-05", "ge2024-05-17"),
    "reference": (f"Patient/{DEMO_PATIENT}", DEMO_PATIENT),
    "quantity": ("5.4", "gt5||mg"),
    "number": ("5",),
    "uri": ("http://example.org/profile",),
}
OF_PARTS = {"value-quantity": "5.4", "value-concept": "http://example.org|x"}


def plausible(name: str, kind: str) -> tuple[str, ...]:
    if kind == "composite":
        return (f"http://example.org|x${next(v for part, v in OF_PARTS.items() if name.endswith(part))}",)
    return PLAUSIBLE[kind]


def strictly(caller: Caller, path: str) -> Any:
    return caller.get(path, Prefer="handling=strict")


@every_type
def test_every_parameter_that_is_listed_works_with_a_value_and_with_missing(
    caller: Caller, listed: Resource, kind: str
) -> None:
    failed = []
    for parameter in listed["searchParam"]:
        queries = [f"{parameter['name']}={quote(v)}" for v in plausible(parameter["name"], parameter["type"])]
        queries += [f"{parameter['name']}:missing={flag}" for flag in ("true", "false")]
        failed += [q for q in queries if strictly(caller, f"{kind}?{q}").status_code != 200]
    assert failed == []


@every_type
def test_a_parameter_of_r4_works_exactly_when_it_is_listed(
    caller: Caller, listed: Resource, kind: str
) -> None:
    said = {parameter["name"] for parameter in listed["searchParam"]}
    others = set().union(*R4.values()) | OF_ALL | ELSEWHERE
    worked = {name for name in others - said if works(strictly(caller, f"{kind}?{name}=x"))}
    assert worked == set()
    assert said <= R4[kind] | OF_ALL


@every_type
def test_a_parameter_that_is_not_listed_is_ignored_in_words_when_asked_leniently(
    caller: Caller, kind: str
) -> None:
    found = caller.get(f"{kind}?_content=x").json
    assert [e["search"]["mode"] for e in found["entry"] if e["resource"]["resourceType"] != kind] == [
        "outcome"
    ]


@every_type
@pytest.mark.parametrize(
    ("control", "said"), {"_include": "searchInclude", "_revinclude": "searchRevInclude"}.items()
)
def test_an_include_that_is_listed_works_and_one_that_is_no_reference_does_not(
    caller: Caller, statement: Resource, listed: Resource, kind: str, control: str, said: str
) -> None:
    references = {
        f"{r['type']}:{p['name']}"
        for r in statement["rest"][0]["resource"]
        for p in r["searchParam"]
        if p["type"] == "reference"
    }
    tried = {f"{kind}:{name}" for name in R4[kind] | OF_ALL} | set(listed[said])
    worked = {link for link in tried if works(strictly(caller, f"{kind}?{control}={quote(link)}"))}
    assert set(listed[said]) <= worked <= references | {"*"}
    if control == "_include":
        assert worked == set(listed[said])
