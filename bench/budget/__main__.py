"""Run the budget benchmark: `make bench-budget`, from the root of the repository."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.budget.optimum import least_load_seconds, least_wait
from bench.findings import Findings, Gate, Table, at_most, digits
from bench.report import as_json, markdown
from slotkeeper.scaling.budget.observation import Budget
from slotkeeper.scaling.budget.resources import limits
from slotkeeper.simulation.budget.policies import (
    EvictAtOnce,
    SlotkeeperBudget,
    demand_over_load_seconds,
)
from slotkeeper.simulation.budget.simulate import (
    BudgetPolicy,
    BudgetSimulation,
    ModelRequest,
    SimulatedModel,
)
from slotkeeper.simulation.budget.traces import GENERATORS, Scenario
from slotkeeper.simulation.report import percentile

RESULTS = Path(__file__).resolve().parents[1] / "results"
TITLE = "Budget benchmark"
SLOTKEEPER, LRU = "slotkeeper", "LRU"
POLICIES: dict[str, Callable[[], BudgetPolicy]] = {
    SLOTKEEPER: SlotkeeperBudget,
    LRU: EvictAtOnce,
    "demand / load time": lambda: EvictAtOnce(demand_over_load_seconds),
}


@dataclass
class Outcome:
    """The results of one policy on all traces of a scenario."""

    waits: list[float] = field(default_factory=list)
    by_model: dict[str, list[float]] = field(default_factory=dict)
    """The same by model."""
    loads: int = 0
    load_seconds: float = 0.0
    peak_share: float = 0.0
    """The most of the budget that was occupied at one time."""

    @property
    def mean(self) -> float:
        """Seconds of the mean wait."""
        return sum(self.waits) / len(self.waits)

    @property
    def worst_mean(self) -> float:
        """Seconds of the mean wait of the model that waits longest."""
        return max(sum(waits) / len(waits) for waits in self.by_model.values())


def main(argv: Sequence[str]) -> int:
    """Simulate all scenarios and report; return 0 whether or not the gates are met."""
    arguments = _parser().parse_args(argv)
    began = time.monotonic()
    seeds = 1 if arguments.quick else 3
    tables, gates, raw = [], [], {}
    rows = []
    for generator in GENERATORS[-2:] if arguments.quick else GENERATORS:
        scenarios = [generator(Random(f"{generator.__name__} {seed}")) for seed in range(seeds)]
        outcomes = {name: play(scenarios, create) for name, create in POLICIES.items()}
        optimum = sum(
            least_load_seconds(each.models, each.limit, each.requests) for each in scenarios
        )
        name = scenarios[0].name
        rows += _rows(scenarios[0], outcomes, optimum)
        gates += _gates(name, outcomes, optimum)
        raw[name] = {
            policy: [each.loads, each.load_seconds, each.mean, percentile(each.waits, 99)]
            for policy, each in outcomes.items()
        }
    columns = (
        "trace",
        "policy",
        "loads",
        "load time",
        "x in order",
        "mean wait",
        "p99",
        "max",
        "worst model",
    )
    tables.append(
        Table(
            "Long traces",
            columns,
            rows,
            "x in order: load time relative to the least in hindsight with which each request "
            "finds its model loaded, in order. Below 1: several requests waited for one load. "
            "worst model: the mean wait of the model that waits longest.",
        )
    )
    small, small_gates = _small(20 if arguments.quick else 200)
    findings = [Findings("budget", [*tables, small], [*gates, *small_gates], raw=raw)]
    about = {
        "command": " ".join(["python -m bench.budget", *argv]),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}; time is "
        "simulated, so no figure depends on it",
        "commit": _output("git", "describe", "--always", "--dirty"),
        "took": f"{(time.monotonic() - began) / 60:.1f} minutes",
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(TITLE, findings, about)
    (RESULTS / "budget.md").write_text(text)
    (RESULTS / "budget.json").write_text(json.dumps(as_json(findings, about), indent=1))
    print(text)
    return 0


def play(scenarios: Sequence[Scenario], create: Callable[[], BudgetPolicy]) -> Outcome:
    """Return the results of a policy on all traces."""
    outcome = Outcome()
    for each in scenarios:
        budget = Budget(each.limit)
        result = BudgetSimulation(budget, each.models, create()).run(each.requests)
        outcome.waits += result.waits
        for request, wait in zip(each.requests, result.waits, strict=True):
            outcome.by_model.setdefault(request.model, []).append(wait)
        outcome.loads += result.loads
        outcome.load_seconds += result.load_seconds
        outcome.peak_share = max(outcome.peak_share, result.peak.share_of(each.limit))
    return outcome


def _rows(
    scenario: Scenario, outcomes: dict[str, Outcome], optimum: float
) -> list[tuple[str, ...]]:
    return [
        (
            scenario.name if name == SLOTKEEPER else "",
            name,
            str(each.loads),
            f"{each.load_seconds:.0f} s",
            digits(each.load_seconds / optimum),
            f"{each.mean:.1f} s",
            f"{percentile(each.waits, 99):.0f} s",
            f"{max(each.waits):.0f} s",
            f"{each.worst_mean:.0f} s",
        )
        for name, each in outcomes.items()
    ]


def _gates(name: str, outcomes: dict[str, Outcome], optimum: float) -> list[Gate]:
    own, lru = outcomes[SLOTKEEPER], outcomes[LRU]
    return [
        at_most(f"{name}: most of the budget in use", own.peak_share, 1.0),
        at_most(f"{name}: load time, x LRU", own.load_seconds / lru.load_seconds, 1.05),
        at_most(f"{name}: mean wait, x LRU", own.mean / lru.mean, 1.1),
        at_most(f"{name}: load time, x the optimum in order", own.load_seconds / optimum, 2.0),
    ]


def _small(instances: int) -> tuple[Table, list[Gate]]:
    """Compare with the least waits in hindsight, on traces that are short enough for it."""
    totals = dict.fromkeys(POLICIES, 0.0)
    worst = dict.fromkeys(POLICIES, 0.0)
    optimum, count = 0.0, 0
    for seed in range(instances):
        rng = Random(f"small {seed}")
        models = [
            SimulatedModel(f"m{number}", slots=1, load_seconds=rng.choice([1, 5, 20, 60]))
            for number in range(3)
        ]
        times = sorted(rng.uniform(0, 400) for _ in range(15))
        requests = [ModelRequest(at, f"m{rng.randrange(3)}", rng.uniform(1, 15)) for at in times]
        best = least_wait(models, requests)
        optimum += best
        count += len(requests)
        for name, create in POLICIES.items():
            result = BudgetSimulation(Budget(limits(gpus=1)), models, create()).run(requests)
            total = sum(result.waits)
            totals[name] += total
            worst[name] = max(worst[name], total / max(best, 1.0))
    rows = [
        (name, f"{total / count:.1f} s", digits(total / optimum), digits(worst[name]))
        for name, total in totals.items()
    ]
    rows.append(("optimum in hindsight", f"{optimum / count:.1f} s", "1.00", "1.00"))
    title = f"{instances} short traces: 3 models, one fits, one slot, 15 requests in 400 s"
    gate = at_most("short traces: mean wait, x the optimum", totals[SLOTKEEPER] / optimum, 2.0)
    return Table(title, ("policy", "mean wait", "x optimum", "worst x"), rows), [gate]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.budget", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="smoke test: two traces, one seed, 20 short traces"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
