"""Which addresses downloads connect to: of every source, after redirects, with proxies."""

import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from download_harness import DownloadHarness
from fake_hub import FakeHub, fake_hub
from fake_network import PUBLIC, FakeNetwork
from llamaservers import ROOT
from model_host import GGUF, ModelHost, content, model_host, redirect, status
from ranged_model import RangedModel, large_model
from slotkeeper.address_guard import AddressGuard
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.main import main
from slotkeeper.download.network import Network
from slotkeeper.download.sources.s3 import Credentials, Store
from slotkeeper.download.transfer import new_client

METADATA = "169.254.169.254"
PEM = Path(ROOT, "tests/support/tls_up_example.pem")
"""A self-signed certificate for up.example, with its key."""


def at(host: ModelHost, name: str) -> str:
    """Return the URL of a host under another name."""
    return host.url.replace("127.0.0.1", name)


def run(network: Network, path: Path, url: str) -> DownloadHarness:
    with new_client(network=network) as client:
        harness = DownloadHarness(client, path)
        harness.download(url)
    return harness


def error_of(network: Network, path: Path, url: str) -> DownloadError:
    with new_client(network=network) as client:
        return DownloadHarness(client, path).download_error(url)


def test_a_public_address_is_connected_to(host: ModelHost, path: Path) -> None:
    fake = FakeNetwork(models_example=[PUBLIC])
    host.respond_with(content())

    run(fake.guarded(), path, at(host, "models.example"))

    assert path.read_bytes() == GGUF
    assert (fake.lookups, fake.connected) == (["models.example"], [PUBLIC])
    assert host.requests[0]["Host"].startswith("models.example:")


def test_a_certificate_is_verified_for_the_name_not_the_address(path: Path) -> None:
    fake = FakeNetwork(up_example=[PUBLIC], other_example=[PUBLIC])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    names: list[str] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    with (
        model_host(context) as host,
        new_client(network=fake.guarded(), ca_certificates=PEM.read_text()) as client,
    ):
        host.respond_with(content())
        DownloadHarness(client, path).download(at(host, "up.example"))
        error = DownloadHarness(client, path).download_error(at(host, "other.example"))

    assert names == ["up.example", "other.example"]
    assert "CERTIFICATE_VERIFY_FAILED" in error.message


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.5", "is not public: for a Service of the server's namespace"),
        ("192.168.1.1", "chart's value modelDownloads.allowedAddressRanges"),
        ("fd00::5", "is not public"),
        ("::ffff:10.0.0.5", "is not public"),
        ("64:ff9b::a00:5", "is not public"),
        (METADATA, "is a loopback, link-local, multicast, reserved or metadata address"),
        ("127.0.0.1", "is a loopback"),
        ("::1", "is a loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("2002:a9fe:a9fe::1", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("224.0.0.1", "multicast"),
    ],
)
def test_another_address_is_reported_and_not_connected_to(
    host: ModelHost, path: Path, address: str, why: str
) -> None:
    fake = FakeNetwork(models_example=[address])

    error = error_of(fake.guarded(), path, at(host, "models.example"))

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert not error.transient
    assert error.message.startswith(
        f"connecting to models.example is not allowed: its address {ip_address(address)} "
    )
    assert why in error.message
    assert (fake.connected, host.requests) == ([], [])


def test_the_chart_allows_ranges_but_never_those_of_the_node(host: ModelHost, path: Path) -> None:
    fake = FakeNetwork(
        models_example=["10.0.0.5"], metadata_example=[METADATA], local_example=["127.0.0.1"]
    )
    everything = fake.guarded("0.0.0.0/0", "::/0")
    host.respond_with(content())

    run(fake.guarded("10.0.0.0/8"), path, at(host, "models.example"))
    for name in ("metadata.example", "local.example"):
        error = error_of(everything, path, at(host, name))
        assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED

    assert fake.connected == ["10.0.0.5"]


def test_a_service_of_the_server_s_namespace_may_be_private(host: ModelHost, path: Path) -> None:
    fake = FakeNetwork(models_team_svc=["10.0.0.5"], models_other_svc=["10.0.0.6"])
    host.respond_with(content())

    run(fake.guarded(), path, at(host, "models.team.svc"))
    error = error_of(fake.guarded(), path, at(host, "models.other.svc"))

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert fake.connected == ["10.0.0.5"]


