"""A ServiceAccount that is deleted and created again makes the balancers' tokens invalid.

Their pods are replaced, so that replicas are still found.
"""

import time

from servers import Server, spec

UID = "slotkeeper.dev/service-account-uid"


def test_a_recreated_service_account_replaces_the_balancers(server: Server) -> None:
    server.ready(spec())
    balancer = f"{server.name}-balancer"
    server.kubectl("rollout", "status", f"deployment/{balancer}", "--timeout=60s")

    server.kubectl("delete", "serviceaccount", balancer)

    server.kubectl("wait", "--for=create", f"serviceaccount/{balancer}", "--timeout=10s")
    account = server.cluster.get("serviceaccount", balancer, namespace=server.namespace)
    uid = account["metadata"]["uid"]
    path = r"jsonpath={.spec.template.metadata.annotations.slotkeeper\.dev/service-account-uid}"
    server.kubectl("wait", f"--for={path}={uid}", f"deployment/{balancer}", "--timeout=30s")
    assert server.chat()[0]["completed"]
    server.kubectl("rollout", "status", f"deployment/{balancer}", "--timeout=120s")
    # The former leader hands over, though the API server rejects it.
    deadline = time.monotonic() + 30
    while _leader(server) not in _balancers(server, uid):
        assert time.monotonic() < deadline
    server.wait("condition=Ready")

    before = set(server.replica_addresses())
    server.kubectl("delete", "pods", "-l", "slotkeeper.dev/component=replica")
    # The request is queued until the balancers have found the new replica.
    assert server.chat()[0]["completed"]
    assert not before & set(server.replica_addresses())
    server.wait("condition=Ready")


def _balancers(server: Server, uid: str) -> set[str]:
    """Return the names of the balancers' pods that have a token of this ServiceAccount."""
    return {
        pod["metadata"]["name"]
        for pod in server.children("pods")
        if pod["metadata"].get("annotations", {}).get(UID) == uid
    }


def _leader(server: Server) -> str:
    path = "jsonpath={.spec.holderIdentity}"
    return server.kubectl("get", "lease", f"{server.name}-balancer", "-o", path)
