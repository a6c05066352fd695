"""What a run stands on, inside of the cluster's network: fake nodes, balancers, CRD, namespaces."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from bench.reconcile.servers import NAMESPACES, namespace
from slotkeeper.api.crd import crd
from slotkeeper.kube.client import ApiCluster
from slotkeeper.kube.cluster import ApiError, Kind, Manifest

NODES = 20
PODS_RANGE = "10.250.0.0/16"
OPERATOR_NAMESPACE = "slotkeeper-system"

_FAKE = "kwok.x-k8s.io/node"
_ROOM = {"cpu": "512", "memory": "4Ti", "pods": "1000", "nvidia.com/gpu": "512"}
_GPU_LABELS = {"nvidia.com/gpu.compute.major": "7", "nvidia.com/gpu.compute.minor": "5"}

NODE_KIND = Kind("", "v1", "nodes", "Node")
NAMESPACE_KIND = Kind("", "v1", "namespaces", "Namespace")


@contextmanager
def running(logs: Path, kwok: str, kubeconfig: str) -> Iterator[None]:
    """kwok, and the fake pods' balancers, inside of the `with`."""
    # Every address of a fake pod is this machine's own: there, the balancers answer.
    subprocess.run(["ip", "route", "replace", "local", PODS_RANGE, "dev", "lo"], check=True)
    with ExitStack() as stack:
        stack.enter_context(process(logs / "balancers.log", *python("bench.reconcile.balancers")))
        stack.enter_context(
            process(
                logs / "kwok.log",
                kwok,
                f"--kubeconfig={kubeconfig}",
                f"--manage-nodes-with-annotation-selector={_FAKE}=fake",
                f"--cidr={PODS_RANGE}",
                # Without Leases its nodes' signs of life come up to 45 s apart, and later while the
                # machine is busy: after 50 s all of a node's pods count as not ready.
                "--node-lease-duration-seconds=40",
            )
        )
        yield


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a Python module."""
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to `log`; ended with the `with`."""
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
    """The CRD, the namespaces and the fake nodes; the real node takes no pods."""
    manifests = [crd(), *map(_namespace, (*_namespaces(), OPERATOR_NAMESPACE))]
    manifests += [_node(index) for index in range(NODES)]
    await _kubectl(kubectl, "apply", "--server-side", "-f", "-", stdin=manifests)
    await _kubectl(kubectl, "cordon", "node0")
    name = crd()["metadata"]["name"]
    await _kubectl(kubectl, "wait", "--for=condition=Established", f"crd/{name}")


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
        "status": {"allocatable": _ROOM, "capacity": _ROOM},
    }


async def apply_all(cluster: ApiCluster, manifests: list[Manifest], at_once: int) -> list[Manifest]:
    """Apply these, so many at the same time; what the API server has of them then."""
    room = asyncio.Semaphore(at_once)

    async def apply(manifest: Manifest) -> Manifest:
        async with room:
            return await cluster.apply(manifest)

    return list(await asyncio.gather(*map(apply, manifests)))


async def until_taken(cluster: ApiCluster, manifest: Manifest) -> None:
    """Wait until the API server takes such a manifest: a new CRD's path comes a moment late."""
    while True:
        try:
            applied = await cluster.apply(manifest)
        except ApiError:
            await asyncio.sleep(0.1)
            continue
        assert applied
        return
