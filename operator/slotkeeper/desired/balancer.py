"""The balancer: its Deployment, what it may read, and the Service that clients use.

Nothing here follows from slots or replicas: the balancer reads those from the replicas themselves,
so that changing them restarts no balancer.
"""

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import (
    DRAIN_SECONDS,
    Manifest,
    container_security_context,
    metadata,
    pod_security_context,
)
from slotkeeper.desired.names import Component

LINGER_SECONDS = 30
"""More than the time for which a balancer that ends still takes requests, before it drains."""

RBAC_GROUP = "rbac.authorization.k8s.io"


def deployment(server: LlamaServer, images: Images) -> Manifest:
    """One balancer."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            # The old one works on what it has while the new one takes requests.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": names.identity(server, Component.BALANCER)},
            "template": {
                "metadata": {"labels": names.labels(server, Component.BALANCER)},
                "spec": {
                    "serviceAccountName": names.balancer(server),
                    "automountServiceAccountToken": True,
                    "enableServiceLinks": False,
                    "securityContext": pod_security_context(),
                    "terminationGracePeriodSeconds": DRAIN_SECONDS + LINGER_SECONDS,
                    "containers": [_container(server, images)],
                },
            },
        },
    }


def service(server: LlamaServer) -> Manifest:
    """What clients use: named as the server."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server, names.clients(server), Component.BALANCER),
        "spec": {
            "type": "ClusterIP",
            "selector": names.identity(server, Component.BALANCER),
            "ports": [
                {
                    "name": names.HTTP,
                    "protocol": "TCP",
                    "port": names.CLIENT_PORT,
                    "targetPort": names.HTTP,
                }
            ],
        },
    }


def service_account(server: LlamaServer) -> Manifest:
    """Who the balancer is."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
        "automountServiceAccountToken": False,
    }


def role(server: LlamaServer) -> Manifest:
    """What the balancer may read: which replicas are ready, and nothing else."""
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "Role",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
        "rules": [
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["get", "list", "watch"],
            }
        ],
    }


def role_binding(server: LlamaServer) -> Manifest:
    """Gives the balancer its role."""
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": names.balancer(server)},
        "subjects": [
            {
                "kind": "ServiceAccount",
                "name": names.balancer(server),
                "namespace": server.namespace,
            }
        ],
    }


def _container(server: LlamaServer, images: Images) -> Manifest:
    return {
        "name": names.BALANCER_CONTAINER,
        "image": images.balancer,
        "imagePullPolicy": images.pull_policy,
        "command": [
            *("slotkeeper", "balancer"),
            *("--listen", f"0.0.0.0:{names.BALANCER_PORT}"),
            *("--metrics", f"0.0.0.0:{names.METRICS_PORT}"),
            *("--endpoints", f"{server.namespace}/{names.replicas(server)}"),
            *("--model", server.name),
        ],
        "ports": [
            {"name": names.HTTP, "protocol": "TCP", "containerPort": names.BALANCER_PORT},
            {"name": names.METRICS, "protocol": "TCP", "containerPort": names.METRICS_PORT},
        ],
        "resources": {
            "requests": {"cpu": "50m", "memory": "96Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": names.METRICS},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }
