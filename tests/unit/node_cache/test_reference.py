"""The tables in the reference are those of the agent."""

from prometheus_client import CollectorRegistry

from chart import described_values
from documents import DOCS, codes, section, table
from slotkeeper.node_cache.main import _parser
from slotkeeper.node_cache.metrics import Metrics
from slotkeeper.node_folder import Limits

COMMAND_LINE = (DOCS / "reference/command-line.md").read_text()
METRICS = (DOCS / "reference/metrics.md").read_text()


def test_the_flags_are_complete() -> None:
    rows = table(
        section(COMMAND_LINE, "## Node cache"), "flag", "default", "chart value, if it has one"
    )
    shared = {"-h", "--log-format", "--log-level"}
    actions = [each for each in _parser()._actions if not shared & {*each.option_strings}]

    assert len(rows) == len(actions)
    for (flag, default, value), action in zip(rows, actions, strict=True):
        name, _, metavar = codes(flag)[0].partition(" ")
        assert ([name], metavar) == (action.option_strings, action.metavar or "")
        if action.required:
            assert default == "required"
        elif action.default:
            number = isinstance(action.default, int | float)
            expected = f"{action.default:g}" if number else action.default
            assert default.strip("`") == expected
        assert {*codes(value)} <= {each.path for each in described_values()}


def test_the_metrics_are_complete() -> None:
    registry = CollectorRegistry()
    Metrics(registry, Limits(1, 0))
    rows = table(section(METRICS, "## Node cache"), "metric", "type", "labels", "meaning")

    assert {(codes(row[0])[0], row[1]) for row in rows} == {
        (f"{metric.name}{'_total' * (metric.type == 'counter')}", metric.type)
        for metric in registry.collect()
    }
