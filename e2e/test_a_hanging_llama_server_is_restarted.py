"""A llama-server that a JSON schema keeps computing for ever is restarted, its request rejected."""

import json
from typing import Any

import pytest

from servers import SLOW, Server, spec

# Each token has more continuations in this grammar than fit into memory.
PATTERN = "^((((.?){10}){10}){10}){5}$"
BODY = {"prompt": "a", "n_predict": 8, "json_schema": {"type": "string", "pattern": PATTERN}}


@pytest.mark.long
def test_a_hanging_llama_server_is_restarted(server: Server) -> None:
    server.ready(spec(SLOW, unresponsiveSeconds=60))

    assert _error(server)["code"] == "replica_failed"
    selector = f"slotkeeper.dev/server={server.name},slotkeeper.dev/component=replica"
    restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    server.kubectl("wait", f"--for={restarted}", "pod", "-l", selector, "--timeout=60s")
    server.wait("condition=Ready", 120)

    assert _error(server)["code"] == "request_crashes_server"
    [result] = server.chat(tokens=4)
    assert result["completed"], result


def _error(server: Server) -> dict[str, Any]:
    """Send the request; return the error of its response."""
    body = ("--max-time", "300", "--data", json.dumps(BODY))
    response = server.cluster.read("run", "curl", "-sS", *body, f"{server.url}/completion")
    error: dict[str, Any] = json.loads(response)["error"]
    return error
