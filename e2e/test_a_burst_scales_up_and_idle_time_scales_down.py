"""Waiting requests bring a second replica at once; a quiet time takes it away, cutting nobody."""

from field_watch import FieldWatch
from servers import SLOW, Server, spec


def test_a_burst_adds_a_replica_and_quiet_takes_it_away(server: Server) -> None:
    quick = {"scaleDown": {"stabilizationWindowSeconds": 10}}
    scaling = {"minReplicas": 1, "maxReplicas": 2, "behavior": quick}
    server.ready(spec(SLOW, autoscaling=scaling))
    resource = f"llamaserver/{server.name}"
    path = "{.status.readyReplicas}"

    with FieldWatch(server.cluster, resource, path, namespace=server.namespace) as replicas:
        endings = server.chat(requests=8, tokens=1000)
        came_back = replicas.wait_for(["1", "2", "1"], 120)

    assert [ending for ending in endings if not ending["answered"]] == []
    assert came_back, replicas.seen


def test_the_reason_for_more_replicas_is_an_event_in_slots(server: Server) -> None:
    server.ready(spec(SLOW, slots=1, autoscaling={"minReplicas": 1, "maxReplicas": 2}))

    server.chat(requests=4, tokens=500)

    events = server.kubectl("get", "events", "--field-selector", "reason=ScaledUp", "-o", "name")
    said = server.kubectl("describe", "llama", server.name)
    assert len(events.splitlines()) == 1
    assert ": 1 -> 2" in said
