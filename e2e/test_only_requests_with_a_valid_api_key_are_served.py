"""With API keys only requests with a key of the Secret are served; a changed Secret is reloaded."""

import base64
import json
import time

from servers import Server, spec

PATH = "/v1/completions"


def test_only_requests_with_a_valid_api_key_are_served(server: Server) -> None:
    server.apply(spec(balancer={"apiKeys": {"secretName": "keys"}}))
    message = server.wait_for_reason("BalancerReady", "WaitingForSecret")
    assert "keys" in message

    server.kubectl("create", "secret", "generic", "keys", "--from-literal=team-a=first")
    server.wait("condition=Ready", 120)

    assert _status(server, "first") == 200
    assert _status(server, "second") == 401
    assert _status(server, None) == 401

    changed = {"data": {"team-a": base64.b64encode(b"second").decode()}}
    server.kubectl("patch", "secret", "keys", "-p", json.dumps(changed))
    # The kubelet updates a pod's Secrets when the pod changes, otherwise about once a minute.
    balancers = ("-l", "slotkeeper.dev/component=balancer")
    server.kubectl("annotate", "pods", *balancers, "e2e=reload-the-secret-now")
    deadline = time.monotonic() + 30
    while (_status(server, "first"), _status(server, "second")) != (401, 200):
        assert time.monotonic() < deadline
    logs = server.kubectl("logs", *balancers, "--prefix=false", "--tail=-1")
    assert "first" not in logs.replace("first_byte_seconds", "")
    assert '"key": "team-a"' in logs


def _status(server: Server, key: str | None) -> int:
    authorization = ("-H", f"Authorization: Bearer {key}") if key else ()
    body = json.dumps({"prompt": "x", "max_tokens": 1})
    output = ("-o", "/dev/null", "-w", "%{http_code}")
    status = server.cluster.read(
        *("run", "curl", "-sS", *output, *authorization, f"{server.url}{PATH}", "-d", body)
    )
    return int(status)
