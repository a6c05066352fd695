"""Queued requests add a second replica at once; idle time removes it without failing a request."""

from field_watch import FieldWatch
from servers import SLOW, Server, spec


def test_a_burst_scales_up_and_idle_time_scales_down(server: Server) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 10}}
    scaling = {"minReplicas": 1, "maxReplicas": 2, "behavior": behavior}
    server.ready(spec(SLOW, autoscaling=scaling))
    resource = f"llamaserver/{server.name}"
    path = "{.status.readyReplicas}"

    with FieldWatch(server.cluster, resource, path, namespace=server.namespace) as replicas:
        results = server.chat(requests=8, tokens=1000)
        scaled_down = replicas.wait_for_values(["1", "2", "1"], 120)

    assert [result for result in results if not result["completed"]] == []
    assert scaled_down, replicas.values


def test_scaling_up_records_one_event_with_the_replica_counts(server: Server) -> None:
    server.ready(spec(SLOW, slots=1, autoscaling={"minReplicas": 1, "maxReplicas": 2}))

    server.chat(requests=4, tokens=500)

    events = server.kubectl("get", "events", "--field-selector", "reason=ScaledUp", "-o", "name")
    description = server.kubectl("describe", "llama", server.name)
    assert len(events.splitlines()) == 1
    assert ": 1 -> 2" in description