def test_of_several_addresses_only_allowed_ones_are_connected_to(
    host: ModelHost, path: Path
) -> None:
    fake = FakeNetwork(models_example=[f"127.0.0.1 10.0.0.5 2606:4700::1111 {PUBLIC}"])
    fake.unreachable = {"2606:4700::1111"}
    host.respond_with(content())

    run(fake.guarded(), path, at(host, "models.example"))

    assert fake.connected == ["2606:4700::1111", PUBLIC]


def test_a_name_that_resolves_differently_the_second_time_is_checked_again(
    host: ModelHost, path: Path
) -> None:
    fake = FakeNetwork(models_example=[PUBLIC, "10.0.0.5"])
    host.respond_with(content(cut=99))

    error = error_of(fake.guarded(), path, at(host, "models.example"))

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    # One lookup for each connection: the address that was checked is the one connected to.
    assert (len(fake.lookups), fake.connected) == (2, [PUBLIC])


def test_the_connections_of_segments_are_checked_too(host: ModelHost, path: Path) -> None:
    fake = FakeNetwork(models_example=[PUBLIC, METADATA])
    host.respond_with(RangedModel(large_model(16 * 1024**2)))

    error = error_of(fake.guarded(), path, at(host, "models.example"))

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert fake.connected == [PUBLIC]


@pytest.mark.parametrize(
    "location",
    [
        f"http://{METADATA}/latest/meta-data/iam?token=CANARY",
        f"http://user:CANARY@{METADATA}/",
        "http://[::ffff:169.254.169.254]/?CANARY",
        "http://private.example/?CANARY",
    ],
)
def test_a_redirect_is_checked(host: ModelHost, path: Path, location: str) -> None:
    fake = FakeNetwork(models_example=[PUBLIC], private_example=["10.0.0.5"])
    host.respond_with(redirect(location))

    error = error_of(fake.guarded(), path, at(host, "models.example"))

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert "CANARY" not in error.message
    assert fake.connected == [PUBLIC]


@pytest.mark.parametrize("name", ["web.team.svc", "web.team.svc.cluster.local", "WEB.team.svc."])
def test_a_host_beyond_the_cluster_does_not_redirect_into_it(
    host: ModelHost, path: Path, name: str
) -> None:
    fake = FakeNetwork(
        models_example=[PUBLIC], web_team_svc=["10.0.0.5"], other_team_svc=["10.0.0.6"]
    )
    host.respond_with(redirect(f"http://{name}:{httpx.URL(host.url).port}/delete?CANARY"))

    error = error_of(fake.guarded(), path, at(host, "models.example"))

    assert error.reason is Reason.MODEL_URL_NOT_ALLOWED
    assert "only hosts of the cluster may redirect to others" in error.message
    assert "CANARY" not in error.message
    assert fake.connected == [PUBLIC]


def test_a_host_of_the_cluster_redirects_to_others(host: ModelHost, path: Path) -> None:
    fake = FakeNetwork(web_team_svc=["10.0.0.5"], other_team_svc=["10.0.0.6"])
    host.respond_with(redirect(at(host, "other.team.svc")), content())

    run(fake.guarded(), path, at(host, "web.team.svc"))

    assert fake.connected == ["10.0.0.5", "10.0.0.6"]


