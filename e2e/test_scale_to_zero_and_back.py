"""Without requests the last replica goes; one that comes wakes the server, whenever it comes."""

import json
from statistics import median
from threading import Event
from time import monotonic

import pytest

from field_watch import FieldWatch
from servers import Server, spec
from stack import CHAT

TO_ZERO = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 1}
REPLICAS = "llama-replicas"
"""The Deployment, and what its pods' names begin with."""

POD = "{.metadata.name} {.metadata.deletionTimestamp} "
READY = '{.status.conditions[?(@.type=="Ready")].status}'
WAKES = 5


@pytest.fixture
def asleep(server: Server) -> Server:
    """A server at zero that has downloaded and loaded its model before."""
    # Ready though it has no replica: the first request starts one.
    server.ready(spec(autoscaling=TO_ZERO))
    [ending] = server.chat()
    assert ending["answered"], ending
    server.wait_until_asleep()
    return server


def test_waking_costs_little_more_than_the_pod_takes(asleep: Server) -> None:
    overheads = [_overhead(asleep) for _ in range(WAKES)]

    print(f"wake-up overhead: {', '.join(f'{each * 1000:.0f}' for each in overheads)} ms")
    print(f"median {median(overheads) * 1000:.0f} ms, best {min(overheads) * 1000:.0f} ms")
    # The best of them: a machine that is busy makes it longer, and nothing makes it shorter.
    assert min(overheads) <= 0.5


@pytest.mark.parametrize(
    ("resource", "path", "goes"),
    [
        pytest.param(f"deployment/{REPLICAS}", "{.spec.replicas}", "0", id="it was decided"),
        pytest.param("pods", POD, f"{REPLICAS}- Z", id="its pod is told to end"),
        pytest.param("pods", POD + READY, f"{REPLICAS}- Z False", id="its llama-server has ended"),
    ],
)
def test_a_request_that_comes_while_the_last_replica_goes_is_answered(
    asleep: Server, resource: str, path: str, goes: str
) -> None:
    asker = asleep.cluster.start("run", *CHAT, asleep.url, "--stream", "--when-told")
    tell = asker.stdin
    answer = asker.stdout
    assert tell
    assert answer
    awake = Event()
    going = Event()

    def ask(value: str) -> None:
        if not all(part in value for part in goes.split()):
            awake.set()
        elif awake.is_set() and not going.is_set():
            going.set()
            tell.close()

    # Watched from before it wakes: a second later it may have gone.
    with FieldWatch(asleep.cluster, resource, path, namespace=asleep.namespace, seen=ask) as states:
        assert states.begins(30)
        [first] = asleep.chat()
        assert going.wait(90), states.seen
        with asker:
            second = json.loads(answer.readline())

    assert first["answered"], first
    assert second["answered"], second


def _overhead(asleep: Server) -> float:
    """Seconds from a request to its answer, less what its pod took from its creation to ready."""
    seen: dict[str, float] = {}

    def note(value: str) -> None:
        name, deleted, ready, *_ = [*value.split(" "), "", ""]
        if name.startswith(REPLICAS) and not deleted:
            seen.setdefault(ready, monotonic())

    path = POD + READY
    with FieldWatch(asleep.cluster, "pods", path, namespace=asleep.namespace, seen=note):
        [ending] = asleep.chat()
        asleep.wait_until_asleep()
    assert ending["answered"], ending
    took = seen["True"] - min(seen.values())
    print(f"answered after {ending['first_token_seconds']:.3f} s, the pod took {took:.3f} s")
    return float(ending["first_token_seconds"]) - took
