"""Configuration files of a native node's components, as text. Pure."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from provider.constants import (
    DNS_SERVICE,
    DOMAIN,
    NODE,
    POD_RANGE,
    SERVER,
)

Tree = dict[str, Any]


def containerd(
    *, root: str, socket: str, network: str, plugins: str, pause: str, snapshots: str
) -> str:
    """Return containerd's config, with all paths below the cluster's own folders.

    `snapshots` is the name of the snapshotter plugin.
    """
    return f"""\
version = 2
root = "{root}"
state = "/run/containerd"

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Only a process with CAP_SYS_RESOURCE may lower a container's OOM score.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{network}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshots}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def pod_network() -> str:
    """Return the CNI config: a point-to-point link for each pod, routed by the node."""
    address_management = {"type": "host-local", "ranges": [[{"subnet": POD_RANGE}]]}
    plugin = {
        "type": "ptp",
        "ipam": address_management | {"routes": [{"dst": "0.0.0.0/0"}]},
    }
    return _text({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]})


def kubelet(*, socket: str, cgroup: str, authority: str, certificate: str, key: str) -> str:
    """Return the kubelet's config, without limits and reservations that depend on the host."""
    return _text(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "enforceNodeAllocatable": [],
            "resolvConf": "/dev/null",
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": DOMAIN,
            "podLogsDir": "/var/lib/kubelet/pod-logs",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%"},
            # Images were loaded by hand, and a deleted one could not be pulled again.
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "tlsCertFile": certificate,
            "tlsPrivateKeyFile": key,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": authority},
            },
            "authorization": {"mode": "Webhook"},
        }
    )


def kube_proxy(*, kubeconfig: str) -> str:
    """Return kube-proxy's config: short sync period, no change to the host's conntrack limits."""
    return _text(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": kubeconfig},
            "hostnameOverride": NODE,
            "clusterCIDR": POD_RANGE,
            "conntrack": {"maxPerCore": 0},
            "iptables": {"minSyncPeriod": "100ms"},
        }
    )


def kubeconfig(files: Mapping[str, bytes], user: str, cluster: str) -> str:
    """Return a kubeconfig for the user whose certificate and key are in `files`, by file name.

    `cluster`: the name of the context and of the cluster.
    """
    return _text(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "clusters": [
                {
                    "name": cluster,
                    "cluster": {
                        "server": SERVER,
                        "certificate-authority-data": _encoded(files["ca.crt"]),
                    },
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _encoded(files[f"{user}.crt"]),
                        "client-key-data": _encoded(files[f"{user}.key"]),
                    },
                }
            ],
        }
    )


def audit_policy() -> str:
    """Return an audit policy that logs each request's metadata: enough to count API writes."""
    rule = {"level": "Metadata", "omitStages": ["RequestReceived"]}
    return _text({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]})


def resolver() -> str:
    """Return a resolv.conf like that of a pod in namespace `default`."""
    search = f"default.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"nameserver {DNS_SERVICE}\nsearch {search}\noptions ndots:5\n"


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _text(tree: Tree) -> str:
    # JSON is YAML, and the standard library writes it.
    return json.dumps(tree, indent=2) + "\n"
