"""Grammars, schemas and tools pass through unchanged: the same seed gives the same response."""

import json
from typing import Any

from servers import Server, spec

COLORS = {"red", "green", "blue"}
SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": sorted(COLORS)}, "sure": {"type": "boolean"}},
    "required": ["color", "sure"],
    "additionalProperties": False,
}
GRAMMAR = 'root ::= ("a" | "e" | "i"){8}'
MESSAGES = [{"role": "user", "content": "Name a color."}]
TOOL = {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}}

Request = tuple[str, dict[str, Any]]
"""Path and body."""
COMPLETION = "/completion"
CHAT = "/v1/chat/completions"
REQUESTS: dict[str, Request] = {
    "grammar": (COMPLETION, {"prompt": "Vowels:", "n_predict": 64, "grammar": GRAMMAR}),
    "schema": (COMPLETION, {"prompt": "Color:", "n_predict": 200, "json_schema": SCHEMA}),
    "stream": (
        COMPLETION,
        {"prompt": "Color:", "n_predict": 200, "json_schema": SCHEMA, "stream": True},
    ),
    "chat": (CHAT, {"messages": MESSAGES, "max_tokens": 64, "grammar": GRAMMAR}),
    "tools": (CHAT, {"messages": MESSAGES, "max_tokens": 64, "tools": [TOOL]}),
}


def test_constrained_responses_equal_those_of_a_direct_request(server: Server) -> None:
    server.ready(spec())
    [replica] = server.replica_addresses()

    balanced = {name: _content(server, server.url, *each) for name, each in REQUESTS.items()}

    direct_url = f"http://{replica}"
    assert balanced == {
        name: _content(server, direct_url, *each) for name, each in REQUESTS.items()
    }
    for name in ("grammar", "chat"):
        assert len(balanced[name]) == 8
        assert set(balanced[name]) <= set("aei")
    for name in ("schema", "stream"):
        assert json.loads(balanced[name])["color"] in COLORS
    assert balanced["tools"]


def _content(server: Server, url: str, path: str, body: dict[str, Any]) -> str:
    seeded = {**body, "seed": 7, "temperature": 1.0, "cache_prompt": False}
    text = server.cluster.read("run", "curl", "-sS", f"{url}{path}", "-d", json.dumps(seeded))
    if body.get("stream"):
        events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
        return "".join(event["content"] for event in events)
    tree = json.loads(text)
    return str(tree["content"] if path == COMPLETION else tree["choices"][0]["message"]["content"])
