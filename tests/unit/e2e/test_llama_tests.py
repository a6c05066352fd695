"""llama.cpp's own tests of llama-server: the documented differences, and how outcomes compare."""

import re

from documents import DOCS, section, table
from llama_tests import DIFFERENCES, FILES_LEFT_OUT, IMAGE, LEFT_OUT, differences, failures
from stack import LLAMA_SERVER, ROOT

HEADER = ("what", "llama-server", "here", "why")

OUTCOMES = {
    "same": ("passed", "passed"),
    "differs": ("passed", "assert 404 == 200"),
    "fails": ("assert 1 == 2", "assert 1 == 2"),
    "skipped": ("skipped", "skipped"),
    "skipped through it": ("passed", "skipped"),
}


def test_a_test_that_passes_only_without_the_balancer_is_a_difference() -> None:
    assert differences(OUTCOMES) == {
        "differs": "assert 404 == 200",
        "skipped through it": "skipped",
    }


def test_a_test_that_fails_without_the_balancer_is_a_failure() -> None:
    assert failures(OUTCOMES) == {"fails": "assert 1 == 2"}


def test_each_accepted_difference_is_documented() -> None:
    text = (DOCS / "reference/http-api.md").read_text()
    rows = {row[0] for row in table(section(text, "## Differences from llama-server"), *HEADER)}

    assert set(DIFFERENCES.values()) <= rows


def test_no_accepted_difference_is_left_out() -> None:
    files = {test.partition("::")[0].removeprefix("unit/") for test in DIFFERENCES}

    assert not set(DIFFERENCES) & set(LEFT_OUT)
    assert not files & set(FILES_LEFT_OUT)


def test_the_tests_run_with_the_llama_server_of_the_other_tests() -> None:
    containerfile = (ROOT / IMAGE.containerfile).read_text()

    assert f"LLAMA_SERVER=docker.io/{LLAMA_SERVER.reference}" in IMAGE.arguments
    assert re.findall("^FROM (.*)", containerfile, re.MULTILINE) == ["${LLAMA_SERVER}"]
