"""`python tests/support/llamaservers.py` writes the goldens anew; `git diff` shows what changed."""

from pathlib import Path

import pytest

from llamaservers import EXAMPLES, golden_cases, golden_text


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)
def test_a_server_gives_its_golden_manifests(case: Path) -> None:
    assert golden_text(case) == (case / "manifests.yaml").read_text()


def test_each_example_has_a_golden() -> None:
    golden = {(case / "server.yaml").resolve() for case in golden_cases()}

    assert set(EXAMPLES.glob("*.yaml")) <= golden
