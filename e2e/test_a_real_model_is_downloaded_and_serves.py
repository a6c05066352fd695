"""A real model, Gemma 3 270M, is downloaded from a host in the cluster and gives useful text."""

import json
import re
import time
from typing import Any

import pytest

from real_model import SHA256, serve
from servers import Server, Spec, spec

pytestmark = pytest.mark.long

PROMPT = "Q: What is the capital of France?\nA:"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"enum": ["France", "Japan"]}},
    "required": ["city", "country"],
    "additionalProperties": False,
}


@pytest.fixture
def real(server: Server) -> Spec:
    """The spec of a server with the model."""
    model = {"url": serve(server), "sha256": SHA256}
    resources = {"requests": {"cpu": "50m"}, "limits": {"cpu": 2}}
    return spec(resources=resources, contextPerSlot=1024) | {"model": model}


def test_a_real_model_is_downloaded_and_serves(server: Server, real: Spec) -> None:
    began = time.monotonic()
    server.apply(real)
    server.wait("condition=Ready", 180)
    ready = time.monotonic() - began
    completion = _post(server, "/v1/completions", prompt=PROMPT, max_tokens=4)
    first = time.monotonic() - began

    assert "Paris" in completion["choices"][0]["text"]
    model = server.get()["status"]["model"]
    assert (model["architecture"], model["quantization"]) == ("gemma3", "Q4_K_M")
    assert (model["sizeBytes"], model["sha256"]) == (253_113_024, SHA256)
    log = server.kubectl("logs", f"deployment/{server.name}-replicas", "-c", "download")
    [speed] = re.findall(r"253113024 bytes in ([\d.]+) s, ([\d.]+) MB/s", log)
    # `pytest -rP` shows this line.
    print(
        f"253 MB in {speed[0]} s, {speed[1]} MB/s; Ready {ready:.1f} s after apply, "
        f"first response after {first:.1f} s, {completion['timings']['predicted_per_second']:.0f} "
        "tokens/s"
    )

    structured = _post(
        server,
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "Name a city in Japan, as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        max_tokens=64,
    )
    answer = json.loads(structured["choices"][0]["message"]["content"])
    assert set(answer) == {"city", "country"}
    assert answer["country"] == "Japan"


def _post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    text = json.dumps({"temperature": 0, **body})
    request = ("-sS", "--fail-with-body", "-d", text, f"{server.url}{path}")
    response: dict[str, Any] = json.loads(server.cluster.read("run", "curl", *request))
    return response
