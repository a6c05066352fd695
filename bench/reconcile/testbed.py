"""The testbed in the cluster's network: fake nodes, fake balancers, the CRD and namespaces."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from bench.reconcile.servers import NAMESPACES, namespace
from slotkeeper.api.crd import crd
from slotkeeper.api.definitions import DEFINITIONS
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import ApiError, Kind, Manifest

NODES = 20
PODS_RANGE = "10.250.0.0/16"
OPERATOR_NAMESPACE = "slotkeeper-system"

_FAKE = "kwok.x-k8s.io/node"
_CAPACITY = {"cpu": "512", "memory": "4Ti", "pods": "1000", "nvidia.com/gpu": "512"}
_GPU_LABELS = {"nvidia.com/gpu.compute.major": "7", "nvidia.com/gpu.compute.minor": "5"}

NODE_KIND = Kind("", "v1", "nodes", "Node")
NAMESPACE_KIND = Kind("", "v1", "namespaces", "Namespace")


@contextmanager
def running(logs: Path, kwok: str, kubeconfig: str) -> Iterator[None]:
    """Run kwok and the fake balancers inside of the `with`."""
    # Makes each fake pod's address a local one, on which the fake balancers listen.
    subprocess.run(["ip", "route", "replace", "local", PODS_RANGE, "dev", "lo"], check=True)
    with ExitStack() as stack:
        stack.enter_context(
            process(logs / "balancers.log", *python("bench.reconcile.fake_balancers"))
        )
        stack.enter_context(
            process(
                logs / "kwok.log",
                kwok,
                f"--kubeconfig={kubeconfig}",
                f"--manage-nodes-with-annotation-selector={_FAKE}=fake",
                f"--cidr={PODS_RANGE}",
                # Without Leases, kwok's node heartbeats are up to 45 s apart, and more on a busy
                # machine; after 50 s without one, all pods of a node are marked not ready.
                "--node-lease-duration-seconds=40",
            )
        )
        yield


def python(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a Python module."""
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process inside of the `with`, with its output in `log`."""
    with log.open("ab") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(timeout=20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


async def prepare(kubectl: str) -> None:
    """Create the CRDs, the namespaces and the fake nodes; cordon the real node."""
    crds = list(map(crd, DEFINITIONS))
    manifests = [*crds, *map(_namespace, (*_namespaces(), OPERATOR_NAMESPACE))]
    manifests += [_node(index) for index in range(NODES)]
    await _kubectl(kubectl, "apply", "--server-side", "-f", "-", stdin=manifests)
    await _kubectl(kubectl, "cordon", "node0")
    names = [f"crd/{each['metadata']['name']}" for each in crds]
    await _kubectl(kubectl, "wait", "--for=condition=Established", *names)


def _namespaces() -> list[str]:
    return [namespace(index) for index in range(NAMESPACES)]


async def _kubectl(kubectl: str, *arguments: str, stdin: list[Manifest] | None = None) -> None:
    text = yaml.safe_dump_all(stdin or []).encode()
    started = await asyncio.create_subprocess_exec(
        kubectl, *arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    await started.communicate(text)
    if started.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)} failed")


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _node(index: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"fake-{index:02}",
            "annotations": {_FAKE: "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"kubernetes.io/hostname": f"fake-{index:02}", "type": "kwok", **_GPU_LABELS},
        },
        "status": {"allocatable": _CAPACITY, "capacity": _CAPACITY},
    }


async def apply_all(
    cluster: ApiCluster, manifests: list[Manifest], concurrency: int
) -> list[Manifest]:
    """Apply manifests with at most `concurrency` requests at once; return the stored objects."""
    semaphore = asyncio.Semaphore(concurrency)

    async def apply(manifest: Manifest) -> Manifest:
        async with semaphore:
            return await cluster.apply(manifest)

    return list(await asyncio.gather(*map(apply, manifests)))


async def wait_until_accepted(cluster: ApiCluster, manifest: Manifest) -> None:
    """Wait until the API server accepts the manifest: a new CRD is served with a small delay."""
    while True:
        try:
            applied = await cluster.apply(manifest)
        except ApiError:
            await asyncio.sleep(0.1)
            continue
        assert applied
        return
