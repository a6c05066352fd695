from pathlib import Path

import pytest

from step_scripts import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")
