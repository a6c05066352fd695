import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_states import state
from slotkeeper.prompt_files.state_file import HEAD_BYTES, MAGIC, PACKED, find_problem


def problem(content: bytes, tokens: int = 10, *, size: int | None = None) -> str | None:
    return find_problem(content[:HEAD_BYTES], len(content) if size is None else size, tokens)


def head(*numbers: int) -> bytes:
    return struct.pack("=6I", *numbers)


@given(st.integers(1, 5000))
def test_the_state_of_a_slot_is_accepted(tokens: int) -> None:
    assert problem(state(tokens, 4 * tokens + 100), tokens) is None


@pytest.mark.parametrize("tokens", [9, 11])
def test_another_number_of_tokens_is_not_that_file(tokens: int) -> None:
    assert problem(state(10), tokens) == f"10 tokens instead of {tokens}"


def test_a_plain_list_is_of_a_build_that_keeps_checkpoints_of_other_prompts() -> None:
    assert "does not restore slots safely" in (problem(state(10, packed=False)) or "")


def test_a_packed_list_may_have_media() -> None:
    assert problem(head(MAGIC, 4, 90, PACKED, 1, 10), size=1000) is None


def test_of_a_later_packed_list_only_the_size_is_checked() -> None:
    assert problem(head(MAGIC, 4, 20, PACKED, 2, 0), size=1000) is None
    assert problem(head(MAGIC, 4, 13, PACKED, 2, 0), size=1000)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(state()[: HEAD_BYTES - 1], id="cut in the head"),
        pytest.param(state()[:60], id="cut in the tokens"),
        pytest.param(state(10, 68), id="cut after the tokens"),
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(b"GGUF" + state()[4:], id="another format"),
        pytest.param(head(MAGIC, 0, 10, 0, 1, 2) + bytes(976), id="version 0"),
        pytest.param(head(MAGIC, 100, 10, 0, 1, 2) + bytes(976), id="version 100"),
        pytest.param(head(MAGIC, 4, 2**32 - 1, 0, 1, 2) + bytes(976), id="too many tokens"),
    ],
)
def test_anything_else_has_a_problem(content: bytes) -> None:
    assert problem(content)


@given(st.binary(max_size=64), st.integers(0, 2**50), st.integers(1, 2**31))
def test_any_bytes_can_be_checked(content: bytes, size: int, tokens: int) -> None:
    find_problem(content[:HEAD_BYTES], size, tokens)
