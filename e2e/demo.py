"""From nothing to a server that answers, scales up under a burst and comes back down.

    make demo

Brings up the cluster `demo`, installs the operator, applies examples/quickstart.yaml, and leaves
it all running. Its last line and its exit status say whether every request was answered and
whether the replicas went 1 -> 2 -> 1.
"""

import subprocess
import sys
import time

from field_watch import FieldWatch
from stack import Cluster, chat, up

NAME = "demo"
SERVER = "llamaserver/quickstart"
BURST = 8
BURST_TOKENS = 600
SCALE_DOWN_PATIENCE = 180.0
"""Seconds to wait for the way back to one replica: a quiet minute, and a pod's end."""
BEGAN = time.monotonic()


def say(text: str) -> None:
    """Print a line of progress with the time since the start."""
    minutes, seconds = divmod(int(time.monotonic() - BEGAN), 60)
    print(f"[{minutes:2}:{seconds:02}] {text}", flush=True)


def ready(replicas: str) -> None:
    """Say how many replicas are ready now."""
    say(f"replicas ready: {replicas}")


def main() -> int:
    """Run the demo; 0 if it showed what it should."""
    cluster = Cluster(NAME)
    say("a cluster, our images, the operator and a host of models")
    up(cluster)

    say("kubectl apply -f examples/quickstart.yaml")
    cluster.call("kubectl", "apply", "-f", "examples/quickstart.yaml")
    try:
        cluster.call("kubectl", "wait", "--for=condition=Ready", SERVER, "--timeout=180s")
    except subprocess.CalledProcessError:
        cluster.call("kubectl", "describe", SERVER)
        cluster.call("kubectl", "get", "pods", "--all-namespaces")
        raise
    address = cluster.get("service", "quickstart")["spec"]["clusterIP"]
    url = f"http://{address}"

    with FieldWatch(cluster, SERVER, "{.status.readyReplicas}", seen=ready) as replicas:
        replicas.wait_for(["1"], 30)
        say("one chat completion, streamed")
        endings = chat(cluster, url, "--stream", "--tokens", "200")
        say(f"{endings[0]['tokens']} tokens, the first after {endings[0]['first_token_seconds']} s")
        say(f"a burst of {BURST} requests of several seconds for 2 slots")
        size = ("--requests", str(BURST), "--tokens", str(BURST_TOKENS))
        endings += chat(cluster, url, "--stream", *size)
        for number, ending in enumerate(endings[1:], 1):
            say(
                f"request {number}: {ending['status']}, {ending['tokens']} tokens in "
                f"{ending['seconds']:.1f} s {ending['error']}"
            )
        say("waiting for a quiet minute to take the second replica away")
        scaled = replicas.wait_for(["1", "2", "1"], SCALE_DOWN_PATIENCE)

    cluster.call("kubectl", "get", "llama,pods")
    answered = sum(ending["answered"] for ending in endings)
    lost = len(endings) - answered
    path = "->".join(replicas.seen)
    print(f"""
The cluster is still up. To look around:
    ./e2e/cluster --name {NAME} kubectl describe llama quickstart
    ./e2e/cluster --name {NAME} run curl {url}/v1/chat/completions -d \
'{{"messages": [{{"role": "user", "content": "Hello"}}], "max_tokens": 20}}'
    ./e2e/cluster --name {NAME} down
""")
    print(f"demo: {len(endings)} requests, {answered} answered, {lost} lost, replicas {path}")
    return 0 if scaled and not lost else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, subprocess.CalledProcessError) as failure:
        sys.exit(f"demo: failed: {failure}")
