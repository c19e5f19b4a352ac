"""Patches: JSON Patch and FHIRPath Patch, applied to a resource as FHIR says it, and JSON Merge Patch.

Facts: https://hl7.org/fhir/R4/http.html#patch, https://www.rfc-editor.org/rfc/rfc6902,
https://hl7.org/fhir/R4/fhirpatch.html, https://www.rfc-editor.org/rfc/rfc7396. fhirpy sends some elements of a
resource as `application/json`: a merge patch that does not say so. The paths of a FHIRPath Patch are simple: elements,
indexes, `where(x = y)`, `extension(url)`, `first()` and `last()`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jsonpatch
import jsonpointer

from bridge import wire
from bridge.errors import Invalid, Unprocessable
from bridge.wire.shapes import Shape, resource_shape
from mappings.residue import CHOICES
from mappings.values import Json, Resource

JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
MOST_OPERATIONS = 1000
TOO_DEEP = f"The patch puts more than {wire.MAX_DEPTH} objects and lists inside each other."

Patch = Callable[[Resource], Resource]


def read_patch(body: bytes, content_type: str, max_bytes: int) -> Patch:
    """Returns the patch that a request body says. Raises `Invalid` when it says none.

    What the patch makes of a resource may not grow beyond `max_bytes`.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == JSON_PATCH:
        operations = wire.parse(b'{"patch":' + body + b"}")["patch"]
        return lambda resource: json_patch(resource, operations, max_bytes)
    sent = wire.parse(body)
    if kind == MERGE_PATCH or (kind == "application/json" and sent.get("resourceType") != "Parameters"):
        return lambda resource: merge_patch(resource, sent)
    return lambda resource: fhirpath_patch(resource, sent)


def check_depth(patched: Resource, path: str) -> None:
    """Raises `Unprocessable` for a patched resource that is nested deeper than one that is sent may be."""
    if wire.deeper_than(patched, wire.MAX_DEPTH):
        raise Unprocessable(TOO_DEEP, path)


def merge_patch(resource: Resource, changes: Resource) -> Resource:
    """Returns a resource with the members of `changes` in the place of its own; null takes one away."""
    merged = dict(resource)
    for name, change in changes.items():
        if change is None:
            merged.pop(name, None)
        elif isinstance(change, dict):
            there = merged.get(name)
            merged[name] = merge_patch(there if isinstance(there, dict) else {}, change)
        else:
            merged[name] = change
    return merged


def json_patch(resource: Resource, operations: Json, max_bytes: int) -> Resource:
    """Returns a resource with a JSON Patch applied.

    Raises `Invalid` for what is no patch, `Unprocessable` for one that fails.
    """
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise Invalid("A JSON Patch is a list of operations.", "Patch")
    if len(operations) > MOST_OPERATIONS:
        raise Invalid(f"A patch has at most {MOST_OPERATIONS} operations.", "Patch")
    patched = copy.deepcopy(resource)
    for at, operation in enumerate(operations):
        try:
            patched = jsonpatch.JsonPatch([operation]).apply(patched, in_place=True)
        except jsonpatch.InvalidJsonPatch as e:
            raise Invalid("This is no operation of JSON Patch.", f"Patch[{at}]") from e
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as e:
            raise Unprocessable("This operation cannot be applied.", f"Patch[{at}]") from e
        except (TypeError, AttributeError, KeyError, IndexError, ValueError) as e:
            raise Invalid("This is no operation of JSON Patch.", f"Patch[{at}]") from e
        except RecursionError as e:
            raise Unprocessable(TOO_DEEP, f"Patch[{at}]") from e
        if not isinstance(patched, dict):
            raise Unprocessable("After this operation nothing is left of the resource.", f"Patch[{at}]")
        if operation.get("op") == "copy":
            check_depth(patched, f"Patch[{at}]")
            if len(wire.dump(patched)) > max_bytes:
                raise Unprocessable("This operation makes the resource too large.", f"Patch[{at}]")
    return patched


# FHIRPath Patch


@dataclass(slots=True)
class Place:
    """Where a value stands: in an object under a name, or in a list at an index."""

    holder: Any
    key: str | int
    shape: Shape | None
    """Of the value, when it is an object."""

    @property
    def value(self) -> Json:
        """What stands there."""
        return self.holder[self.key]


