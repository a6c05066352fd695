"""What priming needs of one llama-server: the tokens of prompts, and to compute them."""

import json
from typing import Any

from slotkeeper.api.primed_prompts import PromptKind
from slotkeeper.balancer.llama_slots import read_slots
from slotkeeper.balancer.priming.beginnings import RenderedPrompt
from slotkeeper.bounded_json import parse
from slotkeeper.llamacpp.slots import Slot
from slotkeeper.wire.http_get import request

_MAX_BYTES = 4 * 2**20
"""Of a response. A token of a prompt has about seven bytes in it, and four in the prompt."""
_OF_PROMPTS = {"/apply-template", "/tokenize"}
"""They compute nothing. An internal error is one of the prompt, such as tools that are no list, or
an image for a model without a projector."""


class RejectedError(OSError):
    """llama-server responded with an error, which the next one would do, too."""


class PrimedLlama:
    """One llama-server. Each method raises OSError, also for a malformed response.

    None has a timeout: the caller ends all of them together.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port

    async def slots(self) -> tuple[Slot, ...]:
        """Return its slots."""
        return await read_slots(*self._address, _LONG)

    async def tokens(self, prompt: RenderedPrompt) -> list[int]:
        """Return the tokens of a prompt as llama-server would compute them for a request."""
        text = prompt.content
        if prompt.kind is PromptKind.CHAT:
            text = (await self._post("/apply-template", text)).get("prompt")
        if isinstance(text, list):
            return text
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens = (await self._post("/tokenize", body)).get("tokens")
        if not isinstance(tokens, list) or not all(type(each) is int for each in tokens):
            raise RejectedError("/tokenize returned no tokens")
        return tokens

    async def compute(self, tokens: tuple[int, ...], slot: int | None) -> int:
        """Compute a prompt; return how many of its tokens were not cached.

        llama-server b11669 generates a token for n_predict 0, too, and does not keep it.
        """
        body: dict[str, Any] = {"prompt": tokens, "n_predict": 0, "cache_prompt": True}
        if slot is not None:
            body["id_slot"] = slot
        timings = (await self._post("/completion", body)).get("timings")
        computed = timings.get("prompt_n") if isinstance(timings, dict) else None
        if type(computed) is not int or not 0 <= computed <= len(tokens):
            raise RejectedError("/completion returned no timings")
        return computed

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        status, response = await request(
            "POST",
            *self._address,
            path,
            seconds=_LONG,
            max_bytes=_MAX_BYTES,
            body=json.dumps(body).encode(),
        )
        if status >= 500 and not (status == 500 and path in _OF_PROMPTS):
            raise OSError(f"{path} returned {status}")
        if status != 200:
            # Its message may contain parts of the prompt.
            raise RejectedError(f"{path} returned {status}")
        try:
            tree = parse(response, max_bytes=_MAX_BYTES)
        except ValueError:
            raise RejectedError(f"malformed response of {path}") from None
        if not isinstance(tree, dict):
            raise RejectedError(f"malformed response of {path}")
        return tree


_LONG = 3600.0
