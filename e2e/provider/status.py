"""Prints a cluster's status."""

import json
from pathlib import Path

from provider.kind import Kind
from provider.native import Native
from provider.processes import Processes

MIB = 1 << 20


def status(cluster: Native | Kind) -> int:
    """Print the cluster's status; return 0 if it runs and the node is Ready, otherwise 1."""
    running = cluster.exists() and cluster.running()
    print(f"cluster     {cluster.paths.name} ({cluster.provider})")
    if not running and not cluster.exists():
        print("state       does not exist")
        return 1
    print(f"kubeconfig  {cluster.paths.kubeconfig}")
    ready = running and _print_node(cluster)
    if isinstance(cluster, Native):
        print(f"logs        {cluster.paths.logs}")
        _print_processes(cluster.processes)
    memory = cluster.memory()
    if memory is not None:
        print(f"memory      {memory // MIB} MiB, pods included")
    return 0 if ready else 1


def _print_node(cluster: Native | Kind) -> bool:
    result = cluster.kubectl().run("--request-timeout=5s", "get", "nodes,pods", "-A", "-o", "json")
    if result.returncode:
        print("state       the API server does not respond")
        return False
    items = json.loads(result.stdout)["items"]
    nodes = [item for item in items if item["kind"] == "Node"]
    pods = [item for item in items if item["kind"] == "Pod"]
    ready = [
        condition["status"] == "True"
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    is_ready = bool(ready) and all(ready)
    state = "Ready" if is_ready else "not Ready"
    running = sum(pod["status"].get("phase") == "Running" for pod in pods)
    print(f"state       node {state}, {running} of {len(pods)} pods running")
    return is_ready


def _print_processes(processes: Processes) -> None:
    running = processes.running()
    for name, record in processes.recorded().items():
        pid = record.identity.pid
        print(
            f"  {name:24} " + (f"{pid:7}  {_resident(pid):4} MiB" if name in running else "ended")
        )


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0
