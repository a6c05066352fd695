"""Requests to a server without replicas are queued and served when a replica is ready."""

from concurrent.futures import ThreadPoolExecutor

from servers import Server, spec


def test_requests_are_queued_until_a_replica_is_ready(server: Server) -> None:
    server.apply(spec(replicas=0))
    server.wait("jsonpath={.status.conditions[?(@.type=='BalancerReady')].status}=True")

    with ThreadPoolExecutor() as pool:
        queued = pool.submit(server.chat, requests=3)
        server.wait("jsonpath={.status.queued}=3")
        server.kubectl("scale", f"llamaserver/{server.name}", "--replicas=1")
        results = queued.result()

    assert [result for result in results if not result["completed"]] == []
