"""The problems of a gateway in its conditions."""

from fake_cluster import FakeCluster
from gateway_harness import deploy_gateway, gateway_condition
from operator_harness import Operator, apply_server, deploy


async def test_all_problems_are_reported(cluster: FakeCluster, operator: Operator) -> None:
    await deploy(cluster, operator)
    apply_server(cluster, "other", model={"url": "https://example.com/m.gguf", "alias": "chat"})

    await deploy_gateway(cluster, operator, defaultModel="gone")

    status, reason, message = gateway_condition(cluster, "Degraded")
    assert (status, reason) == ("True", "DuplicateModel")
    assert "; UnknownModel: defaultModel gone is neither" in message
