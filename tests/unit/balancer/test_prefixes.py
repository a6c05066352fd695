import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.balancer.prefixes import prefixes
from slotkeeper.edge.request_body import inspect, inspect_large
from slotkeeper.llamacpp.prompt_fields import PROMPT_FIELDS
from slotkeeper.scheduling import PREFIX_SIZES, PrefixHashes

CHAT = b"/v1/chat/completions"
RESPONSES = b"/v1/responses"
MESSAGES = b"/v1/messages"
COMPLETION = b"/completion"
INFILL = b"/infill"

TEXT = "Some words of a prompt. " * 100
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"prompt": "messages"}}}]


def hashes(path: bytes, body: bytes) -> PrefixHashes:
    """Return the hashes of a body, which are the same if it is read in one step and in several."""
    small = prefixes(path, inspect(path, body, locate=True).members)
    large = prefixes(path, asyncio.run(inspect_large(path, body, locate=True)).members)
    assert small == large
    return small


def of(path: bytes, **fields: Any) -> PrefixHashes:
    return hashes(path, json.dumps(fields).encode())


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


PROMPTS: dict[bytes, dict[str, Any]] = {
    COMPLETION: {"prompt": TEXT},
    CHAT: {"messages": messages(TEXT)},
    RESPONSES: {"input": TEXT},
    MESSAGES: {"messages": messages(TEXT)},
    INFILL: {"input_prefix": TEXT},
}
MATTERS = [
    *((path, "lora", [{"id": 0, "scale": 0.5}]) for path in (COMPLETION, INFILL)),
    *(
        (path, field, value)
        for path in (CHAT, RESPONSES)
        for field, value in (
            ("tools", TOOLS),
            ("chat_template_kwargs", {"enable_thinking": False}),
            ("reasoning_effort", "low"),
            ("response_format", {"type": "json_object"}),
            ("json_schema", {"type": "object"}),
            ("lora", [{"id": 0, "scale": 0.5}]),
        )
    ),
    (RESPONSES, "reasoning", {"effort": "low"}),
    (RESPONSES, "instructions", "Be brief."),
    (MESSAGES, "tools", TOOLS),
    (MESSAGES, "chat_template_kwargs", {"enable_thinking": False}),
    (MESSAGES, "system", "Be brief."),
    (INFILL, "input_extra", [{"text": "a"}]),
]
DOES_NOT_MATTER = {
    "model": "m",
    "temperature": 0.7,
    "seed": 7,
    "stream": True,
    "max_tokens": 9,
    "stop": ["a"],
    "user": "u",
    "metadata": {"user_id": "u", "tools": [1]},
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "grammar": 'root ::= "a"',
    "add_generation_prompt": False,
    "thinking": {"type": "enabled", "budget_tokens": 9},
    "x": '"tools": [1], "messages": [',
}


@pytest.mark.parametrize(("path", "field", "value"), MATTERS)
def test_what_changes_the_prompt_changes_every_hash(path: bytes, field: str, value: Any) -> None:
    without = of(path, **PROMPTS[path])
    before = of(path, **{field: value, **PROMPTS[path]})
    after = of(path, **PROMPTS[path], **{field: value})

    assert before == after
    assert len(before) >= len(without) >= 1
    assert not set(before) & set(without)
    assert of(path, **PROMPTS[path], **{field: None}) == without


def test_equal_values_of_different_fields_give_different_hashes() -> None:
    value = {"type": "object"}
    chat = PROMPTS[CHAT]

    assert not set(of(CHAT, **chat, json_schema=value)) & set(
        of(CHAT, **chat, response_format=value)
    )


@pytest.mark.parametrize("path", PROMPTS)
@given(st.permutations(sorted(DOES_NOT_MATTER)), st.integers(0, len(DOES_NOT_MATTER)))
def test_what_does_not_change_the_prompt_changes_no_hash(
    path: bytes, names: list[str], count: int
) -> None:
    others = {name: DOES_NOT_MATTER[name] for name in names[:count]}

    assert of(path, **others, **PROMPTS[path]) == of(path, **PROMPTS[path])
    assert of(path, **PROMPTS[path], **others) == of(path, **PROMPTS[path])


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_fields_does_not_matter(rng: random.Random) -> None:
    fields = {
        **DOES_NOT_MATTER,
        **{field: value for path, field, value in MATTERS if path == RESPONSES},
        "input": messages(TEXT),
    }
    names = list(fields)
    rng.shuffle(names)

    assert of(RESPONSES, **{name: fields[name] for name in names}) == of(RESPONSES, **fields)


