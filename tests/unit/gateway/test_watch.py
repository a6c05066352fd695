"""The configuration and the servers, as the API server reports them."""

import asyncio

import pytest

from fake_cluster import FakeCluster
from running_gateway import RunningGateway, run_gateway, server_manifest
from slotkeeper.api.group import API_VERSION, GATEWAY_KIND, KIND
from slotkeeper.kube.cluster import UNREADABLE, Manifest
from wait_until import until


def stored(manifest: Manifest, kind: str) -> Manifest:
    metadata = {"namespace": "default", **manifest["metadata"]}
    for precondition in ("uid", "resourceVersion"):
        metadata.pop(precondition, None)
    return {"apiVersion": API_VERSION, "kind": kind, **manifest, "metadata": metadata}


def names(gateway: RunningGateway) -> list[str]:
    return [*gateway.gateway._catalog.names(None)]


async def test_changes_in_the_cluster_apply_without_a_restart() -> None:
    cluster = FakeCluster()
    await cluster.create(stored(server_manifest("one"), KIND))
    async with run_gateway() as gateway:
        gateway.gateway._config = None
        following = asyncio.ensure_future(gateway.follower.run(cluster, "default", "llm"))
        await until(lambda: cluster.reads or len(cluster.requests) > 1)
        assert (await gateway.admin_request("/ready")).status == 503

        spec = {"metadata": {"name": "llm"}, "spec": {"aliases": {"a": "one"}}}
        await cluster.apply(stored(spec, GATEWAY_KIND))
        await until(lambda: names(gateway) == ["a", "one"])
        await cluster.apply(
            stored({**spec, "metadata": {"name": "other"}, "spec": {}}, GATEWAY_KIND)
        )
        await cluster.apply(stored(server_manifest("two"), KIND))
        await until(lambda: names(gateway) == ["a", "one", "two"])
        await cluster.apply(stored({**spec, "spec": {}}, GATEWAY_KIND))
        await until(lambda: names(gateway) == ["one", "two"])
        assert (await gateway.admin_request("/ready")).status == 200

        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize(
    "found", [None, {"spec": {"aliases": 1}}, {UNREADABLE: "too deep"}, {"spec": []}]
)
async def test_without_a_valid_spec_the_last_one_stays(
    found: Manifest | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_gateway({"aliases": {"a": "one"}}) as gateway:
        gateway.set_servers(server_manifest("one"))
        for _ in range(2):
            gateway.follower.apply_gateway(found)

        assert names(gateway) == ["a", "one"]
        assert caplog.text.count("keeping the last configuration") == 1


async def test_one_bad_server_affects_only_itself() -> None:
    async with run_gateway() as gateway:
        gateway.set_servers(
            server_manifest("one"),
            {"metadata": {"name": "bad", "resourceVersion": "7"}, "spec": [], "status": "x"},
            {**server_manifest("deep"), UNREADABLE: "too deep"},
        )

        assert names(gateway) == ["one"]


async def test_many_changes_are_applied_together() -> None:
    async with run_gateway() as gateway:
        for number in range(100):
            servers = {"one": server_manifest("one", generation=number)}
            gateway.follower.apply_servers(servers)
        assert names(gateway) == []

        await until(lambda: names(gateway) == ["one"])
        assert gateway.gateway._models["one"].generation == 99


async def test_a_conflict_of_names_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with run_gateway() as gateway:
        for _ in range(3):
            gateway.set_servers(
                server_manifest("one", alias="m"), server_manifest("two", alias="m")
            )

        assert caplog.text.count("LlamaServers one and two both serve model m") == 1


@pytest.mark.parametrize(
    ("status", "pods"),
    [
        ({"readyReplicas": 1}, 1),
        ({"readyReplicas": 3}, 3),
        ({"readyReplicas": True}, 3),
        ({"readyReplicas": "1"}, 3),
        ({}, 3),
        (None, 3),
        ([], 3),
    ],
)
async def test_limits_are_divided_among_the_ready_pods_of_the_status(
    status: object, pods: int
) -> None:
    async with run_gateway() as gateway:
        spec = {"spec": {"replicas": 3}, "status": status}
        gateway.follower.apply_gateway(spec)

        limiter = gateway.gateway._limiter
        assert limiter.pods.get(gateway.gateway.now() + 61) == pods
