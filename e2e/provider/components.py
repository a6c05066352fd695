"""The processes of a native cluster and their command lines. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provider.certificates import Certificate
from provider.constants import (
    ADDRESS,
    API_PORT,
    API_SERVICE,
    DOMAIN,
    NODE,
    POD_RANGE,
    SERVICE_RANGE,
)

ETCD_URL = "http://127.0.0.1:2379"
ETCD_PEER_URL = "http://127.0.0.1:2380"
ADMIN = "admin"
CONTROLLERS = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
KUBELET = "kubelet"
PROXY = "kube-proxy"
USERS = (ADMIN, CONTROLLERS, SCHEDULER, KUBELET, PROXY)
"""Users that need a kubeconfig."""

ISSUER = f"https://kubernetes.default.svc.{DOMAIN}"

CERTIFICATES: Sequence[Certificate] = (
    Certificate(
        "apiserver",
        "kube-apiserver",
        alternative_names=(
            *(f"IP:{address}" for address in (ADDRESS, API_SERVICE, "127.0.0.1")),
            *(f"DNS:kubernetes{rest}" for rest in ("", ".default", ".default.svc")),
            f"DNS:kubernetes.default.svc.{DOMAIN}",
        ),
    ),
    Certificate("kubelet-server", NODE, alternative_names=(f"IP:{ADDRESS}", f"DNS:{NODE}")),
    Certificate("apiserver-to-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
    Certificate("service-accounts", "service-accounts"),
    Certificate("front-proxy", "front-proxy-client", authority="front-proxy-ca"),
    Certificate(ADMIN, "kubernetes-admin", "system:masters"),
    Certificate(CONTROLLERS, "system:kube-controller-manager"),
    Certificate(SCHEDULER, "system:kube-scheduler"),
    Certificate(KUBELET, f"system:node:{NODE}", "system:nodes"),
    Certificate(PROXY, "system:kube-proxy"),
)


@dataclass(frozen=True)
class Component:
    """A process of the node. `program` is one of ours, otherwise one of the host's PATH."""

    name: str
    program: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """The node's components, whose flags refer to files below `state`."""

    state: Path

    def key(self, name: str) -> str:
        """Path of a key or certificate."""
        return str(self.state / "keys" / name)

    def config(self, name: str) -> str:
        """Path of a component's configuration file."""
        return str(self.state / "config" / name)

    def kubeconfig(self, user: str) -> str:
        """Path of a user's kubeconfig."""
        return self.config(f"{user}.kubeconfig")

    @property
    def audit_log(self) -> str:
        """Path of the API server's audit log."""
        return str(self.state / "logs" / "audit.log")

    def base(self) -> tuple[Component, ...]:
        """Components that start first, because all others depend on them."""
        return (
            Component("containerd", "containerd", ("--config", self.config("containerd.toml"))),
            Component("etcd", "etcd", tuple(self._etcd())),
            Component("kube-apiserver", "kube-apiserver", tuple(self._api_server())),
        )

    def clients(self) -> tuple[Component, ...]:
        """Clients of the API server, which start when it is ready."""
        return (
            Component(CONTROLLERS, CONTROLLERS, tuple(self._controllers())),
            Component(SCHEDULER, SCHEDULER, tuple(self._scheduler())),
            Component(KUBELET, KUBELET, tuple(self._kubelet())),
            Component(PROXY, PROXY, (f"--config={self.config('kube-proxy.yaml')}",)),
        )

    def _etcd(self) -> Sequence[str]:
        return (
            f"--data-dir={self.state / 'etcd'}",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={ETCD_PEER_URL}",
            f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
            f"--initial-cluster=default={ETCD_PEER_URL}",
            # After a power failure a test cluster may be lost, nothing else.
            "--unsafe-no-fsync",
        )

    def _api_server(self) -> Sequence[str]:
        return (
            f"--advertise-address={ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--etcd-servers={ETCD_URL}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={self.key('ca.crt')}",
            f"--tls-cert-file={self.key('apiserver.crt')}",
            f"--tls-private-key-file={self.key('apiserver.key')}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={self.key('service-accounts.crt')}",
            f"--service-account-signing-key-file={self.key('service-accounts.key')}",
            f"--audit-policy-file={self.config('audit.yaml')}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=1",
            *self._api_server_to_kubelet(),
            *self._api_server_to_aggregated(),
        )

    def _api_server_to_kubelet(self) -> Sequence[str]:
        return (
            # Otherwise `kubectl logs` resolves the node's name in DNS, which does not contain it.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={self.key('ca.crt')}",
            f"--kubelet-client-certificate={self.key('apiserver-to-kubelet.crt')}",
            f"--kubelet-client-key={self.key('apiserver-to-kubelet.key')}",
        )

    def _api_server_to_aggregated(self) -> Sequence[str]:
        return (
            "--enable-aggregator-routing",
            f"--requestheader-client-ca-file={self.key('front-proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={self.key('front-proxy.crt')}",
            f"--proxy-client-key-file={self.key('front-proxy.key')}",
        )

    def _controllers(self) -> Sequence[str]:
        return (
            f"--kubeconfig={self.kubeconfig(CONTROLLERS)}",
            f"--root-ca-file={self.key('ca.crt')}",
            f"--service-account-private-key-file={self.key('service-accounts.key')}",
            f"--cluster-cidr={POD_RANGE}",
            f"--flex-volume-plugin-dir={self.state / 'volume-plugins'}",
            "--use-service-account-credentials",
            # With the default of 20, the pods of 1,000 servers take 15 minutes to be created.
            "--kube-api-qps=300",
            "--kube-api-burst=600",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )

    def _scheduler(self) -> Sequence[str]:
        return (
            f"--kubeconfig={self.kubeconfig(SCHEDULER)}",
            "--kube-api-qps=300",
            "--kube-api-burst=600",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )

    def _kubelet(self) -> Sequence[str]:
        return (
            f"--config={self.config('kubelet.yaml')}",
            f"--kubeconfig={self.kubeconfig(KUBELET)}",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
        )
