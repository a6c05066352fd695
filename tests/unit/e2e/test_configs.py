"""The node's configuration files are consistent."""

import base64
import json
import tomllib
from pathlib import Path

from provider import configs, constants, dns
from provider.components import CERTIFICATES, USERS, Node


def containerd() -> str:
    return configs.containerd(
        root="/state/containerd",
        socket="/run/c.sock",
        network="/state/cni",
        plugins="/usr/lib/cni",
        pause="docker.io/slotkeeper/pause:1",
        snapshots="overlayfs",
    )


def test_containerd_uses_only_its_own_paths() -> None:
    parsed = tomllib.loads(containerd())

    plugins = parsed["plugins"]
    assert parsed["root"] == "/state/containerd"
    assert parsed["grpc"]["address"] == "/run/c.sock"
    assert plugins["io.containerd.internal.v1.opt"]["path"] == "/state/containerd/opt"
    assert plugins["io.containerd.grpc.v1.cri"]["cni"]["conf_dir"] == "/state/cni"
    assert plugins["io.containerd.grpc.v1.cri"]["restrict_oom_score_adj"] is True


def test_the_kubelet_stays_in_its_cgroup_and_accepts_both_cgroup_versions() -> None:
    parsed = json.loads(
        configs.kubelet(
            socket="/run/c.sock", cgroup="/slotkeeper/a", authority="ca", certificate="c", key="k"
        )
    )

    assert parsed["cgroupRoot"] == "/slotkeeper/a"
    assert parsed["failCgroupV1"] is False
    assert parsed["clusterDNS"] == [constants.DNS_SERVICE]


def test_a_kubeconfig_contains_its_users_certificate() -> None:
    files = {"ca.crt": b"authority", "admin.crt": b"certificate", "admin.key": b"key"}

    parsed = json.loads(configs.kubeconfig(files, "admin", "slotkeeper-a"))

    user = parsed["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == b"certificate"
    assert base64.b64decode(user["client-key-data"]) == b"key"
    assert parsed["clusters"][0]["cluster"]["server"] == "https://192.0.2.10:6443"
    assert parsed["current-context"] == "slotkeeper-a"


def test_every_user_of_the_api_has_a_certificate() -> None:
    assert set(USERS) <= {certificate.file for certificate in CERTIFICATES}


def test_components_refer_only_to_keys_that_are_created() -> None:
    node = Node(Path("/state"))
    created = {certificate.file for certificate in CERTIFICATES} | {
        certificate.authority for certificate in CERTIFICATES
    }

    flags = [flag for component in (*node.base(), *node.clients()) for flag in component.flags]
    keys = {flag.rpartition("/keys/")[2] for flag in flags if "/keys/" in flag}

    assert {key.rpartition(".")[0] for key in keys} <= created


def test_names_resolve_as_in_a_pod() -> None:
    assert configs.resolver().splitlines() == [
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "options ndots:5",
    ]


def test_coredns_listens_where_its_service_points() -> None:
    items = dns.manifests("coredns:1")["items"]
    service = next(item for item in items if item["kind"] == "Service")
    deployment = next(item for item in items if item["kind"] == "Deployment")

    assert {port["targetPort"] for port in service["spec"]["ports"]} == {dns.PORT}
    assert f".:{dns.PORT} " in dns.COREFILE
    assert service["spec"]["clusterIP"] == constants.DNS_SERVICE
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
