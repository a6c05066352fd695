"""External backends in tests: specs, secrets, and fake servers behind a network of their own."""

from pathlib import Path
from typing import Any

from fake_llama import Call, FakeLlama, Script
from running_gateway import PUBLIC, Network
from slotkeeper.gateway.backends.secrets import BackendSecrets

CHAT = "/v1/chat/completions"
GPT = b'{"model":"gpt"}'
KEY = "sk-of-the-gateway"


def backend(name: str = "up", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "url": "http://up.example/api/v1",
        "models": [{"name": "gpt", "upstreamName": "gpt-2026"}],
        **fields,
    }


def network_of(server: FakeLlama, **fields: Any) -> Network:
    return Network(servers={(PUBLIC, 80): server}, **fields)


def secrets_in(folder: Path, *, key: str = KEY, hosts: str = "up.example") -> BackendSecrets:
    (folder / "up" / "key").mkdir(parents=True)
    (folder / "up" / "key" / "api-key").write_text(f"{key}\n")
    (folder / "up" / "key" / "hosts").write_text(hosts)
    return BackendSecrets(folder)


SPEC = {"externalBackends": [backend()]}
WITH_KEY = {
    "externalBackends": [backend(secretRef={"name": "up", "key": "token"})],
}


def responds(head: bytes, body: bytes = b"") -> Script:
    async def script(call: Call) -> None:
        await call.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (head, len(body)) + body)

    return script
