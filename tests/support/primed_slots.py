"""Slots of a FakeLlama that compute prompts, with a tokenizer and a chat template.

As in llama-server: a request computes what its slot does not hold; the slot with the longest common
beginning is used, else the least recently used one. Each character is a token. The template merges
the system prompt into the first message, as that of Gemma.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fake_llama import Call, FakeLlama
from slotkeeper.scheduling.priming import Tokens, common_beginning

NO_SLOT = {"/tokenize", "/apply-template"}


@dataclass
class Slot:
    tokens: Tokens = ()
    used: int = -1
    busy: bool = False


@dataclass(eq=False)
class PrimedSlots:
    """The slots of `llama`."""

    llama: FakeLlama
    context: int = 4096
    goes_back: bool = True
    """It computes the end of a prompt again if that is all that a request needs."""
    before_response: Callable[[Call], Awaitable[None]] | None = None
    """Of each request that computes."""
    rejecting: set[str] = field(default_factory=set)
    """Paths with an error response."""
    failing: set[str] = field(default_factory=set)
    """Paths with an internal error."""
    ending: str = ""
    """llama-server ends when it gets this text on a path in NO_SLOT."""
    computed: list[tuple[str, int]] = field(default_factory=list)
    """The prompt and the computed tokens of each request."""
    requests: int = 0

    def __post_init__(self) -> None:
        self.slots = [Slot() for _ in range(self.llama.slots)]
        self.llama.script = self._serve
        self.llama.tasks = lambda call: 0 if call.path in NO_SLOT else 1
        self.llama.state_scripts["/slots"] = self._report

    def texts(self) -> list[str]:
        """What the slots hold."""
        return ["".join(map(chr, slot.tokens)) for slot in self.slots]

    def hold(self) -> asyncio.Event:
        """Let no request compute until the event is set."""
        may_compute = asyncio.Event()

        async def wait(_: Call) -> None:
            await may_compute.wait()

        self.before_response = wait
        return may_compute

    async def _serve(self, call: Call) -> None:
        body: dict[str, Any] = json.loads(call.body)
        if self.ending and call.path in NO_SLOT and self.ending in call.body.decode():
            call.reset()
            await asyncio.Event().wait()
        elif call.path in self.failing:
            await call.send_json({"error": {"message": "no"}}, "500 Internal Server Error")
        elif call.path in self.rejecting:
            await call.send_json({"error": {"message": "no"}}, "400 Bad Request")
        elif call.path == "/tokenize":
            await call.send_json({"tokens": [1, *map(ord, body["content"])]})
        elif call.path == "/apply-template":
            await call.send_json({"prompt": template(body)})
        else:
            await self._complete(call, body)

    async def _complete(self, call: Call, body: dict[str, Any]) -> None:
        prompt = body["prompt"] if "prompt" in body else template(body)
        tokens = tuple(prompt) if isinstance(prompt, list) else (1, *map(ord, prompt))
        slot = self._slot_for(tokens, body.get("id_slot"))
        cached = min(len(common_beginning(slot.tokens, tokens)), len(tokens) - 1)
        if cached < len(slot.tokens) and not self.goes_back:
            cached = 0
        self.requests += 1
        slot.busy = True
        try:
            if self.before_response:
                await self.before_response(call)
        finally:
            slot.busy = False
        slot.tokens, slot.used = tokens, self.requests
        self.computed.append(("".join(map(chr, tokens)), len(tokens) - cached))
        timings = {"cache_n": cached, "prompt_n": len(tokens) - cached, "predicted_n": 1}
        await call.send_json({"content": "a", "timings": {**timings, "prompt_ms": 1.0}})

    def _slot_for(self, tokens: Tokens, number: int | None) -> Slot:
        if number is not None:
            return self.slots[number]
        idle = [slot for slot in self.slots if not slot.busy]
        best = max(idle, key=lambda slot: len(common_beginning(slot.tokens, tokens)))
        if len(common_beginning(best.tokens, tokens)) > 0.1 * len(tokens):
            return best
        return min(idle, key=lambda slot: slot.used)

    async def _report(self, call: Call) -> None:
        await call.send_json(
            [
                {"id": number, "n_ctx": self.context, "is_processing": slot.busy}
                | ({"id_task": 1, "n_prompt_tokens": len(slot.tokens)} if slot.tokens else {})
                for number, slot in enumerate(self.slots)
            ]
        )


def template(body: dict[str, Any]) -> str:
    """Return the prompt of a chat."""
    tools = json.dumps(body["tools"]) if "tools" in body else ""
    system, turns = "", ""
    for message in body["messages"]:
        if message["role"] == "system":
            system = message["content"].strip() + "\n\n"
        else:
            turns += f"<{message['role']}>{system}{message['content']}</>\n"
            system = ""
    return f"{tools}{turns}{system}<assistant>"
