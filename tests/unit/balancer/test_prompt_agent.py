import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_slots import IDENTITY, META, FakeAgent
from slotkeeper.balancer.prompts.agent import Agent, AgentError, parse_listing
from slotkeeper.balancer.prompts.compatibility import compatibility
from slotkeeper.llamacpp import slot_files
from slotkeeper.scheduling.prompt_files import PromptFile

NAME = "ab" * 16
FILE: dict[str, Any] = {
    "name": NAME,
    "bytes": 100,
    "tokens": 7,
    "prefixes": [1, 2],
    "compatible": "cd" * 16,
    "savedAt": 1_700_000_000,
}
PROMPT_FILE = PromptFile(NAME, 100, 7, (1, 2), "cd" * 16)


def listing(*files: object) -> bytes:
    return json.dumps({"identity": IDENTITY, "files": list(files)}).encode()


def test_a_list_of_files_is_parsed() -> None:
    parsed = parse_listing(listing(FILE))

    assert (parsed.identity, parsed.files) == (IDENTITY, (PROMPT_FILE,))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"name": ""},
        {"compatible": 5},
        {"compatible": "a" * 65},
        {"prefixes": "12"},
        {"prefixes": [1.5]},
        {"prefixes": [-1]},
        {"prefixes": list(range(17))},
        {"bytes": True},
        {"tokens": None},
        {"tokens": 2**63},
    ],
)
def test_a_malformed_entry_is_left_out(change: dict[str, Any]) -> None:
    assert parse_listing(listing(FILE | change, 5, FILE)).files == (PROMPT_FILE,)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"identity": 5, "files": []}'])
def test_a_malformed_list_is_rejected(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_listing(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["identity", "files", *FILE]), inner)
        ),
        max_leaves=12,
    )
)
def test_no_json_raises_another_error(tree: object) -> None:
    try:
        parse_listing(json.dumps(tree).encode())
    except ValueError:
        return


async def test_a_long_list_is_parsed_too(tmp_path: Path) -> None:
    async with FakeAgent(tmp_path) as fake:
        for number in range(600):
            name = f"{number:032x}"
            (tmp_path / name).touch()
            fake.records[name] = FILE | {"name": name}
        parsed = await Agent("127.0.0.1", fake.port, 5.0).files()

    assert len(parsed.files) == 600


async def test_an_agent_that_does_not_respond_is_an_os_error(tmp_path: Path) -> None:
    async with FakeAgent(tmp_path) as fake:
        port = fake.port
    with pytest.raises(OSError, match=r"."):
        await Agent("127.0.0.1", port, 5.0).files()


async def test_an_error_of_an_agent_has_its_status(tmp_path: Path) -> None:
    async with FakeAgent(tmp_path) as fake:
        with pytest.raises(AgentError) as caught:
            await Agent("127.0.0.1", fake.port, 5.0).use(NAME)

    assert caught.value.status == 404


# What must be equal.


def props(build: object = "b1") -> bytes:
    return json.dumps({"build_info": build}).encode()


def models(**changes: object) -> bytes:
    return json.dumps({"data": [{"id": "x", "meta": META | changes}]}).encode()


def test_each_part_decides_what_can_be_restored() -> None:
    base = compatibility(IDENTITY, models(), props(), 512)
    others = [
        compatibility("fedcba9876543210", models(), props(), 512),
        compatibility(IDENTITY, models(n_params=1), props(), 512),
        compatibility(IDENTITY, models(size=1), props(), 512),
        compatibility(IDENTITY, models(), props("b2"), 512),
        compatibility(IDENTITY, models(), props(), 513),
    ]

    assert base == compatibility(IDENTITY, models(n_ctx_train=1), props(), 512)
    assert len({base, *others}) == 6
    assert base
    assert len(base) == 32


@pytest.mark.parametrize(
    ("of_models", "of_props", "context"),
    [
        (b"{}", props(), 512),
        (models(n_params=None), props(), 512),
        (models(), b"no json", 512),
        (models(), props(5.5), 512),
        (models(), props(), 0),
    ],
)
def test_without_a_part_nothing_can_be_restored(
    of_models: bytes, of_props: bytes, context: int
) -> None:
    assert compatibility(IDENTITY, of_models, of_props, context) is None


# llama-server's responses.


def test_the_responses_of_save_and_restore_are_parsed() -> None:
    saved = b'{"id_slot":0,"filename":"x","n_saved":5,"n_written":9,"timings":{"save_ms":1.5}}'

    assert slot_files.parse_saved(saved) == (5, 9)
    assert slot_files.parse_restored(b'{"n_restored":5,"n_read":9}') == (5, 9)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"n_saved":true,"n_written":1}', b'{"n_saved":1,"n_written":-1}']
)
def test_a_malformed_response_is_rejected(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        slot_files.parse_saved(body)
