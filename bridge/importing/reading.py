"""The files of the input, and the JSON documents in them.

Facts: NDJSON has one document on each line, https://hl7.org/fhir/R4/nd-json.html. gzip begins with 1f 8b.
Strategy: what a file holds decides, not its name: names only choose the files of a directory.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO, cast

import orjson

from bridge.errors import Invalid

STDIN = "-"
ENDINGS = (".json", ".ndjson", ".json.gz", ".ndjson.gz")
MOST_BYTES = 256 * 1024 * 1024
"""Of one document, unpacked."""
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOO_LARGE = f"A document has at most {MOST_BYTES // 1024**2} MiB."


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the input, or standard input."""

    name: str
    """As the user will know it."""
    size: int = 0
    """In bytes, packed; 0 when it is not known."""


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON text of a file."""

    text: bytes = field(repr=False)
    line: int | None = None
    """Where it stands in NDJSON, from 1."""
    read: int = 0
    """How many bytes of the file were read by then."""
    problem: str = ""
    """Why there is no text."""


def sources(paths: Iterable[str]) -> list[Source]:
    """Returns the files that paths, directories and globs name, each once, in an order that is always the same.

    Raises `FileNotFoundError` for what names none.
    """
    found: dict[str, Source] = {}
    for path in paths:
        files = [STDIN] if path == STDIN else sorted(_files(path))
        if not files:
            raise FileNotFoundError(
                f"{path} names no file" + (f" ({', '.join(ENDINGS)})" * Path(path).is_dir())
            )
        for file in files:
            size = 0 if file == STDIN else Path(file).stat().st_size
            found.setdefault(STDIN if file == STDIN else str(Path(file).resolve()), Source(file, size))
    return list(found.values())


def _files(path: str) -> Iterator[str]:
    if Path(path).is_dir():
        for file in Path(path).rglob("*"):
            hidden = any(name.startswith(".") for name in file.relative_to(path).parts)
            if file.name.lower().endswith(ENDINGS) and not hidden and file.is_file():
                yield str(file)
    elif Path(path).exists():
        yield path
    elif has_magic(path):
        yield from (file for file in glob(path, recursive=True) if Path(file).is_file())  # noqa: PTH207


def documents(source: Source) -> Iterator[Document]:
    """Yields the documents of a file: its lines when it is NDJSON, else the whole of it.

    Raises `Invalid` when the file cannot be read.
    """
    try:
        with _opened(source) as (raw, file):
            for document in _documents(file, source.name):
                yield Document(
                    document.text, document.line, raw.tell() if source.size else 0, document.problem
                )
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise Invalid("The file is not whole gzip.") from e
    except OSError as e:
        raise Invalid(f"The file cannot be read: {e.strerror or type(e).__name__}.") from e


@contextmanager
def _opened(source: Source) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Yields the file as it lies there, and the same unpacked."""
    with ExitStack() as held:
        raw = sys.stdin.buffer if source.name == STDIN else held.enter_context(Path(source.name).open("rb"))
        if cast(io.BufferedReader, raw).peek(2)[:2] == GZIP:
            yield raw, io.BufferedReader(gzip.GzipFile(fileobj=raw), 1024 * 1024)
        else:
            yield raw, raw


def _documents(file: BinaryIO, name: str) -> Iterator[Document]:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise Invalid("The file is empty.")
    named = name.lower().removesuffix(".gz").endswith(".ndjson")
    if _is_json(first.text) or (named and (first.problem or first.text.endswith(b"}"))):
        yield first
        yield from lines
        return
    text = first.text + b"\n" + file.read(MOST_BYTES)
    if first.problem or len(text) > MOST_BYTES:
        raise Invalid(_TOO_LARGE)
    yield Document(text)


def _lines(file: BinaryIO) -> Iterator[Document]:
    """Yields the lines that say something; a line that is too long is not kept in memory."""
    number = 0
    while line := file.readline(MOST_BYTES):
        number += 1
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(MOST_BYTES)
            yield Document(b"", number, problem=_TOO_LARGE)
        elif text := line.removeprefix(BYTE_ORDER_MARK if number == 1 else b"").strip():
            yield Document(text, number)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