_STEP = re.compile(
    r"""\s*(?:\.\s*)?(?:
      (?P<function>where|extension|first|last)\s*\(\s*(?P<argument>[^()]*)\)
    | (?P<name>[A-Za-z][A-Za-z0-9]*)
    | \[\s*(?P<index>\d{1,6})\s*\])""",
    re.VERBOSE,
)
_CONDITION = re.compile(
    r"(?P<name>[A-Za-z]\w*)\s*=\s*(?:'(?P<text>[^']*)'|(?P<other>true|false|-?\d+(?:\.\d+)?))"
)
_OPERATIONS = ("add", "insert", "delete", "replace", "move")


def fhirpath_patch(resource: Resource, parameters: Resource) -> Resource:
    """Returns a resource with a FHIRPath Patch applied.

    Raises `Invalid` for what is no such patch, `Unprocessable` for an operation that fails.
    """
    if parameters.get("resourceType") != "Parameters":
        raise Invalid("A FHIRPath Patch is a Parameters resource.", "Parameters")
    sent = parameters.get("parameter")
    if not isinstance(sent, list) or len(sent) > MOST_OPERATIONS:
        raise Invalid(f"A patch has 1 to {MOST_OPERATIONS} operations.", "Parameters.parameter")
    root = {"resource": copy.deepcopy(resource)}
    for at, one in enumerate(sent):
        path = f"Parameters.parameter[{at}]"
        parts = _parts(one, path)
        try:
            _operate(root, parts, path)
        except (KeyError, IndexError, TypeError, AttributeError) as e:
            raise Unprocessable("This operation cannot be applied.", path) from e
        except RecursionError as e:
            raise Unprocessable(TOO_DEEP, path) from e
    return root["resource"]


def _parts(one: Json, path: str) -> dict[str, Any]:
    if not isinstance(one, dict) or one.get("name") != "operation" or not isinstance(one.get("part"), list):
        raise Invalid('An operation is a parameter named "operation" with parts.', path)
    found: dict[str, Any] = {}
    for part in one["part"]:
        name = part.get("name") if isinstance(part, dict) else None
        if not isinstance(name, str) or name in found:
            raise Invalid("Each part has a name of its own.", path)
        found[name] = part
    if _text(found, "type") not in _OPERATIONS:
        raise Invalid(f"The type of an operation is one of {', '.join(_OPERATIONS)}.", path)
    return found


def _operate(root: dict[str, Any], parts: dict[str, Any], path: str) -> None:
    places = _places(root, _text(parts, "path"), path)
    kind = _text(parts, "type")
    if kind == "delete" and not places:
        return  # deleting what is not there is fine
    if len(places) != 1 and not (kind in ("insert", "move") and places):
        raise Unprocessable("The path must name exactly one element.", f"{path}.part")
    if kind != "add" and places[0].holder is root:
        raise Unprocessable("The path must name an element, not the resource.", f"{path}.part")
    if kind == "add":
        _add(places[0], parts, path)
    elif kind == "replace":
        name, value = _sent_value(parts, places[0].shape, _name_of(places[0]), path)
        if isinstance(places[0].key, str) and name != places[0].key:
            del places[0].holder[places[0].key]
        places[0].holder[places[0].key if isinstance(places[0].key, int) else name] = value
    elif kind == "delete":
        del places[0].holder[places[0].key]
        _tidy(root["resource"])
    else:
        _reorder(root, places, parts, path, kind)


def _add(place: Place, parts: dict[str, Any], path: str) -> None:
    target, name = place.value, _text(parts, "name")
    if not isinstance(target, dict) or place.shape is None:
        raise Unprocessable("Only an object can be added to.", path)
    element = place.shape.elements.get(name)
    key, value = _sent_value(parts, element.shape if element and element.model else None, name, path)
    element = place.shape.elements.get(key)
    if element is None:
        raise Unprocessable("There is no such element.", path)
    if element.many:
        target.setdefault(key, []).append(value)
    else:
        target[key] = value


def _reorder(
    root: dict[str, Any], places: Sequence[Place], parts: dict[str, Any], path: str, kind: str
) -> None:
    members = places[0].holder
    if not isinstance(members, list) or any(place.holder is not members for place in places):
        raise Unprocessable("The path must name a list.", path)
    if kind == "insert":
        at = _number(parts, "index", path, len(members))
        members.insert(at, _sent_value(parts, places[0].shape, "", path)[1])
    else:
        source = _number(parts, "source", path, len(members) - 1)
        target = _number(parts, "destination", path, len(members) - 1)
        members.insert(target, members.pop(source))


