"""Runs one measurement in the cluster's network and prints the result as JSON.

e2e/cluster --name bench run python -m bench.reconcile.run_in_cluster operator --servers 100 …
"""

import argparse
import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.reconcile import measure_baseline, measure_operator
from bench.reconcile.servers import servers
from bench.reconcile.testbed import prepare, running, wait_until_accepted
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.kinds import LLAMA_SERVERS


async def main(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one system; return the result as a tree."""
    options.logs.mkdir(parents=True, exist_ok=True)
    with running(options.logs, options.kwok, os.environ["KUBECONFIG"]):
        await prepare(options.kubectl)
        async with await ApiCluster.connect("bench") as cluster:
            first = servers(1)[0]
            await wait_until_accepted(cluster, first)
            await cluster.delete(
                LLAMA_SERVERS, first["metadata"]["namespace"], first["metadata"]["name"]
            )
            if options.system == "baseline":
                return asdict(await measure_baseline.measure(cluster, options.servers))
            scale = measure_operator.Scale(options.servers, options.edits, options.idle_seconds)
            return asdict(
                await measure_operator.measure(cluster, scale, options.audit_log, options.logs)
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.reconcile.run_in_cluster", description=__doc__
    )
    parser.add_argument("system", choices=("baseline", "operator"))
    parser.add_argument("--servers", type=int, required=True, help="number of LlamaServers")
    parser.add_argument("--edits", type=int, default=0, help="number of edits")
    parser.add_argument(
        "--idle-seconds", type=float, default=0, help="duration of the idle measurement"
    )
    parser.add_argument("--kwok", required=True, help="path of kwok")
    parser.add_argument("--kubectl", required=True, help="path of kubectl")
    parser.add_argument("--audit-log", type=Path, required=True, help="the API server's audit log")
    parser.add_argument("--logs", type=Path, required=True, help="folder for logs")
    return parser


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(_parser().parse_args()))))