def test_a_redirect_from_https_to_http_is_not_followed(path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    fake = FakeNetwork(up_example=[PUBLIC], models_example=[PUBLIC])
    with (
        model_host() as plain,
        model_host(context) as host,
        new_client(network=fake.guarded(), ca_certificates=PEM.read_text()) as client,
    ):
        host.respond_with(redirect(f"{at(plain, 'user:CANARY@models.example')}?CANARY"))
        error = DownloadHarness(client, path).download_error(at(host, "up.example"))

        assert error.reason is Reason.MODEL_URL_NOT_ALLOWED
        assert error.message == (
            f"{at(host, 'up.example')} redirects to {at(plain, 'models.example')}, which is not "
            "allowed: others can read and change what is sent by http://"
        )
        assert plain.requests == []


@pytest.mark.parametrize(
    "name",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001"),
        *("localhost", "LOCALHOST", "localhost.", "0", "0.0.0.0"),
        *("[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
    ],
)
def test_no_notation_of_loopback_is_connected_to(
    host: ModelHost, tmp_path: Path, name: str
) -> None:
    """The command, with the resolver of this machine."""
    log = tmp_path / "termination-log"
    log.touch()
    host.respond_with(content())

    code = main(
        [
            *("--address-guard", "team", "--allowed-addresses", "0.0.0.0/0"),
            *("--allowed-addresses", "::/0", "--termination-log", str(log), "--tries", "1"),
            *("--model", at(host, name), "--to", str(tmp_path / "model.gguf")),
        ]
    )

    assert code == 1
    assert json.loads(log.read_text())["reason"] == "ModelAddressNotAllowed"
    assert host.requests == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        # A link-local address with a zone.
        ("[fe80::1%25lo]", Reason.MODEL_ADDRESS_NOT_ALLOWED),
        ("[fe80::1%lo]", Reason.MODEL_ADDRESS_NOT_ALLOWED),
        ("0177.0.0.1", Reason.MODEL_URL_NOT_ALLOWED),
        ("1.2.3.400", Reason.MODEL_URL_NOT_ALLOWED),
        ("[::g]", Reason.MODEL_URL_NOT_ALLOWED),
        ("[v1.fe80::a]", Reason.MODEL_URL_NOT_ALLOWED),
        ("a..b", Reason.MODEL_UNREACHABLE),
        ("xn--a", Reason.MODEL_URL_NOT_ALLOWED),
        ("xn--.example.com", Reason.MODEL_URL_NOT_ALLOWED),
        ("x" * 64, Reason.MODEL_UNREACHABLE),
    ],
)
def test_a_host_that_cannot_be_one_is_reported(path: Path, name: str, reason: Reason) -> None:
    error = error_of(Network(AddressGuard("team")), path, f"http://{name}:81/model.gguf")

    assert error.reason is reason


@pytest.mark.parametrize(
    "location",
    [
        "http://a:CANARY/",
        "http://u:CANARY:x@[::1/",
        "http://1.2.3.CANARY4%zz:1x/",
        "http://\x01CANARY/",
        "//xn--a/CANARY",
        "http://xn--%00CANARY.svc/",
    ],
)
def test_a_redirect_to_what_is_no_url_is_reported_and_not_quoted(
    host: ModelHost, path: Path, location: str
) -> None:
    fake = FakeNetwork(models_example=[PUBLIC])
    host.respond_with(redirect(location))

    error = error_of(fake.guarded(), path, at(host, "models.example"))

    assert error.reason in {Reason.MODEL_URL_NOT_ALLOWED, Reason.MODEL_UNREACHABLE}
    assert "CANARY" not in error.message


# Every source connects with the same client.


def environment(client: httpx.Client, **settings: object) -> Environment:
    return Environment(
        client,
        clock=lambda: 0.0,
        sleep=lambda _: None,
        chance=lambda: 0.0,
        **settings,  # type: ignore[arg-type]
    )


def _hub(fake: FakeNetwork, _hub: FakeHub) -> tuple[str, dict[str, object]]:
    fake.answers["hub.example"] = ["10.0.0.5"]
    return "hf://org/Model-GGUF/m.gguf", {"hub_endpoint": "http://hub.example"}


def _object_store(fake: FakeNetwork, _hub: FakeHub) -> tuple[str, dict[str, object]]:
    fake.answers["store.example"] = [METADATA]
    credentials = Credentials(
        "CANARY-ID", "CANARY", frozenset({"store.example"}), lambda: datetime.now(UTC)
    )
    store = Store("http://store.example", path_style=True, credentials=credentials)
    return "s3://models/m.gguf", {"store": store}


def _registry(fake: FakeNetwork, _hub: FakeHub) -> tuple[str, dict[str, object]]:
    fake.answers["registry.example"] = ["172.16.0.1"]
    return "oci://registry.example/team/model:v1", {}


Source = Callable[[FakeNetwork, FakeHub], tuple[str, dict[str, object]]]


@pytest.mark.parametrize("source", [_hub, _object_store, _registry])
def test_each_source_is_checked(path: Path, source: Source) -> None:
    fake = FakeNetwork()
    with fake_hub() as hub, new_client(network=fake.guarded()) as client:
        url, settings = source(fake, hub)
        with pytest.raises(DownloadError) as caught:
            download(File(url, path), environment(client, **settings))

    assert caught.value.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert "CANARY" not in caught.value.message
    assert fake.connected == []


