"""Run llama.cpp's tests of llama-server twice: directly, and through a balancer.

    python -m compare --file test_router.py --test unit/test_basic.py::test_no_ui

The options leave out files and tests. Prints a line of JSON for each test: its name, and its
outcome directly and through the balancer: `passed`, `skipped`, or the failure's message.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SERVE = Path(__file__).with_name("serve.py")
THROUGH_BALANCER = {"SUITE_THROUGH_BALANCER": "1"}


def outcomes(left_out: Sequence[str], environment: dict[str, str]) -> dict[str, str]:
    """Return the outcome of each test. Raises RuntimeError if pytest could not run them."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.touch()
        finished = subprocess.run(
            [*(sys.executable, "-m", "pytest", "-p", "suite_plugin"), *left_out],
            env=os.environ
            | {"LLAMA_SERVER_BIN_PATH": str(SERVE), "SUITE_RESULTS": str(results)}
            | environment,
            check=False,
            capture_output=True,
            text=True,
        )
        # 1: some tests failed.
        if finished.returncode not in {0, 1}:
            raise RuntimeError(f"pytest: {finished.stdout[-4000:]}{finished.stderr[-4000:]}")
        lines = [json.loads(line) for line in results.read_text().splitlines()]
    # A test that fails has a second line if its teardown fails too: keep the first.
    return {line["test"]: line["outcome"] for line in reversed(lines)}


def main() -> None:
    """Parse the command line, run the tests, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", action="append", default=[], help="file to leave out; repeatable")
    parser.add_argument("--test", action="append", default=[], help="test to leave out; repeatable")
    options = parser.parse_args()
    left_out = [
        *(f"--ignore=unit/{file}" for file in options.file),
        *(f"--leave-out={test}" for test in options.test),
        # Warnings are those of libraries in this Python, and no failures.
        *("-W", "ignore", "-p", "no:cacheprovider", "--tb=short", "-q"),
    ]
    direct = outcomes(left_out, {})
    through = outcomes(left_out, THROUGH_BALANCER)
    for test, outcome in direct.items():
        print(json.dumps([test, outcome, through.get(test, "missing")]))


if __name__ == "__main__":
    main()
