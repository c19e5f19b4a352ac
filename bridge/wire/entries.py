"""The envelope of a transaction Bundle: everything about its entries but the resources in them.

Facts: https://hl7.org/fhir/R4/bundle.html (bdl-1 to bdl-8), https://hl7.org/fhir/R4/http.html#transaction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import Invalid, Issue, TooLarge
from bridge.wire.gate import pass_model
from bridge.wire.packed import Packed
from bridge.wire.primitives import Flaw
from bridge.wire.shapes import resource_shape
from bridge.wire.walk import NOT_AN_OBJECT, REQUIRED, Findings, Path, tell, walk
from mappings.values import Json, Resource

MAX_ENTRIES = 20000
SERVED = ("transaction", "batch")

NOT_A_BUNDLE = Flaw("invalid", "Only a Bundle can be posted here.")
NO_BUNDLE_TYPE = Flaw("required", "A Bundle says its resourceType.", "deviation", "Taken as a Bundle.")
NOT_SERVED = Flaw("not-supported", "Only Bundles of type transaction and batch are served.")
ONLY_SEARCH = Flaw("structure", "Stands only in a searchset or a history, not in a transaction.")
ONLY_ANSWER = Flaw("structure", "Stands only in an answer, not in a transaction.")
NO_REQUEST = Flaw("required", "An entry says its request.", "deviation", "Taken as a POST to its type.")
NO_RESOURCE = Flaw("required", "A POST, PUT or PATCH has a resource.")
SPARE_RESOURCE = Flaw("structure", "A GET, HEAD or DELETE has no resource.")
NESTED_BUNDLE = Flaw("not-supported", "A Bundle in a transaction is not served.")
RELATIVE_FULL_URL = Flaw("value", "A fullUrl is absolute: a URL, urn:uuid: or urn:oid:, without version.")
REPEATED_FULL_URL = Flaw("duplicate", "This fullUrl stands in an earlier entry.")
OTHER_ID = Flaw("value", "The id of the resource differs from this one.")
OTHER_TYPE = Flaw("value", "The type of the resource differs from this one.")
BAD_URL = Flaw("value", "A url is relative to the base: Type for POST, Type/id or Type?query for others.")
NO_OPERATIONS = Flaw("not-supported", "In a Bundle operations ($name) are served by GET only.")
REPEATED_TARGET = Flaw("duplicate", "An earlier entry changes the same resource.")
BAD_CONDITION = Flaw("value", "A condition is a query such as identifier=system|value.")
UNUSED_CONDITION = Flaw("value", "Goes with another method.")

_ABSOLUTE = re.compile(
    r"(?:urn:uuid:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"
    r"|(?!urn:)[A-Za-z][A-Za-z0-9+.-]*:(?!.*/_history/)\S+)"
)
_URL = re.compile(
    r"(?P<type>[A-Z][A-Za-z]*)(?:/(?P<id>[A-Za-z0-9\-.]{1,64})(?P<more>/\S*)?)?(?:\?(?P<query>\S*))?"
)
_WITH_RESOURCE = frozenset({"POST", "PUT", "PATCH"})
_CONDITIONS = {
    "ifNoneExist": frozenset({"POST"}),
    "ifMatch": frozenset({"PUT", "PATCH", "DELETE"}),
    "ifNoneMatch": frozenset({"GET", "HEAD", "PUT"}),
    "ifModifiedSince": frozenset({"GET", "HEAD"}),
}


@dataclass(slots=True)
class Entry:
    """One entry of a transaction, in the order sent."""

    index: int
    method: str
    url: str = field(repr=False)
    """Relative to the base, without a slash before it."""
    resource_type: str | None = None
    """As the url says it; none for a GET of the system."""
    id: str | None = None
    query: str | None = field(default=None, repr=False)
    """Of a conditional PUT, PATCH or DELETE, or of a search."""
    full_url: str | None = field(default=None, repr=False)
    if_none_exist: str | None = field(default=None, repr=False)
    """The query alone, whether it was sent as `query`, `?query` or `Type?query`."""
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    resource: Resource | Packed = field(default_factory=dict, repr=False)
    errors: list[Issue] = field(default_factory=list)
    """What is wrong with it: in a batch, where the others are answered all the same."""
    warnings: list[Issue] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Where it stands, e.g. `Bundle.entry[3]`."""
        return f"Bundle.entry[{self.index}]"


