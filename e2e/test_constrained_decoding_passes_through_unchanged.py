"""Grammars, schemas and tools pass through untouched: the same seed gives the same answer."""

import json
from typing import Any

from servers import Server, spec

COLOURS = {"red", "green", "blue"}
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": sorted(COLOURS)}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}
GRAMMAR = 'root ::= ("a" | "e" | "i"){8}'
MESSAGES = [{"role": "user", "content": "Name a colour."}]
TOOL = {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}}

Asked = tuple[str, dict[str, Any]]
COMPLETION = "/completion"
CHAT = "/v1/chat/completions"
ASKED: dict[str, Asked] = {
    "grammar": (COMPLETION, {"prompt": "Vowels:", "n_predict": 64, "grammar": GRAMMAR}),
    "schema": (COMPLETION, {"prompt": "Colour:", "n_predict": 200, "json_schema": SCHEMA}),
    "stream": (
        COMPLETION,
        {"prompt": "Colour:", "n_predict": 200, "json_schema": SCHEMA, "stream": True},
    ),
    "chat": (CHAT, {"messages": MESSAGES, "max_tokens": 64, "grammar": GRAMMAR}),
    "tools": (CHAT, {"messages": MESSAGES, "max_tokens": 64, "tools": [TOOL]}),
}


def test_constrained_answers_are_as_direct_ones(server: Server) -> None:
    server.ready(spec())
    [replica] = server.replica_addresses()

    through = {name: _said(server, server.url, *asked) for name, asked in ASKED.items()}

    assert through == {
        name: _said(server, f"http://{replica}", *asked) for name, asked in ASKED.items()
    }
    for name in ("grammar", "chat"):
        assert len(through[name]) == 8
        assert set(through[name]) <= set("aei")
    for name in ("schema", "stream"):
        assert json.loads(through[name])["colour"] in COLOURS
    assert through["tools"]


def _said(server: Server, url: str, path: str, body: dict[str, Any]) -> str:
    seeded = {**body, "seed": 7, "temperature": 1.0, "cache_prompt": False}
    said = server.cluster.read("run", "curl", "-sS", f"{url}{path}", "-d", json.dumps(seeded))
    if body.get("stream"):
        events = [json.loads(line[6:]) for line in said.split("\n") if line.startswith("data: {")]
        return "".join(event["content"] for event in events)
    answer = json.loads(said)
    return str(
        answer["content"] if path == COMPLETION else answer["choices"][0]["message"]["content"]
    )
