"""The API server's endpoint, from a pod's environment and ServiceAccount, or a kubeconfig."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from slotkeeper.kube import endpoint
from slotkeeper.kube.endpoint import NoClusterError

AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUfJ9LtZByq2+FyMi7QDUrC27Q6lAwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjkwMDI3MzRaGA8yMTI2MTEw
NTAwMjczNFowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABDllMIWQlhxjnOK5NcmJB1AdcYRguY/g8hM04iS8Ehhc6QcY8aS3
Xr2yhv2t77Y7B9QqInMlzOpIwEKCS/bZvOqjUzBRMB0GA1UdDgQWBBQnbN00cFIr
hlZt9qs6lQDusvP3HTAfBgNVHSMEGDAWgBQnbN00cFIrhlZt9qs6lQDusvP3HTAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIGxQgUZMoVaezK6tHUnv
sdXnjNTM4cRWXhZ0okcdTUDSAiEA03h4Xe/j4IgqA71VB7Xc/x7Lsuquq2negK1y
fS134WQ=
-----END CERTIFICATE-----
"""

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text(AUTHORITY)
    return tmp_path


async def authorization(server: endpoint.Endpoint) -> str | None:
    assert server.authorization is not None
    return await server.authorization()


@pytest.mark.parametrize(
    ("host", "url"),
    [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
)
async def test_a_pod_uses_its_own_cluster(account: Path, host: str, url: str) -> None:
    server = endpoint.in_cluster(POD | {"KUBERNETES_SERVICE_HOST": host}, account)

    assert server.url == url
    assert await authorization(server) == "Bearer first"


async def test_a_token_is_read_again_after_a_minute_and_not_before(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    server = endpoint.in_cluster(POD, account)
    await authorization(server)
    (account / "token").write_text("second")

    now += 59
    before = await authorization(server)
    now += 2
    after = await authorization(server)

    assert (before, after) == ("Bearer first", "Bearer second")


async def test_the_last_token_is_used_while_its_file_is_unreadable(account: Path) -> None:
    server = endpoint.in_cluster(POD, account)
    (account / "token").write_text("")

    assert await authorization(server) == "Bearer first"


@pytest.mark.parametrize(
    ("environ", "file", "content", "message"),
    [
        pytest.param({}, None, "", "KUBERNETES_SERVICE_HOST", id="no pod"),
        pytest.param(POD, "token", None, "token", id="no token"),
        pytest.param(POD, "token", " ", "is empty", id="an empty token"),
        pytest.param(POD, "ca.crt", None, "cannot read", id="no authority"),
        pytest.param(POD, "ca.crt", "x", "cannot read", id="an invalid authority"),
    ],
)
def test_the_error_names_what_is_missing(
    account: Path, environ: dict[str, str], file: str | None, content: str | None, message: str
) -> None:
    if file:
        (account / file).unlink()
    if file and content is not None:
        (account / file).write_text(content)

    with pytest.raises(NoClusterError, match=message):
        endpoint.in_cluster(environ, account)


KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "https://192.0.2.10:6443/", tls-server-name: kubernetes}}]
users: [{name: me, user: {token: abc}}]
"""


async def test_a_kubeconfig_takes_precedence_over_the_pods_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)

    server = await endpoint.connect(POD | {"KUBECONFIG": str(path)})

    assert (server.url, server.tls_server_name) == ("https://192.0.2.10:6443", "kubernetes")
    assert await authorization(server) == "Bearer abc"


def test_a_balancer_imports_neither_pydantic_nor_the_kubernetes_client() -> None:
    program = "import sys, slotkeeper.balancer.main, slotkeeper.kube.client; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "slotkeeper.kube.client" in loaded
    assert not {"pydantic", "kubernetes", "kopf"} & {*loaded}
