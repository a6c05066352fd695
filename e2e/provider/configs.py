"""The configuration files of a native node's components, as text. Pure."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from provider.layout import (
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
    """containerd's config: all of its paths its own, images unpacked by the `snapshots` plugin."""
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
  # A container's score may only be lowered by who has CAP_SYS_RESOURCE.
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
    """The CNI config: each pod on a link of its own, routed by the node."""
    address_management = {"type": "host-local", "ranges": [[{"subnet": POD_RANGE}]]}
    plugin = {
        "type": "ptp",
        "ipam": address_management | {"routes": [{"dst": "0.0.0.0/0"}]},
    }
    return _text({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]})


def kubelet(*, socket: str, cgroup: str, authority: str, certificate: str, key: str) -> str:
    """The kubelet's config: every limit that concerns the host's own business is off."""
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
            # Images were put there by hand, and nothing would bring them back.
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
    """kube-proxy's config: quick to follow changes, hands off the host's conntrack limits."""
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


def kubeconfig(files: Mapping[str, bytes], user: str) -> str:
    """A kubeconfig for the user whose certificate and key are among `files`."""
    return _text(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "slotkeeper",
            "contexts": [
                {"name": "slotkeeper", "context": {"cluster": "slotkeeper", "user": user}}
            ],
            "clusters": [
                {
                    "name": "slotkeeper",
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
    """Who did what, without bodies: enough to count API writes."""
    rule = {"level": "Metadata", "omitStages": ["RequestReceived"]}
    return _text({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]})


def resolver() -> str:
    """A resolv.conf with which the cluster's names resolve, as in a pod of `default`."""
    search = f"default.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"nameserver {DNS_SERVICE}\nsearch {search}\noptions ndots:5\n"


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _text(tree: Tree) -> str:
    # JSON is YAML, and the standard library writes it.
    return json.dumps(tree, indent=2) + "\n"
