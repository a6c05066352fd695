"""Requests to the gateway: TLS, sizes, failures."""

import asyncio
import json
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slotkeeper.batches import client as client_module
from slotkeeper.batches.client import (
    MAX_RESPONSE,
    GatewayClient,
    ResponsesFull,
    ResponseTooLarge,
)
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Response, json_response
from slotkeeper.wire.server import Server

PEM = Path(__file__).parents[2] / "support" / "tls.pem"


def certificate(text: str) -> str:
    match = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", text, re.DOTALL)
    assert match
    return match[0]


def create_certificate(folder: Path) -> Path:
    """Create a certificate, crt, and return the file with it and its key."""
    other = folder / "other.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", other, "-out", folder / "crt", "-subj", "/CN=a", "-days", "9"),
        ],
        check=True,
        capture_output=True,
    )
    with other.open("a") as file:
        file.write((folder / "crt").read_text())
    return other


@asynccontextmanager
async def running(handler: object, tls: Path | None = None) -> AsyncIterator[int]:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
    server = Server(handler)  # type: ignore[arg-type]
    _, port = await server.listen("127.0.0.1", 0, context)
    async with asyncio.timeout(20):
        yield port
    await server.close()


def echo(exchange: Exchange) -> None:
    request = exchange.request
    headers = {name.decode().lower(): value.decode() for name, value in request.headers}
    exchange.respond(json_response(200, {"headers": headers, "body": request.body.decode()}))


async def test_a_request_has_the_key_of_its_owner_and_yields() -> None:
    async with running(echo) as port:
        client = GatewayClient(("127.0.0.1", port))
        for _ in range(2):
            reply = await client.post("/v1/completions", b'{"a":1}', b"key-of-ann")
            tree = json.loads(reply.body)
            assert tree["body"] == '{"a":1}'
            assert tree["headers"]["authorization"] == "Bearer key-of-ann"
            assert tree["headers"]["x-preemptible"] == "true"
        assert (
            "authorization"
            not in json.loads((await client.post("/v1/a", b"", None)).body)["headers"]
        )
        assert client.received == 0
        client.close()


async def test_the_gateway_is_recognized_by_its_certificate(tmp_path: Path) -> None:
    ca = tmp_path / "tls.crt"
    ca.write_text(certificate(PEM.read_text()))
    async with running(echo, PEM) as port:
        # Neither its name nor its authority matters.
        client = GatewayClient(("127.0.0.1", port), ca)
        assert (await client.post("/v1/completions", b"{}", None)).status == 200
        client.close()


async def test_another_certificate_is_rejected_until_it_is_the_expected_one(
    tmp_path: Path,
) -> None:
    other = create_certificate(tmp_path)
    ca = tmp_path / "tls.crt"
    ca.write_text(certificate(PEM.read_text()))
    async with running(echo, other) as port:
        client = GatewayClient(("127.0.0.1", port), ca)
        with pytest.raises(OSError, match="certificate verify failed"):
            await client.post("/v1/completions", b"{}", b"key-of-ann")

        ca.write_text("not a certificate")
        client.reload()
        ca.write_text((tmp_path / "crt").read_text())
        client.reload()
        assert (await client.post("/v1/completions", b"{}", b"key-of-ann")).status == 200
        client.close()


async def test_a_response_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def large(exchange: Exchange) -> None:
        exchange.respond(Response(200, b"x" * (MAX_RESPONSE + 1)))

    async with running(large) as port:
        client = GatewayClient(("127.0.0.1", port))
        with pytest.raises(ResponseTooLarge):
            await client.post("/v1/completions", b"{}", None)
        assert client.received == 0

        # Of several at the same time those are given up that exceed the total.
        monkeypatch.setattr(client_module, "MAX_RECEIVED", 1000)
        monkeypatch.setattr(client_module, "MAX_RESPONSE", 100_000_000)
        results = await asyncio.gather(
            *(client.post("/v1/completions", b"{}", None) for _ in range(4)),
            return_exceptions=True,
        )
        assert any(isinstance(each, ResponsesFull) for each in results)
        assert client.received == 0
        client.close()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"data": 1}', b'{"data": [{}]}', b"<html>", b'{"data": null}']
)
async def test_an_invalid_list_of_models_is_an_error(body: bytes) -> None:
    async with running(lambda exchange: exchange.respond(Response(200, body))) as port:
        client = GatewayClient(("127.0.0.1", port))
        with pytest.raises(OSError, match="list of models"):
            await client.models(None)
        client.close()


async def test_a_lost_connection_is_an_error() -> None:
    async with running(lambda exchange: exchange.abort(reset=True)) as port:
        client = GatewayClient(("127.0.0.1", port))
        with pytest.raises(ConnectionResetError):
            await client.post("/v1/completions", b"{}", None)
        client.close()
