import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from download_world import FINISHED, World
from model_host import GGUF, OTHER, SHA256, ModelHost, content, status


def test_a_model_is_put_in_place_with_a_record(host: ModelHost, world: World) -> None:
    host.answers(content())

    receipt = world.fetch(host.url, SHA256)

    assert world.path.read_bytes() == GGUF
    assert world.left == FINISHED
    assert (receipt.url, receipt.sha256, receipt.size) == (host.url, SHA256, len(GGUF))
    assert host.asked[0]["Accept-Encoding"] == "identity"


def test_a_complete_model_is_not_downloaded_again(host: ModelHost, world: World) -> None:
    host.answers(content())
    first = world.fetch(host.url)

    host.answers(status(404))

    assert world.fetch(host.url) == first
    assert world.fetch(host.url, SHA256) == first
    assert host.asked == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(GGUF[:-1]), id="shorter"),
        pytest.param(lambda path: _write_later(path, GGUF[:-1] + b"?"), id="another byte"),
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.with_name("model.gguf.json").unlink(), id="no receipt"),
        pytest.param(
            lambda path: path.with_name("model.gguf.json").write_text("{}"), id="empty receipt"
        ),
    ],
)
def test_a_complete_model_that_fails_verification_is_downloaded_again(
    host: ModelHost, world: World, spoil: Callable[[Path], object]
) -> None:
    host.answers(content())
    world.fetch(host.url, SHA256)
    spoil(world.path)

    world.fetch(host.url, SHA256)

    assert len(host.asked) == 2
    assert world.path.read_bytes() == GGUF


def test_a_complete_model_of_another_size_is_downloaded_again_even_without_a_checksum(
    host: ModelHost, world: World
) -> None:
    host.answers(content())
    world.fetch(host.url)
    world.path.write_bytes(GGUF[:-1])

    world.fetch(host.url)

    assert world.path.read_bytes() == GGUF


def test_an_obsolete_model_is_removed_even_if_the_new_one_fails(
    host: ModelHost, world: World
) -> None:
    host.answers(content(OTHER), status(404))
    world.fetch(host.url + "?1")

    world.fails(host.url + "?2")

    assert world.left & FINISHED == set()


def test_a_model_of_another_url_is_replaced(host: ModelHost, world: World) -> None:
    host.answers(content(OTHER), content())
    world.fetch(host.url + "?1")

    world.fetch(host.url + "?2")

    assert world.path.read_bytes() == GGUF
    assert world.left == FINISHED


def test_a_modified_file_is_verified_again_once(host: ModelHost, world: World) -> None:
    host.answers(content())
    first = world.fetch(host.url, SHA256)
    _write_later(world.path, GGUF)

    again = world.fetch(host.url, SHA256)

    assert len(host.asked) == 1
    assert again == replace(first, modified=world.path.stat().st_mtime_ns)
    assert json.loads(world.path.with_name("model.gguf.json").read_text()) == asdict(again)


def test_the_same_content_from_another_url_is_not_downloaded_again(
    host: ModelHost, world: World
) -> None:
    host.answers(content())
    world.fetch(host.url + "?signature=1", SHA256)

    world.fetch(host.url + "?signature=2", SHA256)

    assert len(host.asked) == 1


def _write_later(path: Path, text: bytes) -> None:
    """Write a file again, a second after it was written first."""
    then = path.stat().st_mtime_ns
    path.write_bytes(text)
    os.utime(path, ns=(then, then + 10**9))
