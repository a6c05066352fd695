"""The tables in the reference are those of the agent."""

from documents import DOCS, codes, section, table
from slotkeeper.prompt_files.main import _parser
from slotkeeper.prompt_files.metrics import Metrics
from slotkeeper.prompt_files.policy import Reason

COMMAND_LINE = (DOCS / "reference/command-line.md").read_text()
METRICS = (DOCS / "reference/metrics.md").read_text()


def test_the_flags_are_complete() -> None:
    rows = table(section(COMMAND_LINE, "## Prompt files"), "flag", "default", "meaning")
    shared = {"-h", "--log-format", "--log-level"}
    actions = [each for each in _parser()._actions if not shared & {*each.option_strings}]

    assert len(rows) == len(actions)
    for (flag, default, _), action in zip(rows, actions, strict=True):
        name, _, metavar = codes(flag)[0].partition(" ")
        assert ([name], metavar) == (action.option_strings, action.metavar or "")
        if action.required:
            assert default == "required"
        elif action.default:
            assert default.strip("`") == str(action.default)


def test_the_metrics_are_complete() -> None:
    rows = table(section(METRICS, "## Prompt files"), "metric", "type", "labels", "meaning")

    assert {(codes(row[0])[0], row[1]) for row in rows} == {
        (f"{metric.name}{'_total' * (metric.type == 'counter')}", metric.type)
        for metric in Metrics(1).registry.collect()
    }
    [reasons] = [row[3] for row in rows if "`reason`" in row[2]]
    assert {*Reason} <= {*codes(reasons)}
