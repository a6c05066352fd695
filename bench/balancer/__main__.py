"""Runs the benchmark: `python -m bench.balancer`, from the root of the repository."""

import shutil
import sys
from collections.abc import Sequence

from bench.balancer import (
    measure_bodies,
    measure_changes,
    measure_memory,
    measure_prefix_cache,
    measure_queue,
    measure_requests,
    measure_streams,
)
from bench.command import Benchmark, first_line


def versions() -> str:
    """Return the versions of the other proxies."""
    nginx = first_line("nginx", "-v").rpartition("/")[2]
    haproxy = first_line("haproxy", "-v").split()[2]
    return f"nginx {nginx}, HAProxy {haproxy}"


BENCHMARK = Benchmark(
    "balancer",
    "The balancer compared with other proxies",
    "Compare the balancer with nginx, HAProxy, random and round-robin choice, and direct "
    "connections. Each round measures all of them; results are medians over the rounds.",
    {
        "requests": measure_requests.measure,
        "streams": measure_streams.measure,
        "queue": measure_queue.measure,
        "prefix-cache": measure_prefix_cache.measure,
        "changes": measure_changes.measure,
        "bodies": measure_bodies.measure,
        "memory": measure_memory.measure,
    },
    versions,
)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; return 1 if a program is missing."""
    missing = [name for name in ("nginx", "haproxy") if not shutil.which(name)]
    if missing:
        print(
            f"missing: {', '.join(missing)}. Install with: "
            "apt-get install --no-install-recommends nginx-light haproxy",
            file=sys.stderr,
        )
        return 1
    return BENCHMARK.run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
