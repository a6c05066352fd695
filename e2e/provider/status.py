"""What people want to know of a cluster, in a few lines."""

import json
from pathlib import Path

from provider.kind import Kind
from provider.native import Native
from provider.processes import Processes

MIB = 1 << 20


def status(cluster: Native | Kind) -> int:
    """Print how the cluster is; 0 if it runs, else 1."""
    running = cluster.exists() and cluster.running()
    print(f"cluster     {cluster.place.name} ({cluster.provider})")
    if not running and not cluster.exists():
        print("state       not there")
        return 1
    print(f"kubeconfig  {cluster.place.kubeconfig}")
    ready = running and _print_node(cluster)
    if isinstance(cluster, Native):
        print(f"logs        {cluster.place.logs}")
        _print_processes(cluster.processes)
    memory = cluster.memory()
    if memory is not None:
        print(f"memory      {memory // MIB} MiB, pods included")
    return 0 if ready else 1


def _print_node(cluster: Native | Kind) -> bool:
    answer = cluster.kubectl().run("--request-timeout=5s", "get", "nodes,pods", "-A", "-o", "json")
    if answer.returncode:
        print("state       the API server does not answer")
        return False
    items = json.loads(answer.stdout)["items"]
    nodes = [item for item in items if item["kind"] == "Node"]
    pods = [item for item in items if item["kind"] == "Pod"]
    ready = [
        condition["status"] == "True"
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    up = bool(ready) and all(ready)
    going = sum(pod["status"].get("phase") == "Running" for pod in pods)
    print(f"state       node {'Ready' if up else 'not Ready'}, {going} of {len(pods)} pods running")
    return up


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
