"""Embeddings in Ollama's format, converted as they arrive. Pure.

A batch of them is tens of megabytes. The numbers are copied as they are written.
"""

import json
import re

from slotkeeper.gateway.ollama.requests import Kind
from slotkeeper.gateway.ollama.responses import BadResponse, Durations

# Inside a JSON string a backslash precedes every quote.
_START = re.compile(rb'(?<!\\)"embedding"\s*:\s*\[')
_USAGE = re.compile(rb'(?<!\\)"prompt_tokens"\s*:\s*(\d{1,15})')
_NOT_NUMBERS = re.compile(rb"[^-+0-9.eE,\s]")
_MAX_BETWEEN = 64 * 1024
"""Bytes between two embeddings."""


class EmbeddingsResponse:
    """The response to a request for embeddings; `model`: the name that it requested."""

    def __init__(self, kind: Kind, model: str) -> None:
        self.count = 0
        """Embeddings so far."""
        self._kind = kind
        self._model = model
        self._between = b""
        self._inside = False
        self._tokens = 0

    def convert(self, data: bytes) -> bytes:
        """Return the bytes to send for a piece of the server's response. Raises BadResponse."""
        found = []
        while data:
            if self._inside:
                end = data.find(b"]")
                numbers = data if end < 0 else data[:end]
                if _NOT_NUMBERS.search(numbers):
                    raise BadResponse("the server sent embeddings that are not numbers")
                found.append(numbers)
                if end < 0:
                    break
                found.append(b"]")
                self._inside = False
                data = data[end + 1 :]
            text = self._between + data
            start = _START.search(text)
            if usage := _USAGE.search(text, 0, start.start() if start else len(text)):
                self._tokens = int(usage[1])
            if start is None:
                if len(text) > _MAX_BETWEEN:
                    raise BadResponse("the server sent no embeddings")
                self._between = text
                break
            self._between = b""
            self._inside = True
            data = text[start.end() :]
            found.append(self._opening())
            self.count += 1
        return b"".join(found)

    def end(self, durations: Durations) -> bytes:
        """Return the bytes that end the response. Raises BadResponse if it is incomplete."""
        if self._inside or not self.count:
            raise BadResponse("the server sent no embeddings, or only a part of them")
        if self._kind is Kind.EMBEDDINGS:
            return b"}"
        fields = {
            "total_duration": round(durations.total * 1e9),
            "load_duration": round(durations.queued * 1e9),
            "prompt_eval_count": self._tokens,
        }
        return b"]," + json.dumps(fields, separators=(",", ":")).encode()[1:]

    def _opening(self) -> bytes:
        if self.count:
            if self._kind is Kind.EMBEDDINGS:
                raise BadResponse("the server sent several embeddings")
            return b",["
        if self._kind is Kind.EMBEDDINGS:
            return b'{"embedding":['
        return b'{"model":%s,"embeddings":[[' % json.dumps(self._model).encode()
