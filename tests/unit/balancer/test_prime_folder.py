"""Beginnings of prompts in a mounted ConfigMap."""

from pathlib import Path

import pytest

from slotkeeper.balancer.priming.beginnings import MAX_BYTES, Beginning
from slotkeeper.balancer.priming.folder import MAX_FILES, Found, PromptFolder

CHAT = '{"messages": [{"role": "system", "content": "Be brief."}], "stream": true}'


class Reader:
    """A folder, and what was reported of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = PromptFolder(path, lambda *change: self.changes.append(change))
        self.changes: list[tuple[Found, str]] = []

    async def read(self) -> tuple[Found, str]:
        await self.folder.check()
        return self.changes[-1]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


async def test_the_keys_are_in_the_order_of_their_names(reader: Reader) -> None:
    (reader.path / "20-text").write_text("You write release notes.")
    (reader.path / "10-chat.json").write_text(CHAT)
    (reader.path / "..data").mkdir()

    found, problem = await reader.read()

    assert problem == ""
    assert list(found) == ["key 10-chat.json", "key 20-text"]
    chat, text = found.values()
    assert isinstance(chat, Beginning)
    assert isinstance(text, Beginning)
    # Two continuations, by the user whose turn it is.
    first, second = (prompt.content for prompt in chat.prompts)
    assert "stream" not in first
    assert [each["role"] for each in first["messages"]] == ["system", "user"]
    assert first["messages"][0] == second["messages"][0]
    assert first["messages"][1] != second["messages"][1]


async def test_a_key_that_is_only_an_ending_is_a_chat(reader: Reader) -> None:
    (reader.path / ".json").write_text("{")
    found, _ = await reader.read()
    assert "it is not JSON" in str(found["key .json"])


async def test_only_changes_are_reported(reader: Reader) -> None:
    (reader.path / "a").write_text("text")
    await reader.read()
    await reader.read()
    assert len(reader.changes) == 1
    (reader.path / "a").write_text("another text")
    await reader.read()
    assert len(reader.changes) == 2


async def test_what_cannot_be_used_is_reported_by_its_key(reader: Reader) -> None:
    (reader.path / "a.json").write_text("{")
    (reader.path / "b").write_bytes(b"\xff")
    (reader.path / "c").write_text("a" * (MAX_BYTES + 1))
    (reader.path / "d").write_text("")

    found, _ = await reader.read()

    reasons = {key: str(each) for key, each in found.items()}
    assert reasons.pop("key a.json").startswith("it is not JSON")
    assert reasons == {
        "key b": "it is not text in UTF-8",
        "key c": f"it has more than {MAX_BYTES} bytes",
        "key d": "it is empty",
    }


async def test_the_number_of_keys_is_bounded(reader: Reader) -> None:
    for number in range(MAX_FILES + 3):
        (reader.path / f"{number:03}").write_text("text")
    found, _ = await reader.read()
    assert sum(isinstance(each, Beginning) for each in found.values()) == MAX_FILES
    assert found[f"key {MAX_FILES:03}"] == f"only the first {MAX_FILES} keys are used"


async def test_a_missing_folder_is_reported_once_and_read_when_it_exists(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "prompts")
    for _ in range(2):
        found, problem = await reader.read()
        assert (found, problem) == ({}, "No such file or directory")
    assert len(reader.changes) == 1
    reader.path.mkdir()
    assert await reader.read() == ({}, "")


async def test_a_chat_whose_last_turn_is_the_users_is_continued_by_an_answer(
    reader: Reader,
) -> None:
    (reader.path / "a.json").write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
    [(_, found)] = (await reader.read())[0].items()
    assert isinstance(found, Beginning)
    roles = [each["role"] for each in found.prompts[0].content["messages"]]
    assert roles == ["user", "assistant", "user"]
