"""The libraries of OpenAI, Anthropic and Ollama, LiteLLM, and the requests of Open WebUI work."""

import pytest

from client_servers import GATEWAY, KEY, KEY_NAME, SERVERS, spec
from gateways import deploy_gateway
from servers import QUICK, Server
from stack import ROOT, Cluster

PYTHON = ROOT / ".venv/clients/bin/python"


def test_client_libraries_work_through_a_gateway(cluster: Cluster, namespace: str) -> None:
    if not PYTHON.exists():
        pytest.skip("missing: the libraries. Install them with: make clients")
    servers = [Server(cluster, namespace, each.name) for each in SERVERS]
    for server, described in zip(servers, SERVERS, strict=True):
        server.apply(spec(described, QUICK))
    servers[0].kubectl("create", "secret", "generic", "keys", f"--from-literal={KEY_NAME}={KEY}")
    for server in servers:
        server.wait("condition=Ready")
    url = deploy_gateway(servers[0], **GATEWAY)

    environment = (f"SLOTKEEPER_GATEWAY_URL={url}", f"PYTHONPATH={ROOT / 'operator'}")
    tests = cluster.attempt(
        *(
            "run",
            "env",
            *environment,
            str(PYTHON),
            "-m",
            "pytest",
            "-q",
            str(ROOT / "tests/clients"),
        )
    )

    assert tests.returncode == 0, tests.stdout + tests.stderr
