"""Which external backends a gateway connects to, and what proves who they are."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from external_backends import (
    CHAT,
    GPT,
    SPEC,
    WITH_KEY,
    backend,
    network_of,
    secrets_in,
)
from fake_llama import FakeLlama
from raw_http import post
from running_gateway import PUBLIC, Network, run_gateway
from slotkeeper.gateway.backends.secrets import BackendSecrets
from stepped_loop import SteppedLoop
from wait_until import until

PEM = Path(__file__).parents[2] / "support" / "tls_up_example.pem"


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"], ["::ffff:127.0.0.1", "fd00::1"], []],
)
async def test_a_name_with_forbidden_addresses_is_never_connected_to(addresses: list[str]) -> None:
    net = Network(names={"up.example": addresses})
    async with run_gateway(SPEC, net=net) as gateway:
        response = await gateway.request(post(CHAT, GPT))

        assert (response.status, response.error_code) == (502, "backend_address_not_allowed")
        assert net.dialed == []
        assert not any(address.encode() in response.body for address in addresses)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254"])
async def test_an_address_in_the_url_is_checked_too(host: str) -> None:
    spec = {"externalBackends": [backend(url=f"http://{host}/v1")]}
    net = Network()
    async with run_gateway(spec, net=net) as gateway:
        response = await gateway.request(post(CHAT, GPT))

        assert response.error_code == "backend_address_not_allowed"
        assert (net.dialed, net.lookups) == ([], [])


async def test_the_address_that_was_checked_is_connected_to() -> None:
    async with FakeLlama() as server:
        net = network_of(server)

        async def rebinding(host: str, port: int) -> list[str]:
            del host, port
            return [PUBLIC if len(net.dialed) == 0 else "127.0.0.1"]

        net.look_up = rebinding  # type: ignore[method-assign]
        async with run_gateway(SPEC, net=net) as gateway:
            assert (await gateway.request(post(CHAT, GPT))).status == 200
            assert net.dialed == [(PUBLIC, 80)]
            gateway.gateway.backends._close_except(())

            # A second connection resolves again, and checks again.
            response = await gateway.request(post(CHAT, GPT))
            assert response.error_code == "backend_address_not_allowed"
            assert net.dialed == [(PUBLIC, 80)]


async def test_allowed_addresses_are_tried_in_order() -> None:
    async with FakeLlama() as server:
        net = network_of(server, names={"up.example": ["10.0.0.1", "8.8.4.4", PUBLIC]})
        async with run_gateway(SPEC, net=net) as gateway:
            assert (await gateway.request(post(CHAT, GPT))).status == 200
            assert net.dialed == [("8.8.4.4", 80), (PUBLIC, 80)]


@pytest.mark.parametrize(
    ("host", "allowed"), [("vllm.default.svc", ()), ("up.example", ("10.0.0.0/8",))]
)
async def test_private_addresses_are_possible(host: str, allowed: tuple[str, ...]) -> None:
    spec = {"externalBackends": [backend(url=f"http://{host}:8000/v1")]}
    async with FakeLlama() as server:
        net = Network({host: ["10.0.0.1"]}, {("10.0.0.1", 8000): server}, allowed=allowed)
        async with run_gateway(spec, net=net) as gateway:
            assert (await gateway.request(post(CHAT, GPT))).status == 200
            assert server.calls[0].headers["host"] == f"{host}:8000"


async def test_a_name_that_does_not_resolve_delays_no_other_backend(clock: SteppedLoop) -> None:
    spec = {
        "externalBackends": [
            backend(),
            backend("slow", url="http://slow.example/v1", models=[{"name": "slow"}]),
        ],
        "timeouts": {"connectSeconds": 3},
    }
    async with FakeLlama() as server:
        net = network_of(server)
        looked_up = net.look_up

        async def stalls(host: str, port: int) -> list[str]:
            if host == "slow.example":
                net.lookups.append(host)
                await asyncio.Event().wait()
            return await looked_up(host, port)

        net.look_up = stalls  # type: ignore[method-assign]
        async with run_gateway(spec, net=net) as gateway:
            slow = [await gateway.start_request(post(CHAT, b'{"model":"slow"}')) for _ in range(3)]
            assert (await gateway.request(post(CHAT, GPT))).status == 200
            await until(lambda: net.lookups)
            await clock.advance(3)
            await clock.advance(0.2)
            await clock.advance(3)
            for client in slow:
                assert (await client.response()).error_code == "backend_unreachable"
            # One lookup for all of them, and for those that were tried again.
            assert net.lookups.count("slow.example") == 1


@pytest.mark.parametrize(
    ("key", "hosts"), [("sk-1", "other.example"), ("two words", "up.example"), ("", "up.example")]
)
async def test_a_key_is_not_sent_to_a_host_that_its_secret_does_not_list(
    key: str, hosts: str, tmp_path: Path
) -> None:
    async with FakeLlama() as server:
        secrets = secrets_in(tmp_path, key=key, hosts=hosts)
        async with run_gateway(WITH_KEY, net=network_of(server), secrets=secrets) as gateway:
            response = await gateway.request(post(CHAT, GPT))
            assert (response.status, response.error_code) == (503, "backend_key_missing")
            assert server.calls == []

            (tmp_path / "up" / "key" / "api-key").write_text("sk-2")
            (tmp_path / "up" / "key" / "hosts").write_text("other.example, UP.example")
            await secrets.check()
            assert (await gateway.request(post(CHAT, GPT))).status == 200
            assert server.calls[0].headers["authorization"] == "Bearer sk-2"


async def test_a_client_that_disconnects_while_connecting_is_forgotten() -> None:
    net = Network()
    resolving = asyncio.Event()

    async def stalls(host: str, port: int) -> list[str]:
        del host, port
        resolving.set()
        return await asyncio.Future()

    net.look_up = stalls  # type: ignore[method-assign]
    async with run_gateway(SPEC, net=net) as gateway:
        client = await gateway.start_request(post(CHAT, GPT))
        await resolving.wait()
        await client.close()
        await gateway.wait_idle()


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


async def test_tls_is_verified() -> None:
    spec = {"externalBackends": [backend(url="https://up.example/v1")]}

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=server_context())
    async with server:

        class Port:
            port = server.sockets[0].getsockname()[1]

        net = Network(servers={(PUBLIC, 443): Port()})
        async with run_gateway(spec, net=net) as gateway:
            response = await gateway.request(post(CHAT, GPT))
            assert (response.status, response.error_code) == (502, "backend_unreachable")
            assert b"certificate" in response.body.lower()


async def test_a_backend_may_have_certificate_authorities_of_its_own(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "url": "https://up.example/v1",
        "caSecretRef": {"name": "ca", "key": "ca.crt"},
    }
    secrets = BackendSecrets(tmp_path)
    folder = tmp_path / "up" / "ca"
    folder.mkdir(parents=True)
    async with FakeLlama(tls=server_context()) as server:
        net = Network(servers={(PUBLIC, 443): server})
        spec = {"externalBackends": [backend(**fields)]}
        async with run_gateway(spec, net=net, secrets=secrets) as gateway:
            response = await gateway.request(post(CHAT, GPT))
            assert (response.status, response.error_code) == (502, "backend_unreachable")
            assert b"caSecretRef" in response.body

            (folder / "ca.crt").write_text("no certificate")
            await secrets.check()
            assert (await gateway.request(post(CHAT, GPT))).error_code == "backend_unreachable"

            (folder / "ca.crt").write_bytes(PEM.read_bytes())
            await secrets.check()
            gateway.gateway.backends.record("up", 200)
            response = await gateway.request(post(CHAT, GPT))
            assert (response.status, len(server.calls)) == (200, 1)
