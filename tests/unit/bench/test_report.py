import json

from bench.findings import Findings, Gate, Table, at_least, at_most, digits
from bench.report import as_json, markdown

FINDINGS = [
    Findings(
        "queue",
        tables=[Table("Queueing time", ("system", "ms"), [("ours", "2.00")], "An explanation.")],
        gates=[at_most("wait", 2.0, 5, "ms"), at_least("hits", 0.2, 0.9)],
        raw={"ours": [{"ms": 2.0}]},
    ),
    Findings("prefix-cache", gates=[Gate("other", "0", "-", None)]),
]


def test_a_report_contains_each_table_and_the_gates_at_the_end() -> None:
    text = markdown("A bench", FINDINGS, {"machine": "2 cores"})

    assert "- machine: 2 cores\n" in text
    assert "| system | ms |\n|---|---|\n| ours | 2.00 |\n\nAn explanation.\n" in text
    assert text.index("## Queueing time") < text.index("## Gates")


def test_a_missed_gate_is_marked() -> None:
    text = markdown("A bench", FINDINGS, {})

    assert "| wait | <= 5 ms | 2.00 ms | met |" in text
    assert "| hits | >= 0.9 | 0.200 | **missed** |" in text
    assert "| other | 0 | - | not measured |" in text


def test_the_json_contains_every_sample() -> None:
    tree = json.loads(json.dumps(as_json(FINDINGS, {"machine": "2 cores"})))

    assert tree["environment"] == {"machine": "2 cores"}
    assert tree["measures"][0]["raw"] == {"ours": [{"ms": 2.0}]}


def test_a_gate_is_met_at_its_bound() -> None:
    assert at_most("wait", 5.0, 5).met
    assert at_least("hits", 0.9, 0.9).met


def test_numbers_have_three_significant_digits() -> None:
    assert [digits(value) for value in (0, 0.1234, 1.234, 12.34, 1234.5)] == [
        "0",
        "0.123",
        "1.23",
        "12.34",
        "1234",
    ]
