"""How llama-server keeps prompts: with a plain model, and with one that has a recurrent state."""

import json
from pathlib import Path
from typing import Any

import pytest

from balancer_harness import run_balancer
from client_stack import COMMAND, llama_server
from raw_http import post
from real_llama_server import run_llama_server, send, write_model
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.priming.options import PrimingOptions
from wait_until import until

SYSTEM = "".join(f"{number} is a number. " for number in range(100))
CHAT = SpecPrompt(
    PromptKind.CHAT, json.dumps({"messages": [{"role": "system", "content": SYSTEM}]})
)
TEXT = SpecPrompt(PromptKind.TEXT, "".join(f"Line {number}, " for number in range(100)))
MODELS = {"plain": (), "hybrid": ("--hybrid",)}
SIZE = ("--layers", "2", "--width", "64")
TWO_SLOTS = ("--parallel", "2", "--ctx-size", "8192")
NO_CHECKPOINTS = ("--ctx-checkpoints", "0")


@pytest.fixture(scope="module")
def command() -> list[str]:
    found = llama_server()
    if found is None:
        pytest.skip(f"missing: llama-server. Install llama.cpp, or set {COMMAND} to its command")
    return found


def model(kind: str) -> Path:
    name = "quick" if kind == "plain" else kind
    return write_model(name, *SIZE, *MODELS[kind])


def ask(port: int, prompt: str) -> tuple[int, str]:
    """Return how many tokens of a prompt were cached, and the response."""
    body = {"prompt": prompt, "n_predict": 4, "temperature": 0}
    response = send(port, "/completion", body)
    return int(response["timings"]["cache_n"]), str(response["content"])


@pytest.mark.parametrize("kind", MODELS)
async def test_a_primed_replica_has_the_beginnings_of_all_requests(
    command: list[str], kind: str
) -> None:
    with run_llama_server(command, model(kind), *TWO_SLOTS) as port:
        options = PrimingOptions(60)
        async with run_balancer(priming=options, primed=[CHAT, TEXT], test_seconds=60) as balancer:
            balancer.proxy.set_replicas({f"127.0.0.1:{port}": True})
            await until(lambda: balancer.dispatcher.has_replica)
            report = (await balancer.admin_json("/autoscaling"))["prime"]
            assert (report["reason"], report["prompts"]) == ("Active", 2)
            for user in ("Why is that so, and not otherwise?" * 3, "How?", "When?"):
                await balancer.request(chat(user))
                await balancer.request(post("/completion", body(TEXT.source + user)))
            cached = [line["cached_tokens"] for line in balancer.access_log()]
    # The model has a token for each byte, and checkpoints some tokens before the end.
    assert min(cached[::2]) >= len(SYSTEM) - 16
    assert min(cached[1::2]) >= len(TEXT.source) - 16


def chat(user: str) -> bytes:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    request = {"messages": messages, "max_tokens": 4}
    return post("/v1/chat/completions", json.dumps(request).encode())


def body(prompt: str) -> bytes:
    return json.dumps({"prompt": prompt, "n_predict": 4}).encode()


@pytest.mark.parametrize(
    ("kind", "arguments", "honored"),
    [
        ("plain", (), True),
        ("plain", NO_CHECKPOINTS, True),
        ("hybrid", (), True),
        # Without a checkpoint the state is only that of the end, and all is computed again.
        ("hybrid", NO_CHECKPOINTS, False),
    ],
)
def test_a_restored_slot_is_used_unless_the_model_cannot_go_back(
    command: list[str], tmp_path: Path, kind: str, arguments: tuple[str, ...], honored: bool
) -> None:
    flags = (*TWO_SLOTS, "--slot-save-path", f"{tmp_path}/", *arguments)
    file = {"filename": "prompt"}
    with run_llama_server(command, model(kind), *flags) as port:
        _, cold = ask(port, SYSTEM)
        saved = send(port, "/slots/0?action=save", file)
    with run_llama_server(command, model(kind), *flags) as port:
        restored: dict[str, Any] = send(port, "/slots/0?action=restore", file)
        cached, text = ask(port, SYSTEM)

    assert restored["n_restored"] == saved["n_saved"] > len(SYSTEM)
    assert text == cold
    assert (cached >= len(SYSTEM) - 16) if honored else cached == 0
