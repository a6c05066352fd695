"""Where the API server is: read from a pod's environment and ServiceAccount, or a kubeconfig."""

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


async def authorization(found: endpoint.Endpoint) -> str | None:
    assert found.authorization is not None
    return await found.authorization()


@pytest.mark.parametrize(
    ("host", "url"),
    [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
)
async def test_a_pod_finds_its_own_cluster(account: Path, host: str, url: str) -> None:
    found = endpoint.in_cluster(POD | {"KUBERNETES_SERVICE_HOST": host}, account)

    assert found.url == url
    assert await authorization(found) == "Bearer first"


async def test_a_token_is_read_again_after_a_minute_and_not_before(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    found = endpoint.in_cluster(POD, account)
    await authorization(found)
    (account / "token").write_text("second")

    now += 59
    kept = await authorization(found)
    now += 2
    fresh = await authorization(found)

    assert (kept, fresh) == ("Bearer first", "Bearer second")


async def test_a_token_that_is_missing_for_a_moment_leaves_the_last_one(account: Path) -> None:
    found = endpoint.in_cluster(POD, account)
    (account / "token").write_text("")

    assert await authorization(found) == "Bearer first"


@pytest.mark.parametrize(
    ("environ", "file", "content", "message"),
    [
        pytest.param({}, None, "", "KUBERNETES_SERVICE_HOST", id="no pod"),
        pytest.param(POD, "token", None, "token", id="no token"),
        pytest.param(POD, "token", " ", "is empty", id="an empty token"),
        pytest.param(POD, "ca.crt", None, "cannot read", id="no authority"),
        pytest.param(POD, "ca.crt", "x", "cannot read", id="an authority that is none"),
    ],
)
def test_what_is_missing_is_named(
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


async def test_a_kubeconfig_wins_over_the_pod_s_own_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)

    found = await endpoint.connect(POD | {"KUBECONFIG": str(path)})

    assert (found.url, found.tls_server_name) == ("https://192.0.2.10:6443", "kubernetes")
    assert await authorization(found) == "Bearer abc"


def test_what_a_balancer_loads_has_no_pydantic_and_no_kubernetes_client() -> None:
    loads = "import sys, slotkeeper.balancer.main, slotkeeper.kube.client; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", loads], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "slotkeeper.kube.client" in loaded
    assert not {"pydantic", "kubernetes", "kopf"} & {*loaded}
