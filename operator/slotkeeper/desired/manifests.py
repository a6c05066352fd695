"""server -> the manifests of all its children."""

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import balancer, network_and_pdb, rpc_group
from slotkeeper.desired import replicas as llama_servers
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest


def manifests(
    server: LlamaServer, replicas: int, images: Images, obstacle: StartBlocker | None = None
) -> list[Manifest]:
    """All that a server needs in the cluster, in the order in which it should be applied.

    `replicas` is how many the decider wants, `obstacle` what keeps all of them from starting,
    where something is known to. Each call returns fresh trees; the same arguments
    give the same trees.
    """
    return [
        balancer.service_account(server),
        balancer.role(server),
        balancer.role_binding(server),
        balancer.lease(server, obstacle),
        balancer.service(server),
        llama_servers.service(server),
        network_and_pdb.network_policy(server),
        network_and_pdb.replica_budget(server),
        network_and_pdb.balancer_budget(server),
        balancer.deployment(server, images),
        *_replicas(server, replicas, images),
    ]


def _replicas(server: LlamaServer, replicas: int, images: Images) -> list[Manifest]:
    deployment = llama_servers.deployment(server, replicas, images)
    if workers := server.spec.workers:
        return rpc_group.manifests(server, workers, deployment)
    return [deployment]
