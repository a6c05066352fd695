"""The tables of docs/troubleshooting.md are those of the code."""

import pytest

from documents import codes, section, table
from slotkeeper.llamacpp.diagnosis.diagnose import TABLE
from slotkeeper.llamacpp.diagnosis.page import PAGE, rendered, tables
from slotkeeper.llamacpp.known_builds import known_ids


def test_the_page_is_generated_from_the_tables() -> None:
    text = PAGE.read_text()

    assert rendered(text) == text


def test_each_diagnosis_has_its_row() -> None:
    text = PAGE.read_text()
    rows = [
        row
        for heading in ("## GPUs", "## Replicas", "## Builds of images")
        for row in table(
            section(text, heading),
            *("reason", "what the log, the event or the exit code shows"),
            *("meaning", "what to do"),
        )
    ]

    assert {code for row in rows for code in codes(row[0])} == {row.reason for row in TABLE}
    assert all(len(row) == 4 for row in rows)


def test_each_advisory_is_listed() -> None:
    text = section(PAGE.read_text(), "## Known vulnerable builds")

    assert all(each in text for each in known_ids())


def test_a_page_without_the_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no marks of the table 'accelerator'"):
        rendered("# Another page")
    assert len(tables()) == 4
