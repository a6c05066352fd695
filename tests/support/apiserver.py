"""A real kube-apiserver with its own etcd on the loopback interface, for a test session."""

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "of-a-server-on-loopback"
START_SECONDS = 60
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "Metadata", "omitStages": ["RequestReceived"]}],
}


@dataclass(frozen=True)
class ApiServer:
    """A running kube-apiserver."""

    client: httpx.Client
    """Authenticated as an administrator."""
    binaries: Path
    kubeconfig: Path
    audit_log: Path
    """A line of JSON for each request with a response."""

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl; return the completed process, whatever its exit status."""
        # Each call has its own discovery cache: kubectl's is valid for a second and more, and
        # tests change the API's schema more often.
        with TemporaryDirectory() as cache:
            return subprocess.run(
                [self.binaries / "kubectl", *arguments],
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": cache},
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

    def post(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> httpx.Response:
        """POST a manifest; return the response. Unknown fields are rejected, as with kubectl."""
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        return self.client.post(path, params=query, json=body)


def binaries() -> Path:
    """Return the folder of kube-apiserver, etcd and kubectl, which are built if missing.

    The environment variable SLOTKEEPER_BINARIES can name a folder with existing ones.
    """
    if folder := os.environ.get("SLOTKEEPER_BINARIES"):
        return Path(folder)
    printed = subprocess.run(
        [ROOT / "e2e/cluster", "binaries"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return Path(printed.strip().splitlines()[-1])


@contextmanager
def apiserver(folder: Path) -> Iterator[ApiServer]:
    """Run etcd and kube-apiserver inside of the `with`, with all of their files in `folder`."""
    programs = binaries()
    etcd_url = f"http://127.0.0.1:{free_port()}"
    peer_url = f"http://127.0.0.1:{free_port()}"
    port = free_port()
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
    with ExitStack() as running:
        running.enter_context(
            _process(
                folder / "etcd.log",
                programs / "etcd",
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd_url}",
                f"--advertise-client-urls={etcd_url}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=default={peer_url}",
            )
        )
        running.enter_context(
            _process(
                folder / "kube-apiserver.log",
                programs / "kube-apiserver",
                f"--etcd-servers={etcd_url}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--cert-dir={folder}",
                f"--token-auth-file={folder / 'tokens.csv'}",
                f"--audit-policy-file={folder / 'audit.yaml'}",
                f"--audit-log-path={folder / 'audit.log'}",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/24",
                "--endpoint-reconciler-type=none",
                "--service-account-issuer=https://kubernetes.default.svc",
                # The key of its self-signed certificate, which it creates before it reads these.
                f"--service-account-key-file={folder / 'apiserver.key'}",
                f"--service-account-signing-key-file={folder / 'apiserver.key'}",
                # No controller creates the ServiceAccounts that this plugin requires.
                "--disable-admission-plugins=ServiceAccount",
                # Enabled in OpenShift.
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
            )
        )
        yield _ready(running, programs, folder, f"https://127.0.0.1:{port}")


@contextmanager
def garbage_collector(api: ApiServer, log: Path) -> Iterator[None]:
    """Run a kube-controller-manager inside of the `with`, which deletes objects without owner.

    It handles only the kinds that exist when it starts.
    """
    with _process(
        log,
        api.binaries / "kube-controller-manager",
        f"--kubeconfig={api.kubeconfig}",
        "--controllers=garbage-collector-controller",
        "--leader-elect=false",
        "--secure-port=0",
    ):
        yield


def _ready(running: ExitStack, programs: Path, folder: Path, url: str) -> ApiServer:
    deadline = time.monotonic() + START_SECONDS
    certificate = folder / "apiserver.crt"
    while not certificate.exists():
        _wait(deadline, folder)
    client = running.enter_context(
        httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=str(certificate)),
            headers={"Authorization": f"Bearer {TOKEN}"},
            trust_env=False,
            timeout=30,
        )
    )
    while not _is_ready(client):
        _wait(deadline, folder)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(url, certificate)))
    return ApiServer(client, programs, kubeconfig, folder / "audit.log")


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _wait(deadline: float, folder: Path) -> None:
    if time.monotonic() > deadline:
        log = folder / "kube-apiserver.log"
        raise TimeoutError(f"kube-apiserver did not start:\n{log.read_text()[-3000:]}")
    time.sleep(0.1)


def _kubeconfig(url: str, certificate: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "clusters": [
            {"name": "test", "cluster": {"server": url, "certificate-authority": str(certificate)}}
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
    }


@contextmanager
def _process(log: Path, program: Path, *arguments: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return an unused port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
