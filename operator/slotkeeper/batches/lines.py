"""The requests of a batch: the lines of its input file, checked one by one. Pure but for the file.

A line is read again when it is sent, so that memory holds only its place in the file.
"""

import hashlib
import os
from array import array
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from slotkeeper import bounded_json
from slotkeeper.edge.request_body import MAX_DEPTH

MAX_REQUESTS = 50_000
"""As in OpenAI's API."""
MAX_ERRORS = 50
"""Errors that are reported of a file."""
MAX_CUSTOM_ID = 512
MAX_VALUES = 500_000
"""Commas and brackets in one line: each may become an object, of a hundred bytes."""
_CHUNK = 1024 * 1024
_MAX_SHOWN = 100


class BadLine(ValueError):  # noqa: N818 (the line is bad; nothing failed here)
    """A line is not a valid request. The message states why."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class Line(NamedTuple):
    """One request."""

    custom_id: str
    model: str
    body: dict[str, Any]


class LineError(NamedTuple):
    """Why a file cannot be executed; `line`: from 1, None: it is not about one line."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def tree(self) -> dict[str, Any]:
        """Return OpenAI's BatchError."""
        return self._asdict()


@dataclass(slots=True)
class Index:
    """Where the lines of a file are, and of which models."""

    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    lengths: "array[int]" = field(default_factory=lambda: array("L"))
    models: list[str] = field(default_factory=list)
    model_of: "array[int]" = field(default_factory=lambda: array("H"))
    """For each line the position of its model in `models`."""
    errors: list[LineError] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)

    def model(self, line: int) -> str:
        """Return the model of a line."""
        return self.models[self.model_of[line]]


def parse_line(raw: bytes, endpoint: str) -> Line:
    """Return the request of a line. Raises BadLine."""
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise BadLine("too_many_values", f"more than {MAX_VALUES} values in one line")
    try:
        tree = bounded_json.parse(raw, max_bytes=len(raw), max_depth=MAX_DEPTH)
    except ValueError as error:
        raise BadLine("invalid_json_line", f"this line is not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise BadLine("invalid_json_line", "this line is not a JSON object")
    custom_id, body = tree.get("custom_id"), tree.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        message = f"custom_id must be a string of 1 to {MAX_CUSTOM_ID} characters"
        raise BadLine("invalid_custom_id", message, "custom_id")
    if tree.get("method") != "POST":
        raise BadLine("invalid_method", "method must be POST", "method")
    if tree.get("url") != endpoint:
        message = f"url must be the endpoint of the batch, {endpoint}"
        raise BadLine("mismatched_endpoint", message, "url")
    if not isinstance(body, dict):
        raise BadLine("invalid_body", "body must be a JSON object", "body")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadLine("missing_model", "body.model must name a model", "body.model")
    if body.get("stream"):
        raise BadLine("stream_not_supported", "body.stream must not be true", "body.stream")
    return Line(custom_id, model, body)


def scan(path: Path, endpoint: str, max_line: int, models: Collection[str] | None) -> Index:
    """Return the index of a file, with the errors of its lines.

    `max_line`: bytes of one line; `models`: the names of all models; None: any name is accepted.
    Raises OSError.
    """
    scanner = _Scanner(endpoint, max_line, models)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if not scanner.feed(chunk):
                break
        else:
            scanner.end()
    index = scanner.index
    if not index and not index.errors:
        index.errors.append(LineError("empty_file", "the file contains no requests"))
    return index


def read_line(descriptor: int, index: Index, line: int, endpoint: str) -> Line:
    """Read the request of a line. Raises OSError or BadLine."""
    raw = os.pread(descriptor, index.lengths[line], index.offsets[line])
    return parse_line(raw, endpoint)


class _Scanner:
    def __init__(self, endpoint: str, max_line: int, models: Collection[str] | None) -> None:
        self.index = Index()
        self._endpoint = endpoint
        self._max_line = max_line
        self._existing = models
        self._numbers: dict[str, int] = {}
        self._seen: set[bytes] = set()
        self._rest = bytearray()
        self._offset = 0  # of the rest
        self._line = 0

    def feed(self, chunk: bytes) -> bool:
        """Return whether to continue."""
        self._rest += chunk
        start = 0
        while (end := self._rest.find(b"\n", start)) >= 0:
            if not self._add(bytes(self._rest[start:end]), self._offset + start):
                return False
            start = end + 1
        del self._rest[:start]
        self._offset += start
        if len(self._rest) > self._max_line:
            self._line += 1
            self._too_long()
            return False
        return True

    def end(self) -> None:
        self._add(bytes(self._rest), self._offset)

    def _add(self, raw: bytes, offset: int) -> bool:
        self._line += 1
        if not raw.strip():
            return True
        if len(raw) > self._max_line:
            self._too_long()
            return False
        if len(self.index) >= MAX_REQUESTS:
            message = f"the file contains more than {MAX_REQUESTS} requests"
            self.index.errors.append(LineError("too_many_requests", message))
            return False
        try:
            line = parse_line(raw, self._endpoint)
            self._check(line)
        except BadLine as error:
            self.index.errors.append(LineError(error.code, str(error), self._line, error.param))
            return len(self.index.errors) < MAX_ERRORS
        number = self._numbers.setdefault(line.model, len(self._numbers))
        index = self.index
        if number == len(index.models):
            index.models.append(line.model)
        index.offsets.append(offset)
        index.lengths.append(len(raw))
        index.model_of.append(number)
        return True

    def _check(self, line: Line) -> None:
        if self._existing is not None and line.model not in self._existing:
            message = f"the model {line.model[:_MAX_SHOWN]!r} does not exist"
            raise BadLine("model_not_found", message, "body.model")
        digest = hashlib.blake2b(
            line.custom_id.encode("utf-8", "surrogatepass"), digest_size=16
        ).digest()
        if digest in self._seen:
            raise BadLine("duplicate_custom_id", "another line has the same custom_id", "custom_id")
        self._seen.add(digest)

    def _too_long(self) -> None:
        message = f"this line is longer than {self._max_line} bytes (maxBodyBytes)"
        self.index.errors.append(LineError("line_too_long", message, self._line))
