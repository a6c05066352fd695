"""Slots that hold prompts, and save and restore them, for a FakeLlama; and their agent.

As in llama-server: the slot with the longest common prefix is used, else the least recently used
one; the state of a slot is a real file in a folder. Four bytes of a body are one token.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fake_llama import Call, FakeLlama
from raw_http import post
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import json_response
from slotkeeper.wire.server import Server

SYSTEM = "You are helpful. " * 100
"""Long enough for a prefix hash."""
IDENTITY = "0123456789abcdef"
META = {"n_ctx_train": 8192, "n_params": 9_639_552, "size": 12_345_678}
_MAGIC = 0x67677371
_MIN_SIMILARITY = 0.1
_PADDING = 2**20
"""Of each file, as large as a real one."""


def chat_body(*texts: str, system: str = SYSTEM) -> bytes:
    """Return the body of a request that shares a long beginning with others."""
    return json.dumps({"messages": [system, *texts], "stream": True}).encode()


def chat(*texts: str, path: str = "/v1/chat/completions", system: str = SYSTEM) -> bytes:
    """Return such a request."""
    return post(path, chat_body(*texts, system=system))


def state(text: bytes, *, packed: bool = True) -> bytes:
    """Return a file as llama-server writes it, with a packed or a plain list of tokens."""
    tokens = len(text) // 4
    if not packed:
        return struct.pack("=3I", _MAGIC, 4, tokens) + text[: tokens * 4] + bytes(_PADDING)
    numbers = struct.pack("=6I", _MAGIC, 4, tokens + 4, 0xFFFFFFFF, 1, tokens)
    return numbers + text[: tokens * 4] + struct.pack("=I", 0) + bytes(_PADDING)


def text_of(file: bytes) -> bytes:
    """Return the text in such a file."""
    magic, _, _, _, _, tokens = struct.unpack("=6I", file[:24])
    assert magic == _MAGIC
    return file[24 : 24 + 4 * tokens]


@dataclass
class _SlotState:
    text: bytes = b""
    task: int | None = None
    busy: bool = False
    used: int = 0
    numbers: tuple[int, int, int] = (0, 0, 0)


@dataclass(eq=False)
class PromptSlots:
    """The slots of `llama`, whose files are in `folder`."""

    llama: FakeLlama
    folder: Path
    build: str = "b11434-abc"
    honors_restores: bool = True
    """Else restored tokens are computed again."""
    packed: bool = True
    """Files have a packed list of tokens, as those of later builds."""
    keeps_numbers: bool = False
    """/slots reports the numbers of a response after it."""
    before_response: Callable[[Call], Awaitable[None]] | None = None
    before_action: Callable[[Call], Awaitable[None]] | None = None
    failing: set[str] = field(default_factory=set)
    """Actions that fail: `save`, as on a full disk, or `restore`."""
    actions: list[tuple[str, int]] = field(default_factory=list)
    """Those that were completed, with their slots."""
    milliseconds_per_token: float = 10.0
    tasks: int = 0

    def __post_init__(self) -> None:
        self.slots = [_SlotState() for _ in range(self.llama.slots)]
        self.llama.script = self._complete
        self.llama.slot_action = self._act
        self.llama.state_scripts.update(
            {"/slots": self._report, "/v1/models": self._models, "/props": self._props}
        )

    def texts(self) -> list[bytes]:
        """What the slots hold."""
        return [slot.text for slot in self.slots]

    def hold_actions(self) -> asyncio.Event:
        """Let no save or restore begin until the event is set."""
        may_begin = asyncio.Event()

        async def wait(_: Call) -> None:
            await may_begin.wait()

        self.before_action = wait
        return may_begin

    def restart(self) -> None:
        """Become another process, with empty slots."""
        self.slots = [_SlotState() for _ in range(self.llama.slots)]
        self.tasks = 0

    async def _complete(self, call: Call) -> None:
        slot, common = self._slot_for(call.body)
        cached = min(common, len(call.body) - 4) // 4
        generated = 8
        computed = len(call.body) // 4 - cached
        self.tasks += 1
        slot.task, slot.used, slot.busy = self.tasks, self.tasks, True
        slot.text = call.body[: len(call.body) // 4 * 4]
        try:
            if self.before_response:
                await self.before_response(call)
        finally:
            slot.busy = False
        slot.text += b"g" * 4 * (generated - 1)  # the last token is not processed
        slot.numbers = (computed, cached, generated) if self.keeps_numbers else (0, 0, 0)
        timings = {
            "cache_n": cached,
            "prompt_n": computed,
            "prompt_ms": computed * self.milliseconds_per_token,
            "predicted_n": generated,
        }
        await call.send_json({"content": "hello", "timings": timings})

    def _slot_for(self, body: bytes) -> tuple[_SlotState, int]:
        idle = [slot for slot in self.slots if not slot.busy]
        common = {id(slot): _common(slot.text, body) for slot in idle}
        best = max(idle, key=lambda slot: common[id(slot)])
        if common[id(best)] > _MIN_SIMILARITY * len(body):
            return best, common[id(best)]
        return min(idle, key=lambda slot: slot.used), 0

    async def _act(self, call: Call) -> None:
        path, _, action = call.path.partition("?action=")
        number = int(path.rpartition("/")[2])
        slot = self.slots[number]
        file = self.folder / json.loads(call.body)["filename"]
        if self.before_action:
            await self.before_action(call)
        while slot.busy:  # noqa: ASYNC110 (as llama-server, which defers the action)
            await asyncio.sleep(0.001)
        if action in self.failing:
            await call.send_json({"error": {"code": 400, "message": "no"}}, "400 Bad Request")
        elif action == "save":
            written = file.write_bytes(state(slot.text, packed=self.packed))
            self.actions.append(("save", number))
            await call.send_json({"n_saved": len(slot.text) // 4, "n_written": written})
        else:
            read = file.read_bytes()
            text = text_of(read)
            slot.text = text if self.honors_restores else b"?" * len(text)
            self.actions.append(("restore", number))
            await call.send_json({"n_restored": len(text) // 4, "n_read": len(read)})

    async def _report(self, call: Call) -> None:
        await call.send_json([self._slot(number) for number in range(len(self.slots))])

    def _slot(self, number: int) -> dict[str, Any]:
        slot = self.slots[number]
        common = {"id": number, "n_ctx": 512, "is_processing": slot.busy}
        if slot.task is None:
            return common
        computed, cached, decoded = slot.numbers
        return common | {
            "id_task": slot.task,
            "n_prompt_tokens": len(slot.text) // 4,
            "n_prompt_tokens_processed": computed,
            "n_prompt_tokens_cache": cached,
            "next_token": [{"n_decoded": decoded}],
        }

    async def _models(self, call: Call) -> None:
        await call.send_json({"data": [{"id": "x", "meta": META}]})

    async def _props(self, call: Call) -> None:
        await call.send_json({"build_info": self.build, "model_path": "/models/x.gguf"})


def _common(first: bytes, second: bytes) -> int:
    """Return the length of the common prefix."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port on which servers can listen, on several addresses of the loopback interface.

    It is bound for all addresses, so that no other process gets it.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("", 0))
        yield reserved.getsockname()[1]


