"""One run, inside of the cluster's network: prints what it found as JSON.

e2e/cluster --name bench run python -m bench.reconcile.inside ours --servers 100 …
"""

import argparse
import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.reconcile import floor, ours
from bench.reconcile.bed import prepare, running, until_taken
from bench.reconcile.servers import servers
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.kinds import LLAMA_SERVERS


async def main(given: argparse.Namespace) -> dict[str, Any]:
    """Measure one system; its findings as a tree."""
    given.logs.mkdir(parents=True, exist_ok=True)
    with running(given.logs, given.kwok, os.environ["KUBECONFIG"]):
        await prepare(given.kubectl)
        async with await ApiCluster.connect("bench") as cluster:
            first = servers(1)[0]
            await until_taken(cluster, first)
            await cluster.delete(
                LLAMA_SERVERS, first["metadata"]["namespace"], first["metadata"]["name"]
            )
            if given.system == "floor":
                return asdict(await floor.measure(cluster, given.servers))
            scale = ours.Scale(given.servers, given.edits, given.rest)
            return asdict(await ours.measure(cluster, scale, given.audit, given.logs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.reconcile.inside", description=__doc__)
    parser.add_argument("system", choices=("floor", "ours"))
    parser.add_argument("--servers", type=int, required=True)
    parser.add_argument("--edits", type=int, default=0)
    parser.add_argument("--rest", type=float, default=0, help="seconds")
    parser.add_argument("--kwok", required=True)
    parser.add_argument("--kubectl", required=True)
    parser.add_argument("--audit", type=Path, required=True, help="the API server's log")
    parser.add_argument("--logs", type=Path, required=True)
    return parser


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(_parser().parse_args()))))
