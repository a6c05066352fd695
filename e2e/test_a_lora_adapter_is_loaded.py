"""A LoRA adapter is downloaded, checked and loaded beside its model."""

import hashlib
import json

from servers import QUICK, Server, spec
from stack import ROOT

ADAPTER = QUICK.replace("quick", "quick-lora")


def test_a_model_with_an_adapter(server: Server) -> None:
    digest = hashlib.sha256((ROOT / "build/models/quick-lora.gguf").read_bytes()).hexdigest()
    adapter = {"url": ADAPTER, "sha256": digest, "scale": 0.5}

    server.ready(spec() | {"model": {"url": QUICK, "adapters": [adapter]}})

    [address] = server.replica_addresses()
    said = server.cluster.read("run", "curl", "-sS", f"http://{address}/lora-adapters")
    [loaded] = json.loads(said)
    assert loaded["scale"] == 0.5
    [ending] = server.chat()
    assert ending["answered"], ending
