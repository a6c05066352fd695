"""Manifests of CoreDNS, which resolves Services and pods and no outside names. Pure."""

from typing import Any

from provider.constants import DNS_SERVICE, DOMAIN

NAMESPACE = "kube-system"
LABELS = {"k8s-app": "kube-dns"}
PORT = 1053
"""CoreDNS's port: it runs unprivileged and cannot bind port 53, which is the Service's."""

COREFILE = f"""\
.:{PORT} {{
    errors
    health
    ready
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        ttl 5
    }}
}}
"""


def manifests(image: str) -> dict[str, Any]:
    """Return all manifests as one List."""
    items = [*_identity(), _configuration(), _deployment(image), _service()]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _identity() -> list[dict[str, Any]]:
    readable = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
    ]
    role = {"kind": "ClusterRole", "name": "system:coredns"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata("coredns")},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role["name"]},
            "rules": [rule | {"verbs": ["list", "watch"]} for rule in readable],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role["name"]},
            "roleRef": role | {"apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}],
        },
    ]


def _configuration() -> dict[str, Any]:
    data = {"Corefile": COREFILE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata("coredns"), "data": data}


def _deployment(image: str) -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsUser": 65532,
        },
    }
    pod = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata("coredns"),
        "spec": {
            "selector": {"matchLabels": dict(LABELS)},
            "template": {"metadata": {"labels": dict(LABELS)}, "spec": pod},
        },
    }


def _service() -> dict[str, Any]:
    ports = [
        {"name": "dns", "port": 53, "targetPort": PORT, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": PORT, "protocol": "TCP"},
    ]
    spec = {"selector": dict(LABELS), "clusterIP": DNS_SERVICE, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata("kube-dns"), "spec": spec}


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": dict(LABELS)}
