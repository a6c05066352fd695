"""A LoRA adapter is downloaded, checked and loaded with its model."""

import hashlib
import json

from servers import QUICK, Server, spec
from stack import ROOT

ADAPTER = QUICK.replace("quick", "quick-lora")


def test_a_lora_adapter_is_loaded(server: Server) -> None:
    digest = hashlib.sha256((ROOT / "build/models/quick-lora.gguf").read_bytes()).hexdigest()
    adapter = {"url": ADAPTER, "sha256": digest, "scale": 0.5}

    server.ready(spec() | {"model": {"url": QUICK, "adapters": [adapter]}})

    [address] = server.replica_addresses()
    body = server.cluster.read("run", "curl", "-sS", f"http://{address}/lora-adapters")
    [loaded] = json.loads(body)
    assert loaded["scale"] == 0.5
    [result] = server.chat()
    assert result["completed"], result
