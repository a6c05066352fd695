"""Requests to a server without replicas are buffered and answered once there is one."""

from concurrent.futures import ThreadPoolExecutor

from servers import Server, spec


def test_a_request_waits_until_a_replica_is_ready(server: Server) -> None:
    server.apply(spec(replicas=0))
    server.wait("jsonpath={.status.conditions[?(@.type=='BalancerReady')].status}=True")

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.chat, requests=3)
        server.wait("jsonpath={.status.queued}=3")
        server.kubectl("scale", f"llamaserver/{server.name}", "--replicas=1")
        endings = waiting.result()

    assert [ending for ending in endings if not ending["answered"]] == []
