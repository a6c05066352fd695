"""Resources that are changed or deleted by hand are restored within seconds."""

from servers import Server, spec


def test_a_deleted_service_is_recreated(server: Server) -> None:
    server.ready(spec())
    before = server.cluster.get("service", server.name, namespace=server.namespace)

    server.kubectl("delete", "service", server.name)

    server.kubectl("wait", "--for=create", f"service/{server.name}", "--timeout=10s")
    after = server.cluster.get("service", server.name, namespace=server.namespace)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["selector"] == before["spec"]["selector"]


def test_a_changed_replica_count_is_corrected(server: Server) -> None:
    server.ready(spec())
    deployment = "deployment/llama-replicas"

    server.kubectl("scale", deployment, "--replicas=3")

    server.kubectl("wait", "--for=jsonpath={.spec.replicas}=1", deployment, "--timeout=10s")


def test_a_changed_selector_of_the_service_is_corrected(server: Server) -> None:
    server.ready(spec())
    patch = '{"spec": {"selector": {"slotkeeper.dev/component": "nothing"}}}'

    server.kubectl("patch", "service", server.name, "-p", patch)

    path = r"jsonpath={.spec.selector.slotkeeper\.dev/component}"
    server.kubectl("wait", f"--for={path}=balancer", f"service/{server.name}", "--timeout=10s")
