"""Runs the benchmark: `python -m bench.preemption`, from the root of the repository."""

import sys

from bench.command import Benchmark
from bench.preemption import measure_latency

BENCHMARK = Benchmark(
    "preemption",
    "Interactive requests beside a batch",
    "Measure the latency of interactive requests without a batch, and with one on all slots that "
    "they leave. Each round measures all cases; results are medians over the rounds.",
    {"latency": measure_latency.measure},
    lambda: "",
)


if __name__ == "__main__":
    sys.exit(BENCHMARK.run(sys.argv[1:]))
