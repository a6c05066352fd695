"""The processes of a native cluster and their command lines. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provider.certificates import Certificate
from provider.layout import (
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
"""Whoever needs a kubeconfig."""

ISSUER = f"https://kubernetes.default.svc.{DOMAIN}"

CERTIFICATES: Sequence[Certificate] = (
    Certificate(
        "apiserver",
        "kube-apiserver",
        served_at=(
            *(f"IP:{address}" for address in (ADDRESS, API_SERVICE, "127.0.0.1")),
            *(f"DNS:kubernetes{rest}" for rest in ("", ".default", ".default.svc")),
            f"DNS:kubernetes.default.svc.{DOMAIN}",
        ),
    ),
    Certificate("kubelet-server", NODE, served_at=(f"IP:{ADDRESS}", f"DNS:{NODE}")),
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
    """A process of the node. `program` is built by us, or the host's where it has no path."""

    name: str
    program: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """The folders that the components' flags point into."""

    state: Path

    def key(self, name: str) -> str:
        """The path of a file of the cluster's keys and certificates."""
        return str(self.state / "keys" / name)

    def config(self, name: str) -> str:
        """The path of a component's configuration."""
        return str(self.state / "config" / name)

    def kubeconfig(self, user: str) -> str:
        """The path of a component's kubeconfig."""
        return self.config(f"{user}.kubeconfig")

    @property
    def audit_log(self) -> str:
        """Where the API server writes down each request."""
        return str(self.state / "logs" / "audit.log")

    def base(self) -> tuple[Component, ...]:
        """What the rest stands on: these start first."""
        return (
            Component("containerd", "containerd", ("--config", self.config("containerd.toml"))),
            Component("etcd", "etcd", tuple(self._etcd())),
            Component("kube-apiserver", "kube-apiserver", tuple(self._api_server())),
        )

    def clients(self) -> tuple[Component, ...]:
        """What starts once the API server answers."""
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
            # A machine that loses power loses a test cluster at worst.
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
            # By address: `kubectl logs` would look the node's name up in DNS, where it is not.
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
            # By default 20: then a thousand servers wait a quarter of an hour for their pods.
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
