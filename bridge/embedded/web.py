"""Between HTTP and the store: what a request says, and how answers are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from flask import Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from bridge.embedded.auth import Authentication
from bridge.embedded.documents import Documents, Revisions
from bridge.embedded.errors import BadRequest
from bridge.embedded.model import MAX_INTEGER, Entity, Shape, each, read, strings, text
from bridge.embedded.store import Document
from bridge.embedded.users import Accounts

DEFAULT_LIMIT = 1000
IDS = Shape().has(strings, "ids")
IDS_AND_REVS = Shape().has(each(Shape().has(text, "id rev")), "ids")


def documents() -> Documents:
    """Returns the documents as the caller of this request may use them."""
    found: Documents = g.documents
    return found


def accounts() -> Accounts:
    """Returns the users as the caller of this request may use them."""
    return Accounts(documents().store, documents().caller)


def authentication() -> Authentication:
    """Returns the logins of the store."""
    found: Authentication = current_app.extensions["authentication"]
    return found


def body() -> Any:
    """Returns the JSON of the request; raises `BadRequest`."""
    try:
        sent = request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as e:  # whoever serves this fails in its own way on chunks that are none
        raise BadRequest("the body cannot be read") from e
    try:
        return orjson.loads(sent)
    except orjson.JSONDecodeError:
        raise BadRequest("the body is not JSON") from None


def ids(*, required: bool = False) -> list[str]:
    """Returns the ids of a `{"ids": […]}` body."""
    found: list[str] = read(IDS, body()).get("ids", [])
    if required and not found:
        raise BadRequest("ids must not be empty")
    return found


def revisions() -> Revisions:
    """Returns the ids and revisions of a `{"ids": [{"id", "rev"}]}` body."""
    pairs = read(IDS_AND_REVS, body()).get("ids", [])
    if not all("id" in pair for pair in pairs):
        raise BadRequest("each of ids must have an id")
    return [(pair["id"], pair.get("rev")) for pair in pairs]


def argument(name: str) -> str:
    """Returns a query parameter; raises `BadRequest` when it is missing."""
    value = request.args.get(name)
    if not value:
        raise BadRequest(f"the query parameter {name} must be given")
    return value


def integer_argument(name: str, default: int | None = None) -> int | None:
    """Returns a query parameter that is an integer; raises `BadRequest` when it is not."""
    value = request.args.get(name)
    if not value:
        return default
    try:
        number = int(value) if len(value) <= len(str(MAX_INTEGER)) + 1 else MAX_INTEGER + 1
    except ValueError:
        number = MAX_INTEGER + 1
    if abs(number) > MAX_INTEGER:
        raise BadRequest(f"the query parameter {name} must be a 64-bit integer")
    return number


def limit() -> int:
    """Returns how many rows of a page are wanted."""
    wanted = integer_argument("limit", DEFAULT_LIMIT)
    if wanted is None or wanted < 0:
        raise BadRequest("limit must not be negative")
    return wanted


def json(content: Any, status: int = 200) -> Response:
    """Returns an answer with this JSON."""
    return raw(orjson.dumps(content), status)


def raw(content: bytes, status: int = 200) -> Response:
    """Returns an answer with JSON that is text already."""
    return Response(content, status, content_type="application/json;charset=utf-8")


def one(document: Document) -> Response:
    """Returns an answer with one entity."""
    return raw(document.body)


def many(found: Iterable[Document]) -> Response:
    """Returns an answer with an array of entities."""
    return raw(array(document.body for document in found))


def array(bodies: Iterable[bytes]) -> bytes:
    """Returns a JSON array of JSON texts."""
    return b"[" + b",".join(bodies) + b"]"


def identifiers(found: Iterable[Document]) -> Response:
    """Returns an answer with id and revision of each document."""
    return json([identifier(document) for document in found])


def identifier(document: Document) -> Entity:
    """Returns id and revision of a document."""
    return {"id": document.id, "rev": document.rev}


def page(rows: Iterable[bytes], next_id: str | None, start_key: Any = None) -> Response:
    """Returns an answer with one page of entities, and where the next begins if there is one."""
    content = b'{"rows":' + array(rows)
    if next_id is not None:
        pair = {"startKeyDocId": next_id} | ({} if start_key is None else {"startKey": start_key})
        content += b',"nextKeyPair":' + orjson.dumps(pair)
    return raw(content + b"}")