class FakeAgent:
    """Serves the interface of `slotkeeper prompt-files` for a folder, on a port of `host`."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.folder = folder
        self.host = host
        self.port = port
        self.records: dict[str, dict[str, Any]] = {}
        """By name: what was committed. Agents of one folder share it."""
        self.has_room = True
        self.silent = False
        """It does not respond."""
        self.done = asyncio.Event()
        self.requests: list[str] = []
        self._server = Server(self._handle)

    async def __aenter__(self) -> Self:
        _, self.port = await self._server.listen(self.host, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        path = request.path.decode()
        self.requests.append(f"{request.method.decode()} {path}")
        tree = json.loads(request.body) if request.size else {}
        if self.silent:
            return
        if path == "/files":
            files = [each for each in reversed(self.records.values()) if self._exists(each["name"])]
            used = sum(each["bytes"] for each in files)
            exchange.respond(
                json_response(200, {"identity": IDENTITY, "usedBytes": used, "files": files})
            )
        elif path == "/room":
            reason = {} if self.has_room else {"reason": "full"}
            exchange.respond(json_response(200, {"ok": self.has_room, "removed": [], **reason}))
        elif path == "/commit":
            self._commit(exchange, tree)
        elif path == "/use" and not self._exists(tree["name"]):
            exchange.respond_with_error(HttpError(404, "not_found", "no such file"))
        elif path == "/use":
            exchange.respond(json_response(200, {"bytes": 1, "seconds": 0.0}))
        elif path == "/done":
            self.done.set()
            exchange.respond(json_response(200, {"done": True}))
        else:
            name = path.rpartition("/")[2]
            self.records.pop(name, None)
            for file in (name, f"{name}.part"):
                (self.folder / file).unlink(missing_ok=True)
            exchange.respond(json_response(200, {"removed": True}))

    def file_names(self) -> set[str]:
        """Return the names in the folder."""
        return {path.name for path in self.folder.iterdir()}

    def _exists(self, name: str) -> bool:
        return name in self.records and (self.folder / name).exists()

    def _commit(self, exchange: Exchange, tree: dict[str, Any]) -> None:
        temporary = self.folder / tree.pop("temporary")
        if temporary.stat().st_size != tree["bytes"]:
            exchange.respond_with_error(HttpError(409, "invalid_file", "not as announced"))
            return
        temporary.rename(self.folder / tree["name"])
        now = time.time()
        self.records[tree["name"]] = {**tree, "savedAt": now, "usedAt": now}
        exchange.respond(json_response(200, {"removed": []}))
