"""Bad input is refused with the path of the element, and nothing is written for it.

Strategy: each flaw is one line of JSON text put into a resource that is good without it, sent alone and as the second
entry of a transaction whose first is good. The values that are wrong say ZANZIBAR, which no answer may repeat.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import demo, wire
from bridge.app import create_app
from bridge.config import Config
from bridge.crypto.keys import PrivateKey
from tests.helpers import DEMO_PATIENT, FHIR, READING, Caller, assert_outcome, count_calls, stored

GOOD = {
    "Patient": '"resourceType": "Patient", "name": [{"family": "Good"}]',
    "Observation": '"resourceType": "Observation", "status": "final", "code": {"text": "Hb"}',
}


class Watched(Caller):
    """A caller who sees whether anything was written upstream."""

    def __init__(self, data_dir: Path, account: str = "esmith", **settings: Any) -> None:
        config = replace(Config(data_dir=data_dir), **settings)
        app = create_app(config)
        app.testing = True
        accounts = {one["name"]: one for one in demo.accounts(data_dir)}
        super().__init__(app, accounts[account])
        assert self.load_key().status_code == 200
        first = {"resourceType": "Observation", "status": "final", "code": {"text": "makes exchange data"}}
        self.observation = self.created(first)["id"]
        self.data_dir = data_dir
        self.upstream = count_calls(app)

    def assert_refused(
        self,
        path: str,
        body: str | bytes,
        status: int,
        code: str,
        at: str | None,
        *,
        method: str = "POST",
        **headers: str,
    ) -> Any:
        """Asserts that it is refused with an issue of this code at this element, and that nothing was written."""
        before = stored(self.data_dir)
        self.upstream.told()
        sent = body.encode() if isinstance(body, str) else body
        response = self.send(method, path, sent, **headers)
        assert_outcome(response, status, code, at)
        assert "zanzibar" not in response.text.lower()
        assert [call for call in self.upstream.told() if not READING.fullmatch(call)] == []
        assert stored(self.data_dir) == before
        return response


@pytest.fixture(scope="module")
def data(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("bad") / "data"))


@pytest.fixture(scope="module")
def caller(data: Path) -> Watched:
    return Watched(data)


@pytest.fixture(scope="module")
def strict_caller(data: Path) -> Watched:
    return Watched(data, validation="strict", references="strict")


@pytest.fixture(scope="module")
def small_caller(data: Path) -> Watched:
    return Watched(data, max_body_bytes=4000, max_bundle_entries=3)


def transaction(*entries: str) -> str:
    return f'{{"resourceType": "Bundle", "type": "transaction", "entry": [{", ".join(entries)}]}}'


def post(resource: str, url: str) -> str:
    return f'{{"resource": {resource}, "request": {{"method": "POST", "url": "{url}"}}}}'


def nested(depth: int) -> str:
    """An extension in an extension, `depth` of them."""
    return '{"url": "u", "extension": [' * depth + '{"url": "u", "valueString": "x"}' + "]}" * depth


DEEP = '"extension": [' + nested(1000) + "]"

# name: members put into a good resource, where they are told of, with which code, (the status when it is not 400)
EITHER: dict[str, tuple[str, str, str]] = {
    "unknown element": ('"foo": "ZANZIBAR"', ".foo", "structure"),
    "null": ('"language": null', ".language", "structure"),
    "empty array": ('"identifier": []', ".identifier", "structure"),
    "empty object": ('"text": {}', ".text", "structure"),
    "blank string": ('"identifier": [{"value": "  "}]', ".identifier[0].value", "value"),
    "string as number": ('"identifier": [{"value": 5}]', ".identifier[0].value", "structure"),
    "list as object": ('"identifier": {"value": "ZANZIBAR"}', ".identifier", "structure"),
    "object as list": ('"text": [{"status": "empty"}]', ".text", "structure"),
    "duplicate key": ('"language": "en", "language": "zanzibar"', ".language", "structure"),
    "lone surrogate": ('"identifier": [{"value": "ZANZIBAR\\ud800"}]', ".identifier[0].value", "structure"),
    "control character": (
        '"identifier": [{"value": "ZANZIBAR\\u0000"}]',
        ".identifier[0].value",
        "structure",
    ),
    "id of 65 characters": ('"id": "' + "z" * 65 + '"', ".id", "value"),
    "id with a slash": ('"id": "ZANZI/BAR"', ".id", "value"),
    "id of dots and blanks": ('"id": ".. "', ".id", "value"),
    "a python name": ('"language__ext": {"id": "x"}', ".language__ext", "structure"),
    "resource_type": ('"resource_type": "Patient"', ".resource_type", "structure"),
    "fhir_comments": ('"fhir_comments": ["ZANZIBAR"]', ".fhir_comments", "structure"),
    "contained of unknown type": (
        '"contained": [{"resourceType": "Zanzibar"}]',
        ".contained[0]",
        "not-supported",
    ),
    "contained without type": ('"contained": [{"id": "a"}]', ".contained[0]", "required"),
    "script in the narrative": (
        '"text": {"status": "generated", "div": '
        '"<div xmlns=\\"http://www.w3.org/1999/xhtml\\"><script>ZANZIBAR</script></div>"}',
        ".text.div",
        "value",
    ),
    "narrative that is no XHTML": (
        '"text": {"status": "generated", "div": "<div>ZANZIBAR"}',
        ".text.div",
        "value",
    ),
    "code outside a required binding": (
        '"identifier": [{"use": "zanzibar", "value": "1"}]',
        ".identifier[0].use",
        "code-invalid",
    ),
    "extension with value and children": (
        '"extension": [{"url": "u", "valueString": "ZANZIBAR", "extension": [{"url": "v", "valueCode": "a"}]}]',
        ".extension[0]",
        "structure",
    ),
    "extension with neither": ('"extension": [{"url": "u"}]', ".extension[0]", "structure"),
    "broken base64": (
        '"extension": [{"url": "u", "valueBase64Binary": "!!!!"}]',
        ".extension[0].value",
        "value",
    ),
    "instant without zone": ('"meta": {"lastUpdated": "2020-01-01T00:00:00"}', ".meta.lastUpdated", "value"),
    "huge exponent": (
        '"extension": [{"url": "u", "valueDecimal": 1E999999}]',
        ".extension[0].valueDecimal",
        "structure",
    ),
    "5,000 digits": (
        '"extension": [{"url": "u", "valueInteger": ' + "1" * 5000 + "}]",
        ".extension[0].valueInteger",
        "structure",
    ),
    "NaN": ('"extension": [{"url": "u", "valueDecimal": NaN}]', ".extension[0].valueDecimal", "structure"),
}
PATIENT: dict[str, tuple[str, str, str]] = {
    "boolean as string": ('"active": "true"', ".active", "structure"),
    "boolean as number": ('"active": 1', ".active", "structure"),
    "integer as string": ('"multipleBirthInteger": "2"', ".multipleBirth", "structure"),
    "integer with fraction": ('"multipleBirthInteger": 2.0', ".multipleBirth", "structure"),
    "date as number": ('"birthDate": 0', ".birthDate", "structure"),
    "30 February": ('"birthDate": "2021-02-30"', ".birthDate", "value"),
    "date in words": ('"birthDate": "Zanzibar 2021"', ".birthDate", "value"),
    "unknown gender": ('"gender": "zanzibar"', ".gender", "code-invalid"),
    "two deceased[x]": ('"deceasedBoolean": true, "deceasedDateTime": "2020"', ".deceased", "structure"),
    "missing required element": ('"link": [{"type": "seealso"}]', ".link[0].other", "required"),
    "_given of another length": (
        '"contact": [{"name": {"given": ["a", "b"], "_given": [{"id": "x"}]}}]',
        ".contact[0].name.given",
        "structure",
    ),
    "broken base64 in a photo": ('"photo": [{"data": "ZANZIBAR!"}]', ".photo[0].data", "value"),
    "generalPractitioner with a blank": (
        '"generalPractitioner": [{"reference": "Practitioner/zanzi bar"}]',
        ".generalPractitioner[0].reference",
        "value",
    ),
}
OBSERVATION: dict[str, tuple[str, str, str]] = {
    "decimal as string": ('"valueQuantity": {"value": "7.5"}', ".value.value", "structure"),
    "comparator": ('"valueQuantity": {"value": 7, "comparator": "="}', ".value.comparator", "code-invalid"),
    "huge exponent in a value": (
        '"valueQuantity": {"value": 1E999999}',
        ".valueQuantity.value",
        "structure",
    ),
    "time without zone": ('"effectiveDateTime": "2020-01-01T10:00:00"', ".effective", "value"),
    "two effective[x]": (
        '"effectiveDateTime": "2020", "effectiveInstant": "2020-01-01T00:00:00Z"',
        ".effective",
        "structure",
    ),
    "component without code": (
        '"component": [{"valueString": "ZANZIBAR"}]',
        ".component[0].code",
        "required",
    ),
    "value of a type it cannot have": ('"valueDate": "2020-01-01"', ".valueDate", "structure"),
}
ALL = [
    pytest.param(kind, text, kind + at, code, id=f"{kind}: {name}")
    for kind, table in (("Patient", EITHER | PATIENT), ("Observation", EITHER | OBSERVATION))
    for name, (text, at, code) in table.items()
]


@pytest.mark.parametrize(("kind", "text", "at", "code"), ALL)
def test_a_flaw_is_refused_alone(caller: Watched, kind: str, text: str, at: str, code: str) -> None:
    caller.assert_refused(kind, f"{{{GOOD[kind]}, {text}}}", 400, code, at)


@pytest.mark.parametrize(("kind", "text", "at", "code"), ALL)
def test_a_flaw_in_an_update_is_refused(caller: Watched, kind: str, text: str, at: str, code: str) -> None:
    named = "" if text.startswith('"id"') else '"id": "new-one", '
    body = f"{{{named}{GOOD[kind]}, {text}}}"
    caller.assert_refused(f"{kind}/new-one", body, 400, code, at, method="PUT")
    there = DEMO_PATIENT if kind == "Patient" else caller.observation
    body = body.replace("new-one", there, 1)
    caller.assert_refused(f"{kind}/{there}", body, 400, code, at, method="PUT")


@pytest.mark.parametrize(("kind", "text", "at", "code"), ALL)
def test_a_flaw_in_an_entry_refuses_the_transaction(
    caller: Watched, kind: str, text: str, at: str, code: str
) -> None:
    good = post(f"{{{GOOD['Patient']}}}", "Patient")
    body = transaction(good, post(f"{{{GOOD[kind]}, {text}}}", kind))
    at = at.replace(kind, "Bundle.entry[1].resource", 1)
    caller.assert_refused("", body, 400, code, at)


@pytest.mark.parametrize(
    ("kind", "resource", "at"),
    [
        ("Observation", '{"resourceType": "Observation", "code": {"text": "a"}}', ".status"),
        ("Observation", '{"resourceType": "Observation", "status": "final"}', ".code"),
    ],
)
def test_a_missing_required_element_is_named(caller: Watched, kind: str, resource: str, at: str) -> None:
    caller.assert_refused(kind, resource, 400, "required", kind + at)
    caller.assert_refused(
        "", transaction(post(resource, kind)), 400, "required", f"Bundle.entry[0].resource{at}"
    )


NOT_A_RESOURCE: dict[str, str | bytes] = {
    "nothing": "",
    "not JSON": "<Patient xmlns='http://hl7.org/fhir'/>",
    "cut off": '{"resourceType": "Patient", "name": [{"family": "Zanzibar',
    "two documents": "{} {}",
    "a list": "[]",
    "a string": '"Zanzibar"',
    "a number": "1E999999",
    "null": "null",
    "not UTF-8": b'{"resourceType": "Patient", "language": "\xff"}',
    "1,000 deep": f"{{{DEEP}}}",
    "100,000 deep": "[" * 100_000,
    "a raw control character": '{"resourceType": "Patient", "language": "\x01"}',
}


@pytest.mark.parametrize(
    "path", ["Patient", "Observation", ""], ids=["Patient", "Observation", "transaction"]
)
@pytest.mark.parametrize("body", NOT_A_RESOURCE.values(), ids=NOT_A_RESOURCE)
def test_what_is_no_resource_is_refused(caller: Watched, path: str, body: str | bytes) -> None:
    caller.assert_refused(path, body, 400, "structure", None)


@pytest.mark.parametrize("kind", ["Patient", "Observation"])
def test_nesting_without_bound_is_refused(caller: Watched, kind: str) -> None:
    caller.assert_refused(kind, f"{{{GOOD[kind]}, {DEEP}}}", 400, "structure", None)
    caller.assert_refused("", transaction(post(f"{{{GOOD[kind]}, {DEEP}}}", kind)), 400, "structure", None)


TYPES: dict[str, tuple[str, str, int, str, str | None]] = {
    "a type that FHIR does not know": (
        "Zanzibar",
        '{"resourceType": "Zanzibar"}',
        404,
        "not-supported",
        None,
    ),
    "a type that is not served": ("Device", '{"resourceType": "Device"}', 404, "not-supported", None),
    "another type than the route's": ("Patient", f"{{{GOOD['Observation']}}}", 400, "invalid", "Patient"),
    "no type": ("Patient", '{"active": true}', 400, "required", "Patient"),
    "a type that is no string": ("Patient", '{"resourceType": ["Patient"]}', 400, "not-supported", "Patient"),
    "an unknown type on a known route": ("Patient", '{"resourceType": "Zanzi"}', 400, "invalid", "Patient"),
}


@pytest.mark.parametrize(("path", "body", "status", "code", "at"), TYPES.values(), ids=TYPES)
def test_types(caller: Watched, path: str, body: str, status: int, code: str, at: str | None) -> None:
    caller.assert_refused(path, body, status, code, at)


GOOD_ENTRY = post(f"{{{GOOD['Patient']}}}", "Patient")
ENVELOPES: dict[str, tuple[str, str, str | None]] = {
    "a history": ('{"resourceType": "Bundle", "type": "history"}', "not-supported", "Bundle.type"),
    "a collection": ('{"resourceType": "Bundle", "type": "collection"}', "not-supported", "Bundle.type"),
    "no such type": ('{"resourceType": "Bundle", "type": "zanzibar"}', "code-invalid", "Bundle.type"),
    "no type": ('{"resourceType": "Bundle"}', "required", "Bundle.type"),
    "no Bundle": (f"{{{GOOD['Patient']}}}", "invalid", None),
    "entry no list": (transaction("")[:-3] + '{"a": 1}}', "structure", "Bundle.entry"),
    "entry no object": (transaction("5"), "structure", "Bundle.entry[0]"),
    "entry without type or request": (
        transaction(GOOD_ENTRY, '{"resource": {"active": true}}'),
        "required",
        "Bundle.entry[1].resource",
    ),
    "url and resource differ": (
        transaction(GOOD_ENTRY, post(f"{{{GOOD['Observation']}}}", "Patient")),
        "value",
        "Bundle.entry[1].request.url",
    ),
    "a url with path": (
        transaction(GOOD_ENTRY, post(f"{{{GOOD['Patient']}}}", "Patient/../zanzibar")),
        "value",
        "Bundle.entry[1].request.url",
    ),
    "no such method": (
        transaction(GOOD_ENTRY, GOOD_ENTRY.replace("POST", "ZANZIBAR")),
        "code-invalid",
        "Bundle.entry[1].request.method",
    ),
    "a DELETE with resource": (
        transaction(
            GOOD_ENTRY, GOOD_ENTRY.replace('"POST"', '"DELETE"').replace('"Patient"}', '"Patient/1"}')
        ),
        "structure",
        "Bundle.entry[1].resource",
    ),
    "a condition that is none": (
        transaction(GOOD_ENTRY.replace('"POST"', '"POST", "ifNoneExist": "zanzibar"')),
        "value",
        "Bundle.entry[0].request.ifNoneExist",
    ),
    "POST without resource": (
        transaction('{"request": {"method": "POST", "url": "Patient"}}'),
        "required",
        "Bundle.entry[0].resource",
    ),
    "two with one fullUrl": (
        transaction(*['{"fullUrl": "urn:oid:1.2", ' + GOOD_ENTRY[1:]] * 2),
        "duplicate",
        "Bundle.entry[1].fullUrl",
    ),
    "a fullUrl that is relative": (
        transaction('{"fullUrl": "Patient/zanzibar", ' + GOOD_ENTRY[1:]),
        "value",
        "Bundle.entry[0].fullUrl",
    ),
    "unknown element of the Bundle": (
        transaction(GOOD_ENTRY)[:-1] + ', "foo": "ZANZIBAR"}',
        "structure",
        "Bundle.foo",
    ),
    "duplicate key of the Bundle": (
        transaction(GOOD_ENTRY)[:-1] + ', "type": "batch"}',
        "structure",
        "Bundle.type",
    ),
    "a Bundle in the Bundle": (
        transaction(post('{"resourceType": "Bundle", "type": "transaction"}', "Bundle")),
        "not-supported",
        "Bundle.entry[0].resource",
    ),
}


@pytest.mark.parametrize(("body", "code", "at"), ENVELOPES.values(), ids=ENVELOPES)
def test_envelopes(caller: Watched, body: str, code: str, at: str | None) -> None:
    caller.assert_refused("", body, 400, code, at)


@pytest.mark.parametrize("kind", ["Zanzibar", "Device"])
def test_an_entry_of_a_type_that_is_not_served_is_named(caller: Watched, kind: str) -> None:
    body = transaction(GOOD_ENTRY, post(f'{{"resourceType": "{kind}"}}', kind))
    response = caller.post("", body.encode())
    assert response.status_code in (400, 404)
    assert response.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    caller.assert_refused("", body, response.status_code, "not-supported", None)


def test_every_entry_is_told_of(caller: Watched) -> None:
    wrong = ['"gender": "zanzibar"', '"active": 1', '"birthDate": "zanzibar", "deceasedBoolean": "true"']
    entries = [post(f"{{{GOOD['Patient']}, {text}}}", "Patient") for text in wrong]
    response = caller.assert_refused("", transaction(*entries), 400, "structure", None)
    assert {issue["expression"][0] for issue in response.json["issue"]} == {
        "Bundle.entry[0].resource.gender",
        "Bundle.entry[1].resource.active",
        "Bundle.entry[2].resource.birthDate",
        "Bundle.entry[2].resource.deceased",
    }


STRICT: dict[str, tuple[str, str, int, str, str]] = {
    "two value[x]": (
        "Observation",
        f'{{{GOOD["Observation"]}, "valueString": "ZANZIBAR", "valueInteger": 1}}',
        400,
        "structure",
        "Observation.value",
    ),
    "a bare id": (
        "Observation",
        f'{{{GOOD["Observation"]}, "subject": {{"reference": "{DEMO_PATIENT}"}}}}',
        400,
        "value",
        "Observation.subject.reference",
    ),
    "a reference to something unknown": (
        "Observation",
        f'{{{GOOD["Observation"]}, "performer": [{{"reference": "Practitioner/zanzibar"}}]}}',
        422,
        "not-found",
        "Observation.performer[0]",
    ),
    "a Bundle without resourceType": (
        "",
        f'{{"type": "transaction", "entry": [{GOOD_ENTRY}]}}',
        400,
        "required",
        "Bundle",
    ),
    "an entry without request": (
        "",
        transaction(f'{{"resource": {{{GOOD["Patient"]}}}}}'),
        400,
        "required",
        "Bundle.entry[0].request",
    ),
}


@pytest.mark.parametrize(("path", "body", "status", "code", "at"), STRICT.values(), ids=STRICT)
def test_strict_refuses_what_goes_beyond_r4(
    strict_caller: Watched, path: str, body: str, status: int, code: str, at: str
) -> None:
    strict_caller.assert_refused(path, body, status, code, at)


SUBJECTS = {
    "a Patient that does not exist": "Patient/zanzibar",
    "a bare id that does not exist": "zanzibar",
    "an absolute one of this server": f"http://localhost{FHIR}/Patient/zanzibar",
    "a urn that nothing has": "urn:uuid:11111111-2222-4333-8444-5555zanzibar",
    "a urn that no entry has": "urn:uuid:11111111-2222-4333-8444-555566667777",
    "a Patient named ..": "Patient/..",
    "a conditional reference": "Patient?identifier=zanzibar",
}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_a_subject_that_does_not_exist_is_refused(caller: Watched, subject: str) -> None:
    resource = f'{{{GOOD["Observation"]}, "subject": {{"reference": "{subject}"}}}}'
    for path, body, at in (
        ("Observation", resource, "Observation"),
        ("", transaction(GOOD_ENTRY, post(resource, "Observation")), "Bundle.entry[1].resource"),
    ):
        before = stored(caller.data_dir)
        response = caller.post(path, body.encode())
        assert response.status_code in (400, 422), response.text
        assert [f"{at}.subject"] in [i.get("expression") for i in response.json["issue"]]
        assert "zanzibar" not in response.text
        assert stored(caller.data_dir) == before


def test_a_deleted_subject_is_refused(caller: Watched) -> None:
    gone = caller.created({"resourceType": "Patient", "id": "soon-gone"})["id"]
    assert caller.delete(f"Patient/{gone}").status_code == 204
    for reference in (f"Patient/{gone}", "Patient/soon-gone"):
        resource = f'{{{GOOD["Observation"]}, "subject": {{"reference": "{reference}"}}}}'
        caller.assert_refused("Observation", resource, 422, "not-found", "Observation.subject")


def test_the_subject_of_another_caller_is_refused(caller: Watched, data: Path) -> None:
    jdoe = Watched(data, "jdoe")
    resource = f'{{{GOOD["Observation"]}, "subject": {{"reference": "Patient/{DEMO_PATIENT}"}}}}'
    jdoe.assert_refused("Observation", resource, 422, "not-found", "Observation.subject")


def test_a_client_id_that_means_two_is_refused(caller: Watched) -> None:
    ids = sorted(caller.created({"resourceType": "Patient", "id": "twin"})["id"] for _ in range(2))
    resource = f'{{{GOOD["Observation"]}, "subject": {{"reference": "Patient/twin"}}}}'
    at = "Observation.subject"
    response = caller.assert_refused("Observation", resource, 422, "multiple-matches", at)
    assert all(one in response.text for one in ids)
    for read in (caller.get("Patient/twin"), caller.delete("Patient/twin")):
        assert_outcome(read, 412, "multiple-matches")
        assert all(one in read.text for one in ids)


# sizes


def test_a_body_too_large_is_refused(small_caller: Watched) -> None:
    body = f'{{{GOOD["Patient"]}, "language": "{"z" * 5000}"}}'
    for path in ("Patient", "Observation", ""):
        small_caller.assert_refused(path, body, 413, "too-long", None)


def test_too_many_entries_are_refused(small_caller: Watched) -> None:
    small_caller.assert_refused("", transaction(*[GOOD_ENTRY] * 4), 413, "too-long", "Bundle.entry")
    assert small_caller.post("", transaction(*[GOOD_ENTRY] * 3).encode()).status_code == 200


# media types

MEDIA: dict[str, tuple[dict[str, str], int]] = {
    "XML sent": ({"Content_Type": "application/fhir+xml"}, 415),
    "a form sent": ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    "text sent": ({"Content_Type": "text/plain"}, 415),
    "Latin-1 sent": ({"Content_Type": "application/fhir+json; charset=latin-1"}, 415),
    "R5 sent": ({"Content_Type": "application/fhir+json; fhirVersion=5.0"}, 415),
    "XML wanted": ({"Accept": "application/fhir+xml"}, 406),
    "R5 wanted": ({"Accept": "application/fhir+json; fhirVersion=5.0"}, 406),
    "HTML wanted": ({"Accept": "text/html"}, 406),
    "nothing wanted": ({"Accept": "application/fhir+json;q=0"}, 406),
}


@pytest.mark.parametrize(
    "path", ["Patient", "Observation", ""], ids=["Patient", "Observation", "transaction"]
)
@pytest.mark.parametrize(("headers", "status"), MEDIA.values(), ids=MEDIA)
def test_media_types(caller: Watched, path: str, headers: dict[str, str], status: int) -> None:
    body = f"{{{GOOD[path]}}}" if path else transaction(GOOD_ENTRY)
    caller.assert_refused(path, body, status, "not-supported", None, **headers)


@pytest.mark.parametrize("path", ["Patient?_format=xml", "Patient/1?_format=ttl", "metadata?_format=xml"])
def test_a_format_that_is_not_spoken_is_refused(caller: Watched, path: str) -> None:
    assert_outcome(caller.get(path), 406, "not-supported")


# who calls

CREDENTIALS = {
    "none": None,
    "another scheme": "Digest username=zanzibar",
    "Basic without value": "Basic",
    "not base64": "Basic zanzibar!",
    "no colon": "Basic emFuemliYXI=",
    "no password": "Basic emFuemliYXI6",
    "not UTF-8": "Basic /zo6/w==",
    "nobody": "Basic emFuemliYXI6emFuemliYXI=",
    "a token that is none": "Bearer zanzibar",
    "a token of three parts": "Bearer a.b.c",
    "beyond ASCII": "Basic zänzibär",
    "very long": "Basic " + "QUFB" * 2000,
}
ROUTES = {
    "create": ("POST", "Patient", b'{"resourceType": "Patient"}'),
    "transaction": ("POST", "", transaction().encode()),
    "read": ("GET", f"Patient/{DEMO_PATIENT}", None),
    "search": ("GET", "Patient?name=van", None),
    "delete": ("DELETE", f"Patient/{DEMO_PATIENT}", None),
    "load a key": ("POST", f"/rest/icdx/v1/keychain/{demo.ESMITH}", b'{"key": "00"}'),
    "look at keys": ("GET", f"/rest/icdx/v1/keychain/{demo.ESMITH}", None),
    "forget keys": ("DELETE", f"/rest/icdx/v1/keychain/{demo.ESMITH}", None),
}


@pytest.mark.parametrize(("method", "path", "body"), ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("authorization", CREDENTIALS.values(), ids=CREDENTIALS)
def test_no_or_wrong_credentials_are_refused(
    caller: Watched, method: str, path: str, body: bytes | None, authorization: str | None
) -> None:
    before = stored(caller.data_dir)
    url = path if path.startswith("/") else f"{FHIR}/{path}"
    headers = {"Content-Type": "application/fhir+json"}
    headers |= {} if authorization is None else {"Authorization": authorization}
    address = f"192.0.2.{list(ROUTES.values()).index((method, path, body))}"  # each has a few tries
    response = caller.http.open(
        url, method=method, data=body, headers=headers, environ_base={"REMOTE_ADDR": address}
    )
    assert_outcome(response, 401, "login")
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert "zanzibar" not in response.text
    assert stored(caller.data_dir) == before


@pytest.fixture
def keyless(app: Any, accounts: dict[str, dict[str, str]]) -> Caller:
    """A caller who has not loaded a key yet."""
    return Caller(app, accounts["esmith"])


KEYED = [route for route in ROUTES if not route.endswith(("key", "keys"))]


@pytest.mark.parametrize("route", KEYED)
def test_without_the_key_every_fhir_call_says_how_to_load_it(
    keyless: Caller, data_dir: Path, route: str
) -> None:
    before = stored(data_dir)
    response = keyless.send(*ROUTES[route])
    assert_outcome(response, 403, "security")
    assert f"/rest/icdx/v1/keychain/{demo.ESMITH}" in response.text
    assert stored(data_dir) == before


@pytest.mark.parametrize("route", KEYED)
def test_a_key_that_was_uploaded_with_another_login_is_refused(
    app: Any, esmith: Caller, data_dir: Path, route: str
) -> None:
    token = esmith.http.post(
        "/rest/v2/auth/login",
        json={"username": esmith.account["login"], "password": esmith.account["password"]},
    ).json["token"]
    before = stored(data_dir)
    response = esmith.send(*ROUTES[route], Authorization=f"Bearer {token}")
    assert_outcome(response, 403, "security")
    assert "login" in response.json["issue"][0]["diagnostics"]
    assert stored(data_dir) == before


def test_the_keychain_of_another_data_owner_is_refused(
    esmith: Caller, accounts: dict[str, dict[str, str]]
) -> None:
    other = accounts["jdoe"]
    path = f"/rest/icdx/v1/keychain/{other['dataOwnerId']}"
    assert_outcome(esmith.load_key(other["privateKey"], other["dataOwnerId"]), 403, "forbidden")
    assert_outcome(esmith.get(path), 403, "forbidden")
    assert_outcome(esmith.delete(path), 403, "forbidden")
    assert_outcome(esmith.get("/rest/icdx/v1/keychain/zanzibar"), 403, "forbidden")


def test_the_key_of_someone_else_is_refused(keyless: Caller, accounts: dict[str, dict[str, str]]) -> None:
    for key in (accounts["jdoe"]["privateKey"], PrivateKey.generate().pkcs8_der.hex()):
        response = keyless.load_key(key)
        assert_outcome(response, 422, "business-rule")
        assert key not in response.text
    assert_outcome(keyless.get(f"Patient/{DEMO_PATIENT}"), 403, "security")


KEYS: dict[str, tuple[bytes, int]] = {
    "no JSON": (b"zanzibar", 400),
    "no object": (b"[]", 400),
    "no key": (b"{}", 400),
    "a key that is no string": (b'{"key": 5}', 400),
    "an empty key": (b'{"key": ""}', 422),
    "no key at all": (b'{"key": "zanzibar"}', 422),
    "hex of nothing": (b'{"key": "00ff00ff"}', 422),
    "PEM of nothing": (
        b'{"key": "-----BEGIN PRIVATE KEY-----\\nAAAA\\n-----END PRIVATE KEY-----"}',
        422,
    ),
    "a public key": (b"SPKI", 422),
    "digits of another script": ('{"key": "٣٣٣٣"}'.encode(), 422),
}


@pytest.mark.parametrize(("body", "status"), KEYS.values(), ids=KEYS)
def test_what_is_no_key_is_refused(keyless: Caller, body: bytes, status: int) -> None:
    if body == b"SPKI":
        key = PrivateKey.parse(keyless.account["privateKey"])
        body = json.dumps({"key": key.spki_hex}).encode()
    response = keyless.post(f"/rest/icdx/v1/keychain/{demo.ESMITH}", body)
    assert response.status_code == status, response.text
    assert response.json["resourceType"] == "OperationOutcome"
    assert "zanzibar" not in response.text
    assert_outcome(keyless.get(f"/rest/icdx/v1/keychain/{demo.ESMITH}"), 404, "not-found")


# routes

METHODS: dict[str, tuple[str, str, set[str]]] = {
    "POST a Patient": ("POST", "Patient/1", {"GET", "PUT", "PATCH", "DELETE"}),
    "TRACE a Patient": ("TRACE", "Patient/1", {"GET", "PUT", "PATCH", "DELETE"}),
    "TRACE a type": ("TRACE", "Patient", {"GET", "POST"}),
    "DELETE the base": ("DELETE", "", {"POST"}),
    "POST health": ("POST", "/health/live", {"GET"}),
    "PUT a key": ("PUT", f"/rest/icdx/v1/keychain/{demo.ESMITH}", {"GET", "POST", "DELETE"}),
}


@pytest.mark.parametrize(("method", "path", "allowed"), METHODS.values(), ids=METHODS)
def test_a_method_that_a_route_has_not_is_refused_with_those_it_has(
    caller: Watched, method: str, path: str, allowed: set[str]
) -> None:
    response = caller.send(method, path, b"{}")
    assert_outcome(response, 405, "not-supported")
    assert allowed <= {one.strip() for one in response.headers["Allow"].split(",")}
    assert method not in response.headers["Allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/rest",
        "/rest/fhir",
        "/rest/fhir/r5/Patient",
        "/rest/icdx/v1/keychain",
        "Patient/1/2",
        "Patient/1/_history/2/3",
        "Patient/1/$everything",
        "/zanzibar",
        "/rest/fhir/r4/Patient//1",
    ],
)
def test_an_unknown_route_is_refused(caller: Watched, path: str) -> None:
    response = caller.get(path)
    assert response.status_code in (400, 404), response.text
    assert response.json["resourceType"] == "OperationOutcome"
    assert "zanzibar" not in response.text


IDS = {
    "..": "..",
    ".": ".",
    "%2e%2e": "%2e%2e",
    "%2e": "%2e",
    "%252e%252e": "%252e%252e",
    "..%2fcontact": "..%2fcontact",
    "a%2fb": "a%2fb",
    "a%5cb": "a%5cb",
    "65 characters": "a" * 65,
    "10,000 characters": "a" * 10_000,
    "a blank": "a%20b",
    "a null character": "%00",
    "a line feed": "a%0a",
    "unicode": "%E2%98%83",
    "a lone surrogate": "%ED%A0%80",
    "not UTF-8": "%ff",
    "an underscore": "_search",
    "a query": "a%3frev=1",
    "unknown": "zanzibar",
    "a wildcard": "%2a",
}


@pytest.mark.parametrize("kind", ["Patient", "Observation"])
@pytest.mark.parametrize("sent", IDS.values(), ids=IDS)
def test_an_id_that_means_nothing_is_not_found_and_never_another_path(
    caller: Watched, sent: str, kind: str
) -> None:
    before = stored(caller.data_dir)
    caller.upstream.told()
    deleted = caller.delete(f"{kind}/{sent}")
    for response in (caller.get(f"{kind}/{sent}"), *([deleted] if deleted.status_code != 204 else [])):
        assert response.status_code in (400, 404, 405), response.text
        assert response.json["resourceType"] == "OperationOutcome"
        assert "zanzibar" not in response.text
    calls = caller.upstream.told()
    assert [call for call in calls if not READING.fullmatch(call)] == []
    reads = {call for call in calls if call.startswith(("GET patient", "GET contact"))}
    assert reads <= {"GET patient/zanzibar", "GET contact/service/zanzibar"}
    assert stored(caller.data_dir) == before


SEARCHES: dict[str, tuple[str, int]] = {
    "_count=-1": ("Patient?_count=-1", 400),
    "_count=0": ("Patient?_count=0", 200),
    "_count=1.5": ("Patient?_count=1.5", 400),
    "_count=zanzibar": ("Patient?_count=zanzibar", 400),
    "_count of 5,000 digits": ("Patient?_count=" + "1" * 5000, 400),
    "_count of another script": ("Patient?_count=%D9%A3", 400),
    "_count=": ("Patient?_count=", 400),
    "_cursor=": ("Patient?_cursor=", 400),
    "_cursor of nobody": ("Patient?_cursor=zanzibar", 400),
    "_cursor not ASCII": ("Patient?_cursor=%E2%98%83", 400),
    "handling": ("Patient?zanzibar=1", 200),
    "no value": ("Patient?name", 200),
    "empty value": ("Patient?name=", 200),
    "only commas": ("Patient?_id=,,,", 400),
    "only escapes": ("Patient?name=%5C", 200),
    "only bars": ("Observation?code=|||", 200),
    "a null character": ("Patient?name=%00", 200),
    "not UTF-8": ("Patient?name=%ff", 200),
    "ids that are paths": ("Patient?_id=..,.,a/b", 200),
    "as many ids as may be": ("Patient?_id=" + ",".join(f"a{n}" for n in range(1000)), 200),
    "too many ids": ("Patient?_id=" + ",".join(f"a{n}" for n in range(1001)), 400),
    "a subject that is none": ("Observation?subject=Group/1", 200),
    "_has of nothing": ("Patient?_has:Observation:zanzibar=1", 200),
    "_has of another type": ("Patient?_has:Zanzibar:code=1", 200),
    "a chain to nothing": ("Observation?_has:Patient:zanzibar=1", 200),
    "a type that is not served": ("Zanzibar?name=a", 404),
}


@pytest.mark.parametrize(("path", "status"), SEARCHES.values(), ids=SEARCHES)
def test_searches(caller: Watched, path: str, status: int) -> None:
    response = caller.get(path)
    assert response.status_code == status, response.text
    assert response.json["resourceType"] == ("Bundle" if status == 200 else "OperationOutcome")


def test_strict_handling_refuses_an_unknown_parameter(caller: Watched) -> None:
    assert_outcome(caller.get("Patient?zanzibar=1", Prefer="handling=strict"), 400)
    assert_outcome(caller.get("Patient?name=a", Prefer="handling=zanzibar"), 400)


@pytest.fixture
def cursor(esmith: Caller) -> str:
    """The cursor of the second page of esmith's Patients."""
    esmith.created({"resourceType": "Patient", "name": [{"family": "Second"}]})
    links = esmith.get("Patient?_count=1").json["link"]
    return next(link["url"] for link in links if link["relation"] == "next").partition("_cursor=")[2]


