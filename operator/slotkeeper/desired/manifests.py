"""Manifests of all child objects of a server."""

from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import (
    balancer,
    inspection,
    network_and_pdb,
    prefetch,
    prompt_cleanup,
    rpc_group,
)
from slotkeeper.desired import replicas as llama_servers
from slotkeeper.desired.download_settings import NO_SETTINGS, DownloadSettings
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest


def manifests(
    server: LlamaServer,
    replicas: int,
    images: Images,
    blocker: StartBlocker | None = None,
    account_uid: str = "",
    downloads: DownloadSettings = NO_SETTINGS,
) -> list[Manifest]:
    """Return the manifests of all child objects, in the order in which they should be applied.

    `replicas` is the desired number of replicas; `blocker` blocks all of them from starting;
    `account_uid` is of the balancers' ServiceAccount. Each call returns new trees, and equal trees
    for equal arguments.
    """
    return [
        balancer.service_account(server),
        balancer.role(server, blocker),
        balancer.role_binding(server),
        balancer.lease(server),
        balancer.service(server),
        llama_servers.service(server),
        network_and_pdb.network_policy(server, downloads),
        network_and_pdb.replica_budget(server),
        network_and_pdb.balancer_budget(server),
        balancer.deployment(server, images, account_uid),
        *_replicas(server, replicas, images, downloads),
        # Last: the others are in force also where a policy or a quota rejects Jobs.
        *([prompt_cleanup.job(server, images)] if prompt_cleanup.is_used(server) else []),
        *([inspection.job(server, images, downloads)] if inspection.is_required(server) else []),
        *([prefetch.job(server, images, downloads)] if prefetch.is_used(server, downloads) else []),
    ]


def _replicas(
    server: LlamaServer, replicas: int, images: Images, downloads: DownloadSettings
) -> list[Manifest]:
    deployment = llama_servers.deployment(server, replicas, images, downloads)
    if workers := server.spec.workers:
        return rpc_group.manifests(server, workers, deployment)
    return [deployment]
