"""`make goldens` writes the goldens; `git diff` then shows what changed."""

from pathlib import Path

import pytest

from goldens import COMPLETE, existing_files, golden_files
from llamagateways import gateway_cases
from llamaservers import EXAMPLES, GOLDEN, golden_cases


@pytest.mark.parametrize(
    ("path", "text"), golden_files().items(), ids=[path.parent.name for path in golden_files()]
)
def test_a_resource_has_its_golden_manifests(path: Path, text: str) -> None:
    assert path.read_text() == text, "run `make goldens`"


def test_no_golden_is_missing_or_superfluous() -> None:
    assert existing_files() == set(golden_files()), "run `make goldens`"


def test_each_folder_is_a_case() -> None:
    folders = {path.name for path in GOLDEN.iterdir() if path.is_dir()} - {"__pycache__"}

    assert folders == {case.name for case in [*golden_cases(), *gateway_cases()]}
    assert folders > COMPLETE


def test_each_example_has_a_golden() -> None:
    servers = {(case / "server.yaml").resolve() for case in golden_cases()}
    gateways = {(case / "gateway.yaml").resolve() for case in gateway_cases()}

    assert set(EXAMPLES.glob("*.yaml")) <= servers | gateways


def test_a_difference_is_shown_with_its_path() -> None:
    lines = golden_files()[GOLDEN / "scale-to-zero" / "manifests.diff"].splitlines()

    hunk = lines.index("@@ spec @@")
    assert lines[hunk - 1] == "+++ scale-to-zero: Deployment minimal-replicas"
    assert lines[hunk + 3 : hunk + 5] == ["-  replicas: 1", "+  replicas: 0"]
