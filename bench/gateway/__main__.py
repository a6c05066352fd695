"""Runs the benchmark: `python -m bench.gateway`, from the root of the repository."""

import sys

from bench.command import Benchmark
from bench.gateway import measure_bodies, measure_requests, measure_streams
from bench.gateway.systems import versions

BENCHMARK = Benchmark(
    "gateway",
    "The gateway compared with the balancer alone and with other gateways",
    "Compare the gateway with the balancer alone, and with the other gateways that are installed. "
    "Each round measures all of them; results are medians over the rounds.",
    {
        "requests": measure_requests.measure,
        "streams": measure_streams.measure,
        "bodies": measure_bodies.measure,
    },
    versions,
)


if __name__ == "__main__":
    sys.exit(BENCHMARK.run(sys.argv[1:]))