def test_the_host_of_a_hub_s_files_is_checked(path: Path) -> None:
    fake = FakeNetwork(hub_example=[PUBLIC])
    with fake_hub() as hub, new_client(network=fake.guarded()) as client:
        hub.push({"m.gguf": GGUF})
        endpoint = f"http://hub.example:{hub.port}"
        with pytest.raises(DownloadError) as caught:
            download(
                File("hf://org/Model-GGUF/m.gguf", path), environment(client, hub_endpoint=endpoint)
            )

    # The hub redirects to its content delivery network, which is on loopback here.
    assert caught.value.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert set(fake.connected) == {PUBLIC}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tokens.example", Reason.MODEL_ADDRESS_NOT_ALLOWED),
        ("tokens.team.svc", Reason.MODEL_URL_NOT_ALLOWED),
    ],
)
def test_the_server_of_a_registry_s_tokens_is_checked(
    path: Path, name: str, reason: Reason
) -> None:
    private = ["10.0.0.5"]
    fake = FakeNetwork(up_example=[PUBLIC], tokens_example=private, tokens_team_svc=private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    challenge = f'Bearer realm="https://{name}/token?CANARY",service="registry"'
    with (
        model_host(context) as host,
        new_client(network=fake.guarded(), ca_certificates=PEM.read_text()) as client,
    ):
        host.respond_with(status(401, **{"WWW-Authenticate": challenge}))
        port = httpx.URL(host.url).port
        with pytest.raises(DownloadError) as caught:
            download(File(f"oci://up.example:{port}/team/model:v1", path), environment(client))

    assert caught.value.reason is reason
    assert name in caught.value.message
    assert "CANARY" not in caught.value.message
    assert fake.connected == [PUBLIC]


# Proxies.


@pytest.fixture
def proxy(host: ModelHost, monkeypatch: pytest.MonkeyPatch) -> str:
    proxy = at(host, "proxy.example").removesuffix("/model.gguf")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "localhost,.svc,.direct.example,10.0.0.7,fd00::7")
    host.respond_with(content())
    return proxy


def test_a_proxy_of_the_chart_may_be_private(host: ModelHost, path: Path, proxy: str) -> None:
    fake = FakeNetwork(proxy_example=["10.0.0.5"])

    run(fake.guarded(trusted_proxies=[proxy]), path, "http://models.example/model.gguf")

    # The proxy resolves the host's name; its own is resolved as by any program.
    assert fake.lookups == []
    assert fake.connected == ["proxy.example"]
    assert host.requests[0]["Host"] == "models.example"


@pytest.mark.usefixtures("proxy")
def test_a_proxy_of_the_spec_is_checked(host: ModelHost, path: Path) -> None:
    fake = FakeNetwork(proxy_example=["10.0.0.5"])

    error = error_of(fake.guarded(), path, "http://models.example/model.gguf")

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert error.message.startswith("connecting to the proxy proxy.example is not allowed: ")
    assert (fake.connected, host.requests) == ([], [])
    fake.answers["proxy.example"] = [PUBLIC]
    run(fake.guarded(), path, "http://models.example/model.gguf")
    assert fake.connected == [PUBLIC]


@pytest.mark.parametrize(
    "name",
    [
        *(METADATA, "10.0.0.5", "2852039166", "0xa9fea9fe", "127.1"),
        *("[::1]", "[fd00:ec2::254]", "[fd00:ec2::254%251]", "localhost.", "a.localhost"),
    ],
)
def test_an_address_is_checked_even_with_a_proxy(
    host: ModelHost, path: Path, proxy: str, name: str
) -> None:
    fake = FakeNetwork()

    error = error_of(fake.guarded(trusted_proxies=[proxy]), path, f"http://{name}:81/model.gguf")

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert (fake.connected, host.requests) == ([], [])


@pytest.mark.parametrize("name", ["models.team.svc", "a.direct.example", "10.0.0.7", "[fd00::7]"])
def test_hosts_without_a_proxy_are_checked(
    host: ModelHost, path: Path, proxy: str, name: str
) -> None:
    fake = FakeNetwork()
    fake.answers = {name: [METADATA]}

    error = error_of(fake.guarded(trusted_proxies=[proxy]), path, at(host, name))

    assert error.reason is Reason.MODEL_ADDRESS_NOT_ALLOWED
    assert (fake.connected, host.requests) == ([], [])
