"""How answers and errors become HTTP responses."""

from __future__ import annotations

import gzip
import re
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from itertools import chain
from typing import Any, cast

from flask import Response, current_app, g, request

from bridge import journal, wire
from bridge.auth import Caller, Credential
from bridge.errors import Invalid, Issue, TooLarge, UnsupportedMediaType, explain, outcome
from bridge.events import Following
from bridge.interactions import ABSENT, Answer
from bridge.once import Request
from bridge.scope import Bridge, Scope
from mappings.values import Resource

FHIR_BASE = "/rest/fhir/r4"
MOST_WARNINGS = 20
SMALL_BYTES = 1024
"""Smaller responses are not packed."""
GZIP_LEVEL = 5
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9.\-:\[\]]+")


def bridge() -> Bridge:
    """Returns what all requests of this process share."""
    return cast(Bridge, current_app.extensions["bridge"])


def following() -> Following:
    """Returns the Subscriptions that this process knows of."""
    return cast(Following, current_app.extensions["following"])


def scope() -> Scope:
    """Returns the scope of this request's caller, after what earlier ones left half-written was undone.

    Raises `NotLoggedIn`, `Forbidden`, `KeyMissing`.
    """
    asked = bridge().scope(request.headers.get("Authorization"), base_url(), origin())
    journal.recovered(asked)
    return asked


def known_by(sent: bytes) -> Request:
    """Returns by what this request is known when it comes again. Raises `Invalid` for a key that is none."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid("Idempotency-Key must have 1 to 255 visible characters.")
    return Request.of(request.method, request.full_path, sent, key, _heard)


def _heard() -> bool:
    """Whether the client is still there, as far as its connection tells."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        return True
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except (BlockingIOError, ValueError):  # silent, or TLS, where nobody can look ahead
        return True
    except OSError:
        return False


def logged_in() -> Caller:
    """Returns this request's caller, whether or not its keys are open. Raises `NotLoggedIn`, `Forbidden`."""
    return bridge().authenticator.identify(credential())


def credential() -> Credential:
    """Returns what this request's caller shows. Raises `NotLoggedIn` when it shows nothing."""
    return bridge().authenticator.credential(request.headers.get("Authorization"), origin())


def origin() -> str:
    """Returns the address that this request came from, as far as trusted proxies tell it."""
    return bridge().throttle.origin(request.remote_addr, request.headers.get("X-Forwarded-For", ""))


def base_url() -> str:
    """Returns the FHIR base as the caller sees it: configured, forwarded by a trusted proxy, or from the request."""
    config = bridge().config
    if config.public_url:
        return config.public_url + FHIR_BASE
    scheme, host = request.scheme, request.host
    if config.trusts(request.remote_addr):
        scheme = (
            _forwarded("X-Forwarded-Proto", scheme)
            if _forwarded("X-Forwarded-Proto", scheme) in SCHEMES
            else scheme
        )
        host = _forwarded("X-Forwarded-Host", host)
    return f"{scheme}://{host if _HOST.fullmatch(host) else 'localhost'}{FHIR_BASE}"


SCHEMES = ("http", "https")


def _forwarded(name: str, default: str) -> str:
    return request.headers.get(name, default).split(",")[0].strip()


def preferences() -> dict[str, str]:
    """Returns the `Prefer` headers as a dict, e.g. `{"return": "minimal"}`."""
    parts = re.split("[;,]", ",".join(request.headers.getlist("Prefer")))
    pairs = (part.partition("=") for part in parts)
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs if name.strip()}


def write(answer: Answer) -> Response:
    """Returns the response of an interaction, in the form that the caller prefers."""
    headers: dict[str, str] = {}
    if answer.version is not None:
        headers["ETag"] = f'W/"{answer.version}"'
    if answer.modified is not None:
        headers["Last-Modified"] = formatdate(answer.modified / 1000, usegmt=True)
    if answer.status == 201:
        headers["Location"] = f"{base_url()}/{answer.location}/_history/{answer.version}"
    wanted = preferences().get("return") if request.method not in ("GET", "HEAD") else None
    body = answer.resource
    warnings = answer.warnings
    if wanted == "minimal":
        body = None
    elif wanted == "OperationOutcome":
        body = outcome(warnings or [Issue("informational", "All is well.", severity="information")])
        warnings = ()
    status = 200 if answer.status == 204 and body is not None else answer.status
    return fhir(body, status, headers, warnings)


