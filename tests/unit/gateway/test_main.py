"""Options, TLS and the process."""

import asyncio
import json
import shutil
import signal
import ssl
from pathlib import Path

import pytest

from balancer_process import run_process
from fake_llama import FakeLlama
from raw_http import RawClient, get
from running_gateway import run_gateway
from slotkeeper.gateway.config import GatewayConfig
from slotkeeper.gateway.main import set_body_limit
from slotkeeper.gateway.options import parse
from slotkeeper.gateway.tls import TlsFolder
from slotkeeper.wire.limits import MIB, Limits
from slotkeeper.wire.server import Server

PEM = Path(__file__).parents[2] / "support" / "tls.pem"
REQUIRED = ("--gateway", "default/llm", "--listen", "[::]:8080", "--metrics", "[::]:9090")


def test_the_required_flags_suffice() -> None:
    options = parse(REQUIRED)

    assert options.gateway == ("default", "llm")
    assert (options.listen, options.metrics) == (("::", 8080), ("::", 9090))
    assert (options.api_keys, options.tls) == (None, None)
    assert options.limits == Limits(max_buffered=128 * MIB)


@pytest.mark.parametrize(
    "flags", [(), ("--gateway", "llm"), ("--gateway", "a/b/c"), (*REQUIRED, "--replica", "a:1")]
)
def test_other_command_lines_are_rejected(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(flags)

    assert "usage: slotkeeper gateway" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("in_spec", "expected"), [(None, 32 * MIB), (4 * MIB, 4 * MIB), (10**12, 128 * MIB)]
)
async def test_the_spec_limits_a_body_within_the_memory(in_spec: int | None, expected: int) -> None:
    async with run_gateway() as gateway:
        config = GatewayConfig(max_body_bytes=in_spec)
        set_body_limit(gateway.client_server, parse(REQUIRED), config)

        assert gateway.client_server.listener.limits.max_body == expected


def write_certificate(folder: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        shutil.copy(PEM, folder / name)


async def test_clients_are_served_with_tls(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    tls = TlsFolder(tmp_path)
    tls.load()
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        server = Server(gateway.gateway.handle)
        _, port = await server.listen("127.0.0.1", 0, tls.context)
        context = ssl.create_default_context(cafile=str(PEM))
        context.check_hostname = False
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        async with RawClient(reader, writer, port) as client:
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert (await client.request(get("/health"))).status == 200
            body = b"x" * 1_000_000
            await client.send(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Model: one\r\n")
            await client.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert (await client.response()).status == 200

        async with await RawClient.connect(port) as plain:
            await plain.send(get("/health"))
            assert await plain.at_end()
        await server.close()


async def test_a_bad_certificate_does_not_replace_a_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError, match="cannot read the TLS certificate"):
        TlsFolder(tmp_path).load()
    write_certificate(tmp_path)
    tls = TlsFolder(tmp_path)
    tls.load()
    loaded = tls._loaded

    (tmp_path / "tls.key").write_text("no key")
    await tls.check()
    await tls.check()
    assert tls._loaded == loaded
    assert caplog.text.count("keeping the last certificate") == 1

    (tmp_path / "tls.key").write_bytes(PEM.read_bytes() + b"\n")
    await tls.check()
    assert tls._loaded != loaded


async def test_the_process_serves_its_health_is_not_ready_without_a_cluster_and_shuts_down(
    tmp_path: Path,
) -> None:
    kubeconfig = tmp_path / "config"
    cluster = {"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
    tree = {"clusters": [cluster], "contexts": [context], "users": [{"name": "a", "user": {}}]}
    kubeconfig.write_text(json.dumps(tree | {"current-context": "a"}))
    arguments = ("--gateway", "default/llm", "--shutdown-delay", "0")
    async with run_process(*arguments, command="gateway", KUBECONFIG=str(kubeconfig)) as gateway:
        await gateway.wait_log("llamaservers in namespace default failed")
        assert await gateway.readiness() == 503
        async with await RawClient.connect(gateway.port) as client:
            response = await client.request(get("/health"))
            assert (response.status, response.error_code) == (503, "not_synced")
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.wait_log("shutdown complete")
    assert gateway.process.returncode == 0
