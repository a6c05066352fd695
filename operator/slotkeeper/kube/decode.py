"""Decoding of the API server's responses, object by object.

Users decide what their objects contain. One that breaks a bound is decoded to an outline: what
identifies it, its status, and under UNREADABLE the reason. So it is no obstacle to reading the
others of a list, and can be reported.
"""

import re
from collections.abc import Iterator
from typing import Any

from slotkeeper.api.group import GROUP
from slotkeeper.bounded_json import BoundsError, check_depth, check_unicode, value_at
from slotkeeper.kube.cluster import UNREADABLE, Manifest

MAX_DEPTH = 64
"""Of one object. The deepest ones that the API server validates have 20 levels."""

_KEPT_METADATA = {
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "ownerReferences",
}
_LABEL_PREFIX = f"{GROUP}/"
_BLANK = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^\s,\]}]+")
# A string without an end matches up to the end of the text, so that it is searched only once.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
# Consecutive brackets are one token: skipping takes a step in Python for each token.
_TOKEN = re.compile(rf"{_STRING.pattern}|[\[{{]+|[\]}}]+", re.DOTALL)


def decode_object(body: bytes) -> Manifest:
    """Return the object, or its outline. Raises ValueError if the body is not a JSON object."""
    return _Cursor(body).manifest()


def decode_list(body: bytes) -> Manifest:
    """Return a list of objects, with outlines in place of unreadable items. Raises ValueError."""
    cursor = _Cursor(body)
    tree: Manifest = {}
    for key in cursor.members():
        if key == "items" and cursor.peek() == "[":
            tree[key] = [cursor.manifest() for _ in cursor.elements()]
        else:
            tree[key] = cursor.value()
    return tree


def decode_event(line: bytes) -> Manifest:
    """Return an event of a watch, with an outline in place of an unreadable object.

    Raises ValueError.
    """
    cursor = _Cursor(line)
    event = {
        key: cursor.manifest() if key == "object" else cursor.value() for key in cursor.members()
    }
    if not {"type", "object"} <= event.keys():
        raise ValueError("not an event")
    return event


def outline(manifest: Manifest, reason: str) -> Manifest:
    """Return the outline of an object that was decoded, and is unreadable for this reason."""
    kept = {k: v for k, v in manifest.items() if k in {"apiVersion", "kind", "status"}}
    return {**kept, "metadata": _identity(manifest["metadata"]), UNREADABLE: reason}


def _identity(metadata: Manifest) -> Manifest:
    kept = {k: v for k, v in metadata.items() if k in _KEPT_METADATA}
    # Neither the API server nor Kubernetes limits the number of these two.
    if labels := kept.get("labels"):
        kept["labels"] = {k: v for k, v in labels.items() if k.startswith(_LABEL_PREFIX)}
    if owners := kept.get("ownerReferences"):
        kept["ownerReferences"] = [owner for owner in owners if owner.get("controller")]
    return kept


class _Cursor:
    """A position in JSON text. Every method that reads something moves it past that."""

    def __init__(self, body: bytes) -> None:
        self._text = body.decode()
        self._at = 0

    def peek(self) -> str:
        """Return the next character after blanks, "" at the end."""
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at
        return self._text[self._at : self._at + 1]

    def members(self) -> Iterator[str]:
        """Yield each key of an object; the caller reads or skips its value."""
        for _ in self._items("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"expected a key at {self._at}")
            self._expect(":")
            yield key

    def elements(self) -> Iterator[None]:
        """Yield for each element of an array; the caller reads or skips it."""
        return self._items("[", "]")

    def value(self) -> Any:
        """Read a value within all bounds. Raises ValueError, without moving."""
        self.peek()
        tree, end = value_at(self._text, self._at)
        check_depth(tree, MAX_DEPTH)
        check_unicode(self._text[self._at : end], tree)
        self._at = end
        return tree

    def manifest(self) -> Manifest:
        """Read an object, or its outline if it breaks a bound."""
        self.peek()
        start = self._at
        try:
            tree = self.value()
        except BoundsError as error:
            self._at = start
            return self._outline(str(error))
        if not isinstance(tree, dict):
            raise ValueError(f"expected an object at {start}")
        return tree

    def _outline(self, reason: str) -> Manifest:
        tree: Manifest = {}
        for key in self.members():
            if key == "metadata":
                found = {k: self._value_if(k in _KEPT_METADATA) for k in self.members()}
                tree[key] = _identity({k: v for k, v in found.items() if v is not None})
            elif (value := self._value_if(key in {"apiVersion", "kind", "status"})) is not None:
                tree[key] = value
        return {**tree, UNREADABLE: reason}

    def _value_if(self, wanted: bool) -> Any:
        """Read a value if it is wanted and within bounds; else skip it and return None."""
        self.peek()
        start = self._at
        if wanted:
            try:
                return self.value()
            except BoundsError:
                self._at = start
        self._skip()
        return None

    def _skip(self) -> None:
        opening = self.peek()
        if opening not in {"{", "["}:
            match = (_STRING if opening == '"' else _SCALAR).match(self._text, self._at)
            if match is None:
                raise ValueError(f"expected a value at {self._at}")
            self._at = match.end()
            return
        depth = 0
        for token in _TOKEN.finditer(self._text, self._at):
            first = token[0][0]
            if first in "[{":
                depth += len(token[0])
            elif first != '"':
                if len(token[0]) >= depth:
                    self._at = token.start() + depth
                    return
                depth -= len(token[0])
        raise ValueError("truncated JSON")

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        self._expect(opening)
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            yield
            if self.peek() == closing:
                self._at += 1
                return
            self._expect(",")

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise ValueError(f"expected {character!r} at {self._at}")
        self._at += 1
