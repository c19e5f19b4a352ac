from __future__ import annotations

import pytest

from bridge.crypto.manifest import DEFAULT_MANIFESTS, Manifest, ManifestError, load_manifests


def whole(*names: str) -> Manifest:
    return Manifest(frozenset(names))


READ = {
    "fields": (["a", "b"], whole("a", "b")),
    "nothing": ([], Manifest()),
    "in an object": (["a.b"], Manifest(inner={"a": ("object", whole("b"))})),
    "in a list": (["a[].b", "a[].c"], Manifest(inner={"a": ("list", whole("b", "c"))})),
    "in a map": (["a.*.b"], Manifest(inner={"a": ("map", whole("b"))})),
    "all of an object": (["a.*"], Manifest(inner={"a": ("object", Manifest(everything=True))})),
    "all of a list": (["a[].*"], Manifest(inner={"a": ("list", Manifest(everything=True))})),
    "all of a map": (["a.*.*"], Manifest(inner={"a": ("map", Manifest(everything=True))})),
    "deep": (["a.b[].c"], Manifest(inner={"a": ("object", Manifest(inner={"b": ("list", whole("c"))}))})),
    "a group": (['a.["b","c"]'], Manifest(inner={"a": ("object", whole("b", "c"))})),
    "a group with blanks": (['a[].["b", "c"]'], Manifest(inner={"a": ("list", whole("b", "c"))})),
    "a group alone": (['["b","c"]'], whole("b", "c")),
}


@pytest.mark.parametrize(("paths", "manifest"), READ.values(), ids=READ)
def test_paths_are_read(paths, manifest):
    assert Manifest.parse(paths) == manifest


@pytest.mark.parametrize(
    "paths",
    [
        *(["a..b"], ["a[]"], ["a[].b."], [""], ["1a"], ["a b"], ["*.a"], ["*"], ["*", "a"], ["a", "a.b"]),
        *(
            ["a.b", "a[].b"],
            ["a.[]"],
            ["[a]"],
            ["id"],
            ["securityMetadata.x"],
            ["rev"],
            ["securityMetadata"],
            ["encryptedSelf"],
        ),
    ],
    ids=str,
)
def test_what_is_no_manifest_is_refused(paths):
    with pytest.raises(ManifestError):
        Manifest.parse(paths)


def test_the_defaults_hide_what_the_sdks_hide():
    patient = DEFAULT_MANIFESTS["Patient"]
    assert {"note", "created", "modified", "languages", "nationality", "picture"} <= patient.whole
    assert patient.whole.isdisjoint({"firstName", "dateOfBirth", "gender", "identifier", "addresses", "ssin"})
    assert patient.inner["notes"] == ("list", whole("markdown"))
    assert patient.inner["patientHealthCareParties"] == ("list", Manifest(everything=True))
    assert "partnerships" in patient.whole
    assert DEFAULT_MANIFESTS["Service"] == Manifest.parse(["comment", "notes[].markdown"])
    assert "participantList" in DEFAULT_MANIFESTS["Contact"].whole
    assert set(DEFAULT_MANIFESTS) == {
        *("AccessLog", "CalendarItem", "Classification", "Contact", "Document", "Form", "HealthElement"),
        *("Invoice", "MaintenanceTask", "Message", "Patient", "Receipt", "Service", "TimeTable", "Topic"),
    }


def test_a_file_replaces_the_types_it_names(tmp_path):
    path = tmp_path / "fields.json"
    path.write_text('{"patient": ["note", "addresses[].*"], "healthElement": []}')
    manifests = load_manifests(path)
    assert manifests["Patient"] == Manifest.parse(["note", "addresses[].*"])
    assert manifests["HealthElement"] == Manifest()
    assert manifests["Contact"] == DEFAULT_MANIFESTS["Contact"]
    assert load_manifests(None) is DEFAULT_MANIFESTS


WRONG = {
    "no JSON": ("{", "no readable JSON"),
    "no object": ("[]", "no JSON object"),
    "unknown type": ('{"Patient": []}', "'Patient' is no entity type"),
    "no list": ('{"patient": "note"}', "'patient' is no list"),
    "no text": ('{"patient": [1]}', "'patient' is no list"),
    "no path": ('{"patient": ["a..b"]}', "patient: 'a..b' is no path"),
    "an id": ('{"contact": ["id"]}', "contact: id"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_in_words(text, words, tmp_path):
    path = tmp_path / "fields.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match=words):
        load_manifests(path)


def test_a_missing_file_is_refused_in_words(tmp_path):
    with pytest.raises(ManifestError, match=r"fields\.json"):
        load_manifests(tmp_path / "fields.json")