def check_bundle_envelope(
    bundle: Json, *, strict: bool = False, max_entries: int = MAX_ENTRIES, base: str = ""
) -> tuple[list[Entry], list[Issue]]:
    """Returns the entries of a transaction or batch and the warnings about the Bundle itself.

    The resources are not checked here: `check` does that entry by entry. `base` is the URL under which this
    server may be addressed in `request.url`. Raises `Invalid` with every problem, `TooLarge` for too many entries.
    """
    found = Findings(strict=strict)
    root: Path = (None, "Bundle", None)
    if type(bundle) is not dict:
        found.add(NOT_AN_OBJECT, root)
        raise Invalid(issues=found.errors)
    if "resourceType" not in bundle:
        found.add(NO_BUNDLE_TYPE, root)
    elif bundle["resourceType"] != "Bundle":
        raise Invalid(issues=[Issue(NOT_A_BUNDLE.code, NOT_A_BUNDLE.text)])
    sent = bundle.get("entry")
    if type(sent) is list and len(sent) > max_entries:
        raise TooLarge(f"A Bundle has at most {max_entries} entries.", "Bundle.entry")
    envelope = {**bundle, "resourceType": "Bundle"}
    if type(sent) is list:
        envelope["entry"] = [_bare(entry) for entry in sent]
    shape = resource_shape("Bundle")
    assert shape is not None  # noqa: S101
    walk(shape, envelope, root, found)
    if bundle.get("type") not in SERVED and type(bundle.get("type")) is str:
        found.add(NOT_SERVED, (root, "type", None))
    if "total" in bundle:
        found.add(ONLY_SEARCH, (root, "total", None))
    if found.doubtful and not found.errors:
        envelope.pop("entry", None)
        pass_model(shape, envelope, root)
    apart = bundle.get("type") == "batch"
    entries = _Envelope(found.strict, base, apart).entries(sent if type(sent) is list else [], found)
    if found.errors:
        raise Invalid(issues=found.errors)
    return entries, found.warnings


def _bare(entry: Json) -> Json:
    """Returns the entry without its resource; with a stand-in where an entry must not be empty."""
    if type(entry) is not dict or "resource" not in entry:
        return entry
    if len(entry) == 1:
        return {"fullUrl": "urn:oid:0.0"}
    return {key: value for key, value in entry.items() if key != "resource"}


