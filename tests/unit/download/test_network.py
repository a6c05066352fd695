"""Downloads through proxies, and from hosts whose certificates a private authority signed."""

import ssl
from pathlib import Path

import pytest

from download_harness import DownloadHarness
from llamaservers import ROOT
from model_host import GGUF, SHA256, ModelHost, content, model_host
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.network import Network, proxied
from slotkeeper.download.transfer import new_client

CERTIFICATE = Path(ROOT, "tests/support/tls.pem")
"""A self-signed certificate for 127.0.0.1, valid until 2126, with its key."""


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def test_a_private_authority_is_trusted(server_tls: ssl.SSLContext, path: Path) -> None:
    with model_host(server_tls) as host, new_client(ca_file=CERTIFICATE) as client:
        host.respond_with(content())
        DownloadHarness(client, path).download(host.url, SHA256)

    assert path.read_bytes() == GGUF


def test_an_unknown_authority_is_reported_with_its_field(
    server_tls: ssl.SSLContext, harness: DownloadHarness
) -> None:
    with model_host(server_tls) as host:
        error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_CERTIFICATE_NOT_TRUSTED
    assert not error.transient
    assert "CERTIFICATE_VERIFY_FAILED" in error.message
    assert error.message.endswith(
        "set spec.model.download.caConfigMapRef if its authority is private"
    )


def test_a_host_without_tls_is_not_tried_again(host: ModelHost, harness: DownloadHarness) -> None:
    error = harness.download_error(host.url.replace("http://", "https://"))

    assert error.reason is Reason.MODEL_UNREACHABLE
    assert not error.transient
    assert "responds without TLS: use http://, or the port on which it has TLS" in error.message
    assert "SSL" not in error.message
    assert harness.delays == []


def test_a_missing_config_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        new_client(ca_file=tmp_path / "ca.crt", ca_config_map="authorities/root.pem")

    assert caught.value.reason is Reason.MODEL_CA_INVALID
    assert caught.value.message == (
        "the ConfigMap authorities (model.download.caConfigMapRef) or its entry root.pem does not "
        "exist"
    )


def test_a_config_map_without_certificates_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")

    with pytest.raises(DownloadError) as caught:
        new_client(ca_file=tmp_path / "ca.crt", ca_config_map="authorities/root.pem")

    assert "PEM format from the ConfigMap authorities/root.pem" in caught.value.message


@pytest.mark.parametrize("text", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nx"])
def test_a_missing_or_invalid_certificate_is_reported(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.crt"
    if text is not None:
        file.write_text(text)

    with pytest.raises(DownloadError, match=r"certificates in PEM format|does not exist") as caught:
        new_client(ca_file=file)

    assert caught.value.reason is Reason.MODEL_CA_INVALID
    assert "model.download.caConfigMapRef" in caught.value.message


def test_a_proxy_is_used_except_for_hosts_in_no_proxy(
    host: ModelHost, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", host.url.removesuffix("/model.gguf"))
    monkeypatch.setenv("NO_PROXY", "localhost,.svc,.svc.cluster.local")
    host.respond_with(content())
    with model_host() as direct, new_client() as client:
        direct.respond_with(content())
        harness = DownloadHarness(client, path)
        harness.download("http://models.example.org/model.gguf")
        harness.download(direct.url.replace("127.0.0.1", "localhost"))

    assert [headers["Host"] for headers in host.requests] == ["models.example.org"]
    assert len(direct.requests) == 1


@pytest.mark.parametrize(
    "no_proxy",
    ["[::1]", "::1", "a:b,::1", "fe80::1::,[::1]", "10.0.0.0/8,::1", "%,::1", "*.example.com,::1"],
)
def test_what_is_no_host_in_no_proxy_is_ignored(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)

    mounts = proxied(Network(), ssl.create_default_context())

    assert mounts["all://[::1]"] is None
    assert (mounts.get("all://*.example.com", "") is None) == ("example" in no_proxy)


@pytest.mark.parametrize(
    "proxy",
    ["http://p:CANARY", "http://p:99999", "http://p:0", "http://[::1", "http://", "ftp://CANARY"],
)
def test_a_proxy_that_is_none_is_reported_with_its_field(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(DownloadError, match=r"model\.download\.httpsProxy") as caught:
        new_client()

    assert caught.value.reason is Reason.MODEL_URL_NOT_ALLOWED
    assert "CANARY" not in caught.value.message
