"""Responses of a server in Ollama's format. Pure."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from slotkeeper.bounded_json import parse
from slotkeeper.gateway.ollama.events import Piece, piece_of
from slotkeeper.gateway.ollama.requests import Kind

Json = dict[str, Any]

MAX_RESPONSE = 8 * 1024 * 1024
"""Bytes of a response that is no stream."""
_MAX_DEPTH = 64
_MAX_ARGUMENTS = 1024 * 1024


class BadResponse(Exception):  # noqa: N818 (the response is bad; nothing failed here)
    """The server's response cannot be translated. The message states why."""


@dataclass
class Durations:
    """Of one request, in seconds."""

    queued: float
    """In the server's queue, with the start of a replica."""
    total: float


@dataclass(slots=True)
class _Call:
    name: str = ""
    arguments: str = ""


@dataclass
class Generation:
    """The response to a request that generates text; `model`: the name that it requested."""

    kind: Kind
    model: str
    _calls: dict[int, _Call] = field(default_factory=dict)
    _piece: Piece = field(default_factory=Piece)
    finished: bool = False
    """The server has sent the reason of the end."""
    began: bool = False
    """The server has sent a part of the response."""

    @property
    def prompt_seconds(self) -> float:
        """Seconds in which the prompt was processed, as far as reported."""
        return _milliseconds(self._piece.timings.get("prompt_ms")) / 1e9

    def event(self, data: bytes, at: float) -> list[Json]:
        """Return the objects to send for an event of the server's stream. Raises BadResponse.

        `at`: the time, in seconds since 1970.
        """
        if data == b"[DONE]":
            return []
        piece = self._read(data)
        self.began = True
        lines = self._ended_calls(piece, at)
        if piece.text or piece.thinking or piece.logprobs:
            lines.append(self._object(piece.text, piece.thinking, [], piece.logprobs, at=at))
        return lines

    def keep_alive(self, at: float) -> Json:
        """Return an object without content, as Ollama itself sends, which shows progress."""
        return self._object("", "", [], [], at=at)

    def last(self, durations: Durations, at: float) -> list[Json]:
        """Return the objects that end a stream. Raises BadResponse if it is incomplete."""
        if not self.finished:
            raise BadResponse("the server ended its response early")
        calls = self._complete(self._calls, incomplete_last=self._piece.finish == "length")
        self._calls = {}
        lines = [self._object("", "", [call], [], at=at) for call in calls]
        return [*lines, {**self._object("", "", [], [], at=at), **self._end(durations)}]

    def whole(self, data: bytes, durations: Durations, at: float) -> Json:
        """Return a response that is no stream. Raises BadResponse."""
        piece = self._read(data)
        if not self.finished:
            raise BadResponse("the server sent no generated text")
        calls = {at: _call(call) for at, call in enumerate(piece.tool_calls)}
        complete = self._complete(calls, incomplete_last=piece.finish == "length")
        whole = self._object(piece.text, piece.thinking, complete, piece.logprobs, at=at)
        return {**whole, **self._end(durations)}

    def loaded(self, at: float) -> Json:
        """Return the response to a request that only starts a replica."""
        return {**self._object("", "", [], [], at=at), "done": True, "done_reason": "load"}

    def _read(self, data: bytes) -> Piece:
        try:
            tree = parse(data, max_bytes=MAX_RESPONSE, max_depth=_MAX_DEPTH)
        except ValueError as error:
            raise BadResponse(f"the server sent invalid JSON: {error}"[:200]) from None
        piece = piece_of(tree)
        if piece.error is not None:
            raise BadResponse(piece.error)
        last = self._piece
        last.finish = piece.finish or last.finish
        last.timings = piece.timings or last.timings
        last.usage = piece.usage or last.usage
        self.finished = last.finish is not None
        return piece

    def _ended_calls(self, piece: Piece, at: float) -> list[Json]:
        """Add parts of tool calls; return the calls before them, which are complete."""
        lines = []
        for part in piece.tool_calls:
            index = part.get("index")
            index = index if type(index) is int else len(self._calls)
            if index not in self._calls:
                ended = self._complete(self._calls, incomplete_last=False)
                lines += [self._object("", "", [call], [], at=at) for call in ended]
                self._calls = {index: _Call()}
            call, added = self._calls[index], _call(part)
            call.name += added.name
            call.arguments += added.arguments
            if len(call.arguments) > _MAX_ARGUMENTS:
                raise BadResponse(f"the arguments of {call.name[:100]} are too long")
        return lines

    @staticmethod
    def _complete(calls: dict[int, _Call], *, incomplete_last: bool) -> list[Json]:
        """Return calls in Ollama's format. `incomplete_last`: the last one may be cut off."""
        found = []
        for number, call in enumerate(calls.values(), 1):
            try:
                arguments = json.loads(call.arguments or "{}")
            except (ValueError, RecursionError):
                if incomplete_last and number == len(calls):
                    # done_reason is length. Ollama's format has no part of a call.
                    break
                raise BadResponse(f"the arguments of {call.name[:100]} are not JSON") from None
            if not isinstance(arguments, dict):
                arguments = {}
            found.append({"function": {"name": call.name, "arguments": arguments}})
        return found

    def _object(
        self,
        text: str,
        thinking: str,
        calls: list[Json],
        logprobs: list[Json],
        *,
        at: float,
    ) -> Json:
        shared: Json = {"model": self.model, "created_at": timestamp(at)}
        if self.kind is Kind.CHAT:
            message: Json = {"role": "assistant", "content": text}
            if thinking:
                message["thinking"] = thinking
            if calls:
                message["tool_calls"] = calls
            shared["message"] = message
        else:
            shared["response"] = text
            if thinking:
                shared["thinking"] = thinking
        if logprobs:
            shared["logprobs"] = [_logprob(each) for each in logprobs]
        return {**shared, "done": False}

    def _end(self, durations: Durations) -> Json:
        timings, usage = self._piece.timings, self._piece.usage
        end: Json = {
            "done": True,
            "done_reason": "length" if self._piece.finish == "length" else "stop",
            "total_duration": round(durations.total * 1e9),
            "load_duration": round(durations.queued * 1e9),
        }
        prompt = usage.get("prompt_tokens")
        if not isinstance(prompt, int):
            prompt = _count(timings.get("prompt_n")) + _count(timings.get("cache_n"))
        generated = usage.get("completion_tokens")
        if not isinstance(generated, int):
            generated = _count(timings.get("predicted_n"))
        return {
            **end,
            "prompt_eval_count": prompt,
            "prompt_eval_duration": round(_milliseconds(timings.get("prompt_ms"))),
            "eval_count": generated,
            "eval_duration": round(_milliseconds(timings.get("predicted_ms"))),
        }


def timestamp(at: float) -> str:
    """Return a time, in seconds since 1970, as Ollama writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _call(part: Json) -> _Call:
    function = part.get("function")
    if not isinstance(function, dict):
        return _Call()
    name, arguments = function.get("name"), function.get("arguments")
    return _Call(
        name if isinstance(name, str) else "",
        arguments if isinstance(arguments, str) else "",
    )


def _logprob(token: Json) -> Json:
    shown: Json = {name: token[name] for name in ("token", "logprob", "bytes") if name in token}
    top = token.get("top_logprobs")
    if isinstance(top, list) and top:
        shown["top_logprobs"] = [_logprob(each) for each in top if isinstance(each, dict)]
    return shown


def _milliseconds(value: Any) -> float:
    """Return milliseconds as nanoseconds; 0 if it is no number."""
    return value * 1e6 if isinstance(value, int | float) else 0.0


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
