"""A pytest plugin for llama.cpp's tests of llama-server: local models, and results as JSON lines.

No test is changed. Replaced are downloads (by the module `wget`, and by the start of every preset
before the tests), and the comparison of generated text: the text of a model with random weights is
noise, and only its way to the client is tested.
"""

import json
import os
import shutil
import sys
import types
from pathlib import Path

import pytest

RESULTS = "SUITE_RESULTS"
"""Environment variable with the path of the file for the results."""

MESSAGE = 500
"""Maximum length of a failure's message."""


def _download(url: str, out: str) -> None:
    shutil.copy(f"/models/quick{'-lora' if 'shakespeare' in url else ''}.gguf", out)


sys.modules["wget"] = types.ModuleType("wget")
vars(sys.modules["wget"])["download"] = _download


def pytest_sessionstart() -> None:
    """Patch the suite's helpers, after they were imported and before the tests import them."""
    utils = sys.modules["utils"]
    utils.ServerPreset.load_all = lambda: None
    vars(utils)["match_regex"] = lambda _pattern, _text: True


class _Results:
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self._record(report, crash.message if crash else report.longreprtext)
        elif report.skipped or report.when == "call":
            self._record(report, report.outcome)

    def _record(self, report: pytest.TestReport, outcome: str) -> None:
        line = {"test": report.nodeid, "outcome": outcome[:MESSAGE]}
        with Path(os.environ[RESULTS]).open("a") as file:
            file.write(json.dumps(line) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--leave-out`."""
    parser.addoption("--leave-out", action="append", default=[], help="test not to run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remove the tests of `--leave-out`.

    `FILE::TEST` is a test with all of its parameters, `FILE::TEST[PREFIX` with the parameters that
    begin with PREFIX. pytest's `--deselect` would also remove every test whose name begins with
    TEST.
    """
    names: list[str] = config.getoption("--leave-out")
    beginnings = tuple(name if "[" in name else f"{name}[" for name in names)
    items[:] = [
        item
        for item in items
        if item.nodeid not in names and not item.nodeid.startswith(beginnings)
    ]


def pytest_configure(config: pytest.Config) -> None:
    """Record the results of all tests."""
    config.pluginmanager.register(_Results(), "slotkeeper-results")