class _Envelope:
    """What has to be compared between the entries."""

    def __init__(self, strict: bool, base: str, apart: bool) -> None:
        self.strict = strict
        self.apart = apart
        """Whether each entry is for itself, so that two may change the same resource."""
        self.base = f"{base.rstrip('/')}/" if base else ""
        self.full_urls: set[str] = set()
        self.targets: set[tuple[str | None, str]] = set()

    def entries(self, sent: list[Json], found: Findings) -> list[Entry]:
        """Returns the entries that can be read; what is wrong goes to `found`, what is odd to the entry."""
        entries: list[Entry] = []
        already = {issue.path for issue in found.errors}
        for index, entry in enumerate(sent):
            if type(entry) is not dict:
                continue
            own = Findings(strict=self.strict)
            read = self.entry(index, entry, ((None, "Bundle", None), "entry", index), own)
            if self.apart and own.errors:
                entries.append(Entry(index, "GET", "", errors=own.errors))
                continue
            for issue in own.errors:
                if issue.path not in already:
                    tell(found.errors, issue)
            if read is not None:
                read.warnings = own.warnings
                entries.append(read)
        return entries

    def entry(self, index: int, entry: Resource, path: Path, found: Findings) -> Entry | None:
        """Returns one entry, normalised; nothing if it cannot be told what it asks for."""
        if "search" in entry:
            found.add(ONLY_SEARCH, (path, "search", None))
        if "response" in entry:
            found.add(ONLY_ANSWER, (path, "response", None))
        resource = entry.get("resource", {})
        head = resource.head if isinstance(resource, Packed) else resource
        if type(head) is not dict:
            found.add(NOT_AN_OBJECT, (path, "resource", None))
            return None
        if head.get("resourceType") == "Bundle":
            found.add(NESTED_BUNDLE, (path, "resource", None))
        self.full_url(entry.get("fullUrl"), head, (path, "fullUrl", None), found)
        read = self.request(index, entry, head, path, found)
        if read is not None:
            full_url = entry.get("fullUrl")
            read.full_url = full_url if type(full_url) is str else None
            read.resource = resource
        return read

    def full_url(self, full_url: Json, resource: Resource, path: Path, found: Findings) -> None:
        """Notes what is wrong with a `fullUrl`."""
        if type(full_url) is not str:
            return
        if _ABSOLUTE.fullmatch(full_url) is None:
            found.add(RELATIVE_FULL_URL, path)
        if full_url in self.full_urls:
            found.add(REPEATED_FULL_URL, path)
        self.full_urls.add(full_url)
        logical_id = resource.get("id")
        if (
            full_url.startswith("http")
            and type(logical_id) is str
            and not full_url.endswith(f"/{logical_id}")
        ):
            found.add(OTHER_ID, path)

    def request(
        self, index: int, entry: Resource, resource: Resource, path: Path, found: Findings
    ) -> Entry | None:
        """Returns what the entry asks for."""
        resource_type = resource.get("resourceType")
        if "request" not in entry:
            found.add(NO_REQUEST, (path, "request", None))
            if type(resource_type) is not str:
                found.add(REQUIRED, (path, "resource", None))
                return None
            return Entry(index, "POST", resource_type, resource_type)
        request: Any = entry["request"]
        if type(request) is not dict:
            return None
        at: Path = (path, "request", None)
        method, url = request.get("method"), request.get("url")
        if type(method) is not str or type(url) is not str:
            return None
        if method in _WITH_RESOURCE and "resource" not in entry:
            found.add(NO_RESOURCE, (path, "resource", None))
        elif method not in _WITH_RESOURCE and "resource" in entry:
            found.add(SPARE_RESOURCE, (path, "resource", None))
        read = self.target(index, method, url, (at, "url", None), found)
        if read is None:
            return None
        self.agree(read, resource, (at, "url", None), found)
        self.conditions(read, request, at, found)
        return read

    def target(self, index: int, method: str, url: str, path: Path, found: Findings) -> Entry | None:
        """Returns the entry that method and url say."""
        url = url.removeprefix(self.base).removeprefix("/") if self.base else url.removeprefix("/")
        match = _URL.fullmatch(url)
        if "$" in url.partition("?")[0] and method not in ("GET", "HEAD"):
            found.add(NO_OPERATIONS, path)
            return None
        if match is None:
            if method in ("GET", "HEAD") and ":" not in url.partition("?")[0]:
                return Entry(index, method, url)
            found.add(BAD_URL, path)
            return None
        resource_type, logical_id, query = match["type"], match["id"], match["query"]
        fits = {
            "POST": logical_id is None and query is None,
            "PUT": (logical_id is None) != (not query),
            "PATCH": (logical_id is None) != (not query),
            "DELETE": (logical_id is None) != (not query),
        }.get(method, True)
        if not fits or (match["more"] and method not in ("GET", "HEAD")):
            found.add(BAD_URL, path)
            return None
        return Entry(index, method, url, resource_type, logical_id, query)

    def agree(self, read: Entry, resource: Resource, path: Path, found: Findings) -> None:
        """Notes where url and resource differ, and a second change of the same resource."""
        resource_type = resource.get("resourceType")
        if (
            read.method in ("POST", "PUT")
            and type(resource_type) is str
            and resource_type != read.resource_type
        ):
            found.add(OTHER_TYPE, path)
        if read.method == "PUT" and read.id is not None and resource and resource.get("id") != read.id:
            found.add(OTHER_ID, path)
        if read.id is not None and read.method in ("PUT", "PATCH", "DELETE"):
            target = (read.resource_type, read.id)
            if target in self.targets and not self.apart:
                found.add(REPEATED_TARGET, path)
            self.targets.add(target)

    def conditions(self, read: Entry, request: Resource, path: Path, found: Findings) -> None:
        """Reads `ifNoneExist`, `ifMatch`, `ifNoneMatch` and `ifModifiedSince`."""
        for key, methods in _CONDITIONS.items():
            value = request.get(key)
            if type(value) is str and read.method not in methods:
                found.add(UNUSED_CONDITION, (path, key, None))
            elif type(value) is str and key == "ifNoneExist":
                resource_type, mark, query = value.partition("?")
                query = query if mark else value
                if "=" not in query or (mark and resource_type not in ("", read.resource_type)):
                    found.add(BAD_CONDITION, (path, key, None))
                read.if_none_exist = query
        read.if_match = request.get("ifMatch")
        read.if_none_match = request.get("ifNoneMatch")
        read.if_modified_since = request.get("ifModifiedSince")
