"""API keys that a running server requires are required at once, whether or not it can roll out."""

import json
import time

from servers import Server, spec

WITH_KEYS = spec(balancer={"apiKeys": {"secretName": "keys"}})
SERVED, UNAUTHORIZED, OUTDATED = 200, 401, 503
NO_ENDPOINT = 0
"""No balancer is ready, so that the Service rejects the connection."""


def test_no_request_without_a_key_is_served_once_the_server_is_ready(server: Server) -> None:
    server.ready(spec())
    assert _status(server) == SERVED
    server.kubectl("create", "secret", "generic", "keys", "--from-literal=team-a=first")

    server.ready(WITH_KEYS)

    # Balancers of the former spec may still be there, and reject requests in another way.
    assert {_status(server) for _ in range(20)} <= {UNAUTHORIZED, OUTDATED}
    server.kubectl("rollout", "status", f"deployment/{server.name}-balancer", "--timeout=120s")
    _wait_for(server, UNAUTHORIZED)
    assert _status(server, "first") == SERVED
    assert _status(server, "second") == UNAUTHORIZED


def test_nothing_is_served_while_the_secret_does_not_exist(server: Server) -> None:
    server.ready(spec())

    server.apply(WITH_KEYS)
    message = server.wait_for_reason("BalancerReady", "WaitingForSecret")

    assert "keys" in message
    assert server.condition("Ready")["status"] == "False"
    assert {_status(server) for _ in range(20)} <= {OUTDATED, NO_ENDPOINT}
    # With the former spec the same balancers serve again.
    server.ready(spec())
    _wait_for(server, SERVED)


def _wait_for(server: Server, expected: int) -> None:
    """Wait until this is the response to a request without a key.

    The readiness of a balancer is in force some seconds after it has changed.
    """
    deadline = time.monotonic() + 30
    while (status := _status(server)) != expected:
        assert status in {OUTDATED, NO_ENDPOINT}
        assert time.monotonic() < deadline, status


def _status(server: Server, key: str | None = None) -> int:
    """Return the status of a request with this key, NO_ENDPOINT without a response."""
    authorization = ("-H", f"Authorization: Bearer {key}") if key else ()
    body = json.dumps({"prompt": "x", "max_tokens": 1})
    output = ("-o", "/dev/null", "-w", "%{http_code}")
    url = f"{server.url}/v1/completions"
    result = server.cluster.attempt("run", "curl", "-sS", *output, *authorization, url, "-d", body)
    return int(result.stdout)
