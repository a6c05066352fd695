from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_tools import FakeTools
from model_host import ModelHost, model_host


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    folder = tmp_path / "tools"
    (folder / "bin").mkdir(parents=True)
    tools = FakeTools(folder)
    tools.fail()
    tools.stored_in("/elsewhere")
    monkeypatch.setenv("PATH", str(folder / "bin"))
    return tools


@pytest.fixture
def host() -> Iterator[ModelHost]:
    with model_host() as host:
        yield host