def _text(parts: dict[str, Any], name: str) -> str:
    part = parts.get(name) or {}
    found = next((v for k, v in part.items() if k in ("valueString", "valueCode", "valueId")), None)
    return found if isinstance(found, str) else ""


def _number(parts: dict[str, Any], name: str, path: str, most: int) -> int:
    value = (parts.get(name) or {}).get("valueInteger")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Unprocessable(f"{name} must be an index of the list.", path)
    return value


def _name_of(place: Place) -> str:
    return place.key if isinstance(place.key, str) else ""


def _sent_value(parts: dict[str, Any], shape: Shape | None, name: str, path: str) -> tuple[str, Json]:
    """Returns the element's name, with its type when it is a choice, and the value sent for it."""
    part = parts.get("value")
    if not isinstance(part, dict):
        raise Invalid("The operation needs a value.", path)
    sent = [(k, v) for k, v in part.items() if k.startswith("value")]
    if len(sent) == 1:
        datatype = sent[0][0].removeprefix("value")
        base = CHOICES.get(name, f"{name}[x]").removesuffix("[x]")
        return (f"{base}{datatype}" if f"{base}{datatype}" in CHOICES else name), sent[0][1]
    if isinstance(part.get("part"), list) and shape is not None:
        return name, _built(part["part"], shape, path)
    raise Invalid("The value of an operation is a value[x], or parts that name elements.", path)


def _built(parts: list[Any], shape: Shape, path: str) -> Resource:
    """Returns an element without a type of its own, from parts that name its members."""
    built: Resource = {}
    for part in parts:
        name = part.get("name") if isinstance(part, dict) else None
        element = shape.elements.get(name) if isinstance(name, str) else None
        inner = element.shape if element and element.model else None
        key, value = _sent_value({"value": part}, inner, name or "", path)
        element = shape.elements.get(key)
        if element is None:
            raise Unprocessable("There is no such element.", path)
        if element.many:
            built.setdefault(key, []).append(value)
        else:
            built[key] = value
    return built


def _places(root: dict[str, Any], text: str, path: str) -> list[Place]:
    """Returns where the elements stand that a path names."""
    shape = resource_shape(root["resource"].get("resourceType"))
    places = [Place(root, "resource", shape)]
    at, first = 0, True
    while at < len(text.rstrip()):
        step = _STEP.match(text, at)
        if step is None or (first and step["name"] != root["resource"].get("resourceType")):
            raise Invalid("This path is not one that a patch can name.", f"{path}.part")
        if not first:
            places = _stepped(places, step, path)
        at, first = step.end(), False
    if first:
        raise Invalid("The operation needs a path.", f"{path}.part")
    return places


def _stepped(places: list[Place], step: re.Match[str], path: str) -> list[Place]:
    if step["name"]:
        return [inner for place in places for inner in _members(place, step["name"])]
    if step["index"]:
        return places[int(step["index"]) :][:1]
    if step["function"] in ("first", "last"):
        return places[:1] if step["function"] == "first" else places[-1:]
    if step["function"] == "extension":
        url = step["argument"].strip().strip("'")
        return [p for place in places for p in _members(place, "extension") if p.value.get("url") == url]
    condition = _CONDITION.fullmatch(step["argument"].strip())
    if condition is None:
        raise Invalid("where() takes one comparison: name = 'value'.", f"{path}.part")
    wanted = condition["text"] if condition["text"] is not None else condition["other"]
    return [
        p for p in places if isinstance(p.value, dict) and _said(p.value.get(condition["name"])) == wanted
    ]


def _said(value: Json) -> str | None:
    if value is None or isinstance(value, (dict, list)):
        return None
    return str(value).lower() if isinstance(value, bool) else getattr(value, "text", str(value))


def _members(place: Place, name: str) -> list[Place]:
    value = place.value
    if not isinstance(value, dict):
        return []
    key = name if name in value else next((k for k in value if CHOICES.get(k) == f"{name}[x]"), None)
    if key is None:
        return []
    element = place.shape.elements.get(key) if place.shape else None
    shape = element.shape if element and element.model else None
    if isinstance(value[key], list):
        return [Place(value[key], at, shape) for at in range(len(value[key]))]
    return [Place(value, key, shape)]


def _tidy(value: Json) -> None:
    """Takes out the empty objects and lists that a deletion left behind."""
    for key in list(value) if isinstance(value, dict) else ():
        inner = value[key]
        if isinstance(inner, (dict, list)):
            for part in inner if isinstance(inner, list) else ():
                _tidy(part)
            _tidy(inner)
            if not inner:
                del value[key]