def test_a_cursor_is_for_its_caller_and_its_search_alone(esmith: Caller, jdoe: Caller, cursor: str) -> None:
    assert esmith.get(f"Patient?_cursor={cursor}").status_code == 200
    assert_outcome(jdoe.get(f"Patient?_cursor={cursor}"), 400, "invalid")
    assert_outcome(esmith.get(f"Observation?_cursor={cursor}"), 400, "invalid")


def test_a_tampered_cursor_is_refused(esmith: Caller, cursor: str) -> None:
    for at in range(0, len(cursor) - 1, max(1, len(cursor) // 20)):
        other = "A" if cursor[at] != "A" else "B"
        assert_outcome(esmith.get(f"Patient?_cursor={cursor[:at]}{other}{cursor[at + 1 :]}"), 400, "invalid")
    for cut in (cursor[:-4], cursor[: len(cursor) // 2], cursor + "AAAA", cursor * 2):
        assert_outcome(esmith.get(f"Patient?_cursor={cut}"), 400, "invalid")


HEADERS = {
    "a huge header": {"X_Zanzibar": "z" * 100_000},
    "a Prefer of nonsense": {"Prefer": ";;,,==return=;zanzibar=" + "," * 1000},
    "a Host of nonsense": {"Host": "zanzi<bar>"},
    "an If-Match of nonsense": {"If_Match": 'W/"zanzibar'},
    "a forwarded host that is not trusted": {"X_Forwarded_Host": "zanzibar.example"},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_odd_headers_do_no_harm(caller: Watched, headers: dict[str, str]) -> None:
    response = caller.get(f"Patient/{DEMO_PATIENT}", **headers)
    assert response.status_code in (200, 400), response.text
    assert "zanzibar" not in response.text + str(response.headers).lower()
    assert_outcome(caller.delete(f"Patient/{DEMO_PATIENT}", If_Match='W/"zanzibar"'), 412, "conflict")


# what looks bad and is not

NUMBERS = ["7.50", "1.0E+2", "1e400", "-0", "0.000001", "99999999999999999999", "3.14159265358979323846"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_within_bounds_comes_back_as_it_was_sent(caller: Watched, number: str) -> None:
    text = f'"valueQuantity": {{"value": {number}}}'
    sent = f"{{{GOOD['Observation']}, {text}}}"
    alone = caller.post("Observation", sent.encode())
    assert alone.status_code == 201, alone.text
    answer = caller.post("", transaction(post(sent, "Observation")).encode())
    location = answer.json["entry"][0]["response"]["location"].partition(FHIR + "/")[2]
    for read in (alone, caller.get(f"Observation/{alone.json['id']}"), caller.get(location)):
        assert f'"value":{number}' in read.text


TEXTS = {
    "_valueCode of an extension": (
        '"extension": [{"url": "u", "valueCode": "F", "_valueCode": {"id": "a"}}]',
        "extension",
    ),
    "+00:00": ('"meta": {"tag": [{"code": "a"}]}, "issued": "2020-01-01T10:00:00+00:00"', "issued"),
    "a fraction": ('"issued": "2020-01-01T10:00:20.715Z"', "issued"),
    "base64 in lines": (
        '"extension": [{"url": "u", "valueAttachment": {"data": "SGVs\\nbG8="}}]',
        "extension",
    ),
    "a leap second": ('"issued": "2016-12-31T23:59:60Z"', "issued"),
}


@pytest.mark.parametrize(("text", "element"), TEXTS.values(), ids=TEXTS)
def test_what_the_models_would_change_comes_back_as_it_was_sent(
    caller: Watched, text: str, element: str
) -> None:
    sent = f"{{{GOOD['Observation']}, {text}}}".encode()
    created = caller.post("Observation", sent)
    assert created.status_code == 201, created.text
    read = caller.get(f"Observation/{created.json['id']}")
    assert wire.parse(read.data)[element] == wire.parse(sent)[element]
    assert "null" not in read.text