def test_only_the_fields_of_its_path_count() -> None:
    # The template of /v1/messages gets none of these.
    plain = of(MESSAGES, messages=messages(TEXT))

    assert of(MESSAGES, messages=messages(TEXT), reasoning_effort="low", lora=[]) == plain
    assert of(CHAT, prompt=TEXT, input=TEXT) == ()
    assert of(COMPLETION, prompt=TEXT, messages=messages(TEXT), tools=TOOLS) == of(
        COMPLETION, prompt=TEXT
    )
    # A text is a chat's message on one path and the whole prompt on the other.
    assert not set(of(COMPLETION, prompt=TEXT)) & set(of(RESPONSES, input=TEXT))


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_conversation_that_grows_keeps_its_hashes(path: bytes) -> None:
    first = of(path, messages=messages(TEXT), tools=TOOLS, seed=1)
    second = of(path, messages=messages(TEXT, TEXT, TEXT), tools=TOOLS, seed=2)

    assert second[: len(first)] == first
    assert len(second) > len(first)


@pytest.mark.parametrize("size", [1024, 2048, 65536])
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_follows_the_prompt_is_never_part_of_it(size: int, wrapped: bool) -> None:
    # The value without its last byte has a size of the table.
    value: Any = ["x" * (size - 3)] if wrapped else "x" * (size - 1)
    shorter: Any = ["x" * (size - 4)] if wrapped else "x" * (size - 2)
    fields = {"n": 1, "stream": True}

    assert of(COMPLETION, prompt=value, **fields) == of(COMPLETION, **fields, prompt=value)
    assert of(COMPLETION, prompt=value)[-1] >> 32 == size
    assert len(of(COMPLETION, prompt=shorter)) == PREFIX_SIZES.index(size)


def test_a_system_prompt_and_messages_are_one_prompt() -> None:
    one = of(MESSAGES, system=TEXT, messages=messages("a" * 3000))
    other = of(MESSAGES, messages=messages("b" * 3000), system=TEXT)

    assert one[:2] == other[:2]
    assert not set(one[2:]) & set(other[2:])
    assert of(MESSAGES, system=TEXT, messages=messages("Hi")) == one[:2]


def test_claude_codes_billing_code_does_not_matter() -> None:
    def system(code: str) -> list[dict[str, str]]:
        header = f"x-anthropic-billing-header: cc_version=2.1.101.e51; cch={code};"
        return [{"type": "text", "text": header + TEXT}]

    one, other = (
        of(MESSAGES, messages=messages("Hi"), system=system(code)) for code in ("a5145", "0e9f1")
    )
    assert one == other
    assert len(one) == 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":["%b"],"\\u0074ools":[1]}',
        b'{"tools":[2],"messages":["%b"],"tools":[1]}',
        b'{"tools":[1],"messages":[],"mess\\u0061ges":["%b"]}',
        b'{"x":{"tools":[2]},"messages":["%b"],"tools":[1],"y":[{"tools":[3],"messages":[]}]}',
        b'{"x":"\\"tools\\":[2],\\\\","messages":["%b"],"tools":[1],"\\"tools":[2]}',
        b'\xef\xbb\xbf { "tools" :\t[1] , "messages"\n:\r["%b"] } ',
    ],
)
def test_fields_are_read_as_llama_server_reads_them(body: bytes) -> None:
    text = TEXT.encode()

    assert hashes(CHAT, body % text) == hashes(CHAT, b'{"messages":["%b"],"tools":[1]}' % text)
    assert hashes(CHAT, body % text) != hashes(CHAT, b'{"messages":["%b"],"tools":[2]}' % text)


@pytest.mark.parametrize(
    "body", [b"", b"x" * 2000, b"[]", b"{}", b'{"messages":"%b' % (b"x" * 2000), b"\xff" * 2000]
)
def test_what_is_no_object_has_no_hashes(body: bytes) -> None:
    small = inspect(CHAT, body, locate=True).members
    assert prefixes(CHAT, small) == ()


@pytest.mark.parametrize("size", [300_000, 5_000_000])
def test_fields_behind_a_large_prompt_count(size: int) -> None:
    def large(tools: Any) -> PrefixHashes:
        body = json.dumps({"messages": messages("x[" * (size // 2)), "n": 1, "tools": tools})
        return prefixes(CHAT, asyncio.run(inspect_large(CHAT, body.encode(), locate=True)).members)

    assert len(large([1])) == len(PREFIX_SIZES)
    assert large([1]) == large([1])
    assert not set(large([1])) & set(large([2]))


def test_every_path_has_hashes() -> None:
    for path, fields in PROMPT_FIELDS.items():
        assert len(of(path, **{fields.prompt[-1]: TEXT})) == 2