def body() -> bytes:
    """Returns the body of the request, unpacked when it was sent with gzip.

    Raises `TooLarge` for one that is larger than allowed when unpacked, `UnsupportedMediaType` for another encoding.
    """
    sent = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return sent
    if encoding != "gzip":
        raise UnsupportedMediaType("A body is sent as it is, or with gzip.")
    most = bridge().config.max_body_bytes
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = unpacking.decompress(sent, most + 1)
    except zlib.error as e:
        raise Invalid("The body is not gzip.") from e
    if len(plain) > most:
        raise TooLarge()
    if not unpacking.eof:
        raise Invalid("The body is not whole gzip.")
    return plain


def packed(response: Response) -> Response:
    """Returns the response with gzip where the caller takes it and it pays.

    The weak ETag stays: it names the version, not the bytes.
    """
    response.vary.add("Accept-Encoding")
    small = not response.is_streamed and (response.content_length or 0) < SMALL_BYTES
    if small or response.direct_passthrough or not request.accept_encodings["gzip"]:
        return response
    if response.is_streamed:
        response.response = _gzipped(response.iter_encoded())
    else:
        response.set_data(gzip.compress(response.get_data(), compresslevel=GZIP_LEVEL, mtime=0))
    response.headers["Content-Encoding"] = "gzip"
    return response


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packing = zlib.compressobj(GZIP_LEVEL, wbits=zlib.MAX_WBITS | 16)
    for piece in pieces:
        yield packing.compress(piece)
    yield packing.flush()


def write_unless_known(answer: Answer) -> Response:
    """Returns the response of a read, or 304 when the caller has this version already.

    https://hl7.org/fhir/R4/http.html#cread
    """
    response = write(answer)
    if "If-None-Match" in request.headers:
        known = request.if_none_match.contains_weak(answer.version or "")
    else:
        since = request.if_modified_since
        known = (
            since is not None and answer.modified is not None and answer.modified // 1000 <= since.timestamp()
        )
    return (
        fhir(None, 304, {n: v for n, v in response.headers if n in ("ETag", "Last-Modified")})
        if known
        else response
    )


def if_match() -> str | None:
    """Returns the ETag of `If-Match` as this server writes it, `ABSENT` for an update with `If-None-Match: *`.

    Raises `Invalid` for anything else than one.
    """
    sent, unless = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if unless is not None and request.method == "PUT":
        if unless.strip() != "*" or sent is not None:
            raise Invalid("An update takes If-None-Match: *, or If-Match.")
        return ABSENT
    if sent is None:
        return None
    match = re.fullmatch(r'(?:W/)?"([A-Za-z0-9.\-]{1,64})"|(\*)', sent.strip())
    if match is None:
        raise Invalid('If-Match must be one ETag: W/"<versionId>".')
    return match[2] or f'W/"{match[1]}"'


def fhir(
    body: Resource | None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    warnings: Sequence[Issue] = (),
) -> Response:
    """Returns a FHIR JSON response; warnings go into `Warning: 199` headers."""
    if body is None:
        response = Response(status=status)
        del response.headers["Content-Type"]
    else:
        data = wire.dump_pretty(body) if _pretty() else wire.dump(body)
        response = Response(data, status=status, content_type=_content_type())
    response.headers.update(headers or {})
    return _warning(response, warnings)


def fhir_bundle(bundle: Resource, entries: Iterator[Resource], warnings: Sequence[Issue] = ()) -> Response:
    """Returns a Bundle with these entries as response; a long one is written while it is sent."""
    if _pretty():
        return fhir({**bundle, "entry": list(entries)}, warnings=warnings)
    pieces = wire.dump_bundle(bundle, entries)
    first, second = next(pieces), next(pieces, None)
    text = first if second is None else chain((first, second), pieces)
    return _warning(Response(text, content_type=_content_type()), warnings)


def _pretty() -> bool:
    return request.args.get("_pretty") == "true"


def _content_type() -> str:
    return f"{g.get('media_type', wire.FHIR_JSON)}; charset=utf-8"


def _warning(response: Response, warnings: Sequence[Issue]) -> Response:
    for issue in warnings[:MOST_WARNINGS]:
        text = f"{issue.path}: {issue.text}" if issue.path else issue.text
        response.headers.add("Warning", f'199 - "{_quoted(text)}"')
    if len(warnings) > MOST_WARNINGS:
        response.headers.add("Warning", f'199 - "{len(warnings) - MOST_WARNINGS} more warnings"')
    return response


def refuse(error: BaseException) -> Response:
    """Returns the OperationOutcome of an error."""
    status, issues, headers = explain(error)
    g.outcome = issues[0].code if issues else None
    if status == 401:
        headers = {**headers, "WWW-Authenticate": 'Basic realm="iCure", charset="UTF-8"'}
    return fhir(outcome(issues), status, headers)


def _quoted(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", text).replace("\\", "").replace('"', "'")


def arguments() -> list[tuple[str, Any]]:
    """Returns the query parameters in the order sent."""
    return list(request.args.items(multi=True))
