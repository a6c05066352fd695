"""Demo: creates a cluster and a server that scales up under a burst and down again.

    make demo

Brings up the cluster `demo`, or another one with `make demo CLUSTER=NAME`, installs the operator,
applies examples/quickstart.yaml, and leaves all of it running. The last line and the exit status
show whether every request was completed and whether the replicas changed 1 -> 2 -> 1.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from field_watch import FieldWatch
from stack import Cluster, chat, up

EXIT_INTERRUPTED = 130
SERVER = "llamaserver/quickstart"
BURST = 8
BURST_TOKENS = 600
SCALE_DOWN_TIMEOUT = 180.0
"""Seconds until there must be one replica again: a minute of stabilization, and the termination of
a pod."""
BEGAN = time.monotonic()


def print_progress(text: str) -> None:
    """Print a line of progress with the time since the start."""
    minutes, seconds = divmod(int(time.monotonic() - BEGAN), 60)
    print(f"[{minutes:2}:{seconds:02}] {text}", flush=True)


def print_ready(replicas: str) -> None:
    """Print the number of ready replicas."""
    print_progress(f"ready replicas: {replicas or 0}")


def demo(cluster: Cluster) -> int:
    """Run the demo; return 0 if all requests completed and the replicas changed as expected.

    Raises RuntimeError or CalledProcessError if a command fails.
    """
    print_progress("creating a cluster, the images, the operator and a model server")
    up(cluster)

    print_progress("kubectl apply -f examples/quickstart.yaml")
    cluster.call("kubectl", "apply", "-f", "examples/quickstart.yaml")
    try:
        cluster.call("kubectl", "wait", "--for=condition=Ready", SERVER, "--timeout=180s")
    except subprocess.CalledProcessError:
        cluster.call("kubectl", "describe", SERVER)
        cluster.call("kubectl", "get", "pods", "--all-namespaces")
        raise
    address = cluster.get("service", "quickstart")["spec"]["clusterIP"]
    url = f"http://{address}"

    path = "{.status.readyReplicas}"
    with FieldWatch(cluster, SERVER, path, on_value=print_ready) as replicas:
        replicas.wait_for_values(["1"], 30)
        print_progress("sending one streamed chat completion")
        results = chat(cluster, url, "--stream", "--tokens", "200")
        first_token = results[0]["first_token_seconds"]
        print_progress(f"{results[0]['tokens']} tokens, first token after {first_token} s")
        print_progress(f"sending a burst of {BURST} requests, which take seconds each, to 2 slots")
        size = ("--requests", str(BURST), "--tokens", str(BURST_TOKENS))
        results += chat(cluster, url, "--stream", *size)
        for number, result in enumerate(results[1:], 1):
            print_progress(
                f"request {number}: {result['status']}, {result['tokens']} tokens in "
                f"{result['seconds']:.1f} s {result['error']}".rstrip()
            )
        print_progress("waiting for scale-down after one minute without load")
        scaled = replicas.wait_for_values(["1", "2", "1"], SCALE_DOWN_TIMEOUT)

    cluster.call("kubectl", "get", "llama,pods")
    completed = sum(result["completed"] for result in results)
    failed = len(results) - completed
    changes = "->".join(replicas.values)
    print(f"""
The cluster is still up. Try:
    ./e2e/cluster --name {cluster.name} kubectl describe llama quickstart
    ./e2e/cluster --name {cluster.name} run curl {url}/v1/chat/completions -d \
'{{"messages": [{{"role": "user", "content": "Hello"}}], "max_tokens": 20}}'
    ./e2e/cluster --name {cluster.name} down
""")
    counts = f"{len(results)} requests, {completed} completed, {failed} failed"
    print(f"demo: {counts}, replicas {changes}")
    return 0 if scaled and not failed else 1


def main(arguments: Sequence[str], run: Callable[[Cluster], int] = demo) -> int:
    """Run the demo on the cluster that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="demo", help="name of the cluster (default: %(default)s)")
    name = parser.parse_args(arguments).name
    try:
        return run(Cluster(name))
    except KeyboardInterrupt:
        print(
            f"\ndemo: interrupted. `make demo CLUSTER={name}` starts it again, and "
            f"`./e2e/cluster --name {name} down` removes the cluster",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except (RuntimeError, subprocess.CalledProcessError) as failure:
        print(f"demo: failed: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
