"""The compared gateways: how each is started, and its complete configuration."""

import json
import sys
from pathlib import Path

from bench.balancer.systems import ProxySetup, System
from bench.command import first_line

FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench-gateway"
"""Where the other gateways are installed: by `make bench-gateway`, from their lock files."""
_LITELLM = FOLDER / "litellm/bin/litellm"
_PORTKEY = FOLDER / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"


def litellm_config(setup: ProxySetup) -> str:
    """Return LiteLLM's config: one model, without keys, database, logs and retries."""
    return json.dumps(
        {
            "model_list": [
                {
                    "model_name": "fake",
                    "litellm_params": {
                        "model": "openai/fake",
                        "api_base": f"http://127.0.0.1:{setup.replicas[0]}/v1",
                        "api_key": "none",
                    },
                }
            ],
            "litellm_settings": {"num_retries": 0, "request_timeout": 600, "set_verbose": False},
        }
    )


def portkey_headers(setup: ProxySetup) -> list[str]:
    """Return the headers with which a client configures Portkey's gateway."""
    return [
        "Authorization: Bearer none",
        "X-Portkey-Provider: openai",
        f"X-Portkey-Custom-Host: http://127.0.0.1:{setup.replicas[0]}/v1",
    ]


GATEWAY = System(
    "gateway",
    lambda setup: [
        *(sys.executable, "-m", "bench.gateway.gateway_process"),
        *(str(setup.port), str(setup.replicas[0])),
    ],
)
GATEWAY_LOGGING = System(
    "gateway, access log",
    lambda setup: [*(GATEWAY.command or (lambda _: []))(setup), "--access-log"],
)
LITELLM = System(
    "LiteLLM",
    lambda setup: [
        str(_LITELLM),
        *("--config", str(setup.folder / "config.yaml")),
        *("--host", "127.0.0.1", "--port", str(setup.port), "--telemetry", "False"),
    ],
    lambda setup: {"config.yaml": litellm_config(setup)},
    environment={
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOG": "ERROR",
        # Otherwise it downloads a list of prices at its start.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    },
    start_seconds=120,
)
PORTKEY = System(
    "Portkey",
    lambda setup: ["node", str(_PORTKEY), f"--port={setup.port}", "--headless"],
    environment={"NODE_ENV": "production"},
    headers=portkey_headers,
)


def versions() -> str:
    """Return the versions of the other gateways."""
    packages = first_line(
        *(str(_LITELLM.with_name("python")), "-c"),
        "from importlib.metadata import version; print(version('litellm'))",
    )
    portkey = json.loads((_PORTKEY.parents[1] / "package.json").read_text())["version"]
    return f"LiteLLM {packages}, Portkey {portkey}, Node.js {first_line('node', '--version')}"
