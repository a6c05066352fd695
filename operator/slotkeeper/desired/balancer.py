"""The balancers: their Deployment, what they may do, and the Service that clients use.

Nothing here follows from slots or replicas: a balancer reads those from the replicas themselves,
so that changing them restarts none. Only the estimate of cached prompts follows from a replica's
memory and context, while `cachedPrompts` is not set.
"""

from collections.abc import Iterator

from slotkeeper.api import quantity
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import START_BLOCKER_ANNOTATION
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.images import Images
from slotkeeper.desired.llama_container import cache_ram_mib
from slotkeeper.desired.metadata import (
    Manifest,
    container_security_context,
    metadata,
    pod_basics,
    pull_secrets,
)
from slotkeeper.desired.names import Component
from slotkeeper.flags import BalancerFlags, LogFlags
from slotkeeper.llamacpp.kv_cache import BITS_PER_VALUE

SHUTDOWN_DELAY_SECONDS = 30
"""More than the time for which a balancer that ends still takes requests, before it drains."""

KEYS_FOLDER = "/etc/slotkeeper/api-keys"
KEYS_VOLUME = "api-keys"

MIB = 1024**2
KIB_PER_TOKEN = 128
"""What a token takes in llama-server's cache with an 8B model: 32 layers of keys and values of
8 heads of 128 numbers, 16 bits each."""

RBAC_GROUP = "rbac.authorization.k8s.io"


def deployment(server: LlamaServer, images: Images) -> Manifest:
    """The balancers: one hands out the slots, the others pass requests on to it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
        "spec": {
            "replicas": 0 if server.spec.suspend else server.spec.balancer.replicas,
            "revisionHistoryLimit": 2,
            # The old one works on what it has while the new one takes requests.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": names.identity(server, Component.BALANCER)},
            "template": {
                "metadata": {"labels": names.labels(server, Component.BALANCER)},
                "spec": _pod(server, images),
            },
        },
    }


def service(server: LlamaServer) -> Manifest:
    """What clients use: named as the server. Its second port is for whoever measures and scales."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server, names.clients(server), Component.BALANCER),
        "spec": {
            "type": "ClusterIP",
            "selector": names.identity(server, Component.BALANCER),
            "ports": [
                _port(names.HTTP, names.CLIENT_PORT),
                _port(names.METRICS, names.METRICS_PORT),
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


def lease(server: LlamaServer, obstacle: StartBlocker | None = None) -> Manifest:
    """Says which balancer hands out the slots, which is the balancers' to write, and to them what
    keeps all replicas from starting."""
    about = metadata(server, names.balancer(server), Component.BALANCER)
    if obstacle:
        about["annotations"] = {START_BLOCKER_ANNOTATION: obstacle.to_annotation()}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": about}


def role(server: LlamaServer) -> Manifest:
    """What the balancers may: see which replicas are ready, and hold their Lease."""
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "Role",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
        "rules": [
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [names.balancer(server)],
                "verbs": ["get", "list", "watch", "patch"],
            },
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


def cached_prompts(server: LlamaServer) -> int:
    """How many prompts a replica's cache holds beside those in its slots.

    Where it is not said: prompts that fill half their slot, at a token's KIB_PER_TOKEN or what
    another type than f16 makes of it. Conversations are
    seldom longer on average, and 8B is a usual size. A smaller model's cache holds more, a larger
    one's fewer; then `cachedPrompts` says it better.
    """
    said = server.spec.balancer.prefix_affinity.cached_prompts
    if said is not None:
        return said
    spec = server.spec
    token_kib = KIB_PER_TOKEN * BITS_PER_VALUE[spec.kv_cache_type] / BITS_PER_VALUE["f16"]
    return int(cache_ram_mib(spec) * 1024 / (spec.context_per_slot * token_kib / 2))


def _pod(server: LlamaServer, images: Images) -> Manifest:
    pod = {
        "serviceAccountName": names.balancer(server),
        "automountServiceAccountToken": True,
        **pod_basics(),
        "terminationGracePeriodSeconds": server.spec.update.drain_timeout_seconds
        + SHUTDOWN_DELAY_SECONDS,
        **pull_secrets(server),
        "affinity": _anti_affinity(server),
        "containers": [_container(server, images)],
    }
    if keys := server.spec.balancer.api_keys:
        # Readable for the group, which fsGroup makes the container's own.
        secret = {"secretName": keys.secret_name, "defaultMode": 0o440, "optional": False}
        pod["volumes"] = [{"name": KEYS_VOLUME, "secret": secret}]
    return pod


def _port(name: str, number: int) -> Manifest:
    return {"name": name, "protocol": "TCP", "port": number, "targetPort": name}


def _anti_affinity(server: LlamaServer) -> Manifest:
    # Preferred only: a cluster may have a single node.
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {
                            "matchLabels": names.identity(server, Component.BALANCER)
                        },
                    },
                }
            ]
        }
    }


def _container(server: LlamaServer, images: Images) -> Manifest:
    container = {
        "name": names.BALANCER_CONTAINER,
        "image": images.balancer,
        "imagePullPolicy": images.pull_policy,
        "command": list(_command(server)),
        "env": [_from_pod("POD_NAME", "metadata.name"), _from_pod("POD_IP", "status.podIP")],
        "ports": [
            {"name": names.HTTP, "protocol": "TCP", "containerPort": names.BALANCER_PORT},
            {"name": names.METRICS, "protocol": "TCP", "containerPort": names.METRICS_PORT},
        ],
        "resources": _resources(server),
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": names.METRICS},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }
    if server.spec.balancer.api_keys:
        container["volumeMounts"] = [
            {"name": KEYS_VOLUME, "mountPath": KEYS_FOLDER, "readOnly": True}
        ]
    return container


def _command(server: LlamaServer) -> Iterator[str]:
    """All is said: no default of the balancer's is relied on."""
    spec = server.spec.balancer
    yield from ("slotkeeper", "balancer")
    yield from (BalancerFlags.LISTEN, f"0.0.0.0:{names.BALANCER_PORT}")
    yield from (BalancerFlags.METRICS, f"0.0.0.0:{names.METRICS_PORT}")
    yield from (BalancerFlags.ENDPOINTS, f"{server.namespace}/{names.replicas(server)}")
    yield from (BalancerFlags.MODEL, server.model_name)
    # A single one has it too: while it is replaced there are two.
    yield from (BalancerFlags.LEASE, f"{server.namespace}/{names.balancer(server)}")
    yield from (BalancerFlags.IDENTITY, "$(POD_NAME)", BalancerFlags.ADVERTISE, "$(POD_IP)")
    yield from (BalancerFlags.MAX_QUEUED, str(spec.max_queued_requests))
    yield from (BalancerFlags.MAX_QUEUED_MIB, str(_mib(spec.max_queued_bytes)))
    yield from (BalancerFlags.MAX_BODY_MIB, str(_mib(spec.max_body_bytes)))
    yield from (BalancerFlags.QUEUE_TIMEOUT, str(spec.queue_timeout_seconds))
    yield from (BalancerFlags.COLD_START_TIMEOUT, str(spec.cold_start_timeout_seconds))
    yield from (BalancerFlags.DRAIN_SECONDS, str(server.spec.update.drain_timeout_seconds))
    if spec.prefix_affinity.enabled:
        yield from (
            BalancerFlags.PREFIX_AFFINITY,
            BalancerFlags.CACHED_PROMPTS,
            str(cached_prompts(server)),
        )
        yield from (BalancerFlags.MAX_AFFINITY_WAIT, str(spec.prefix_affinity.max_wait_seconds))
    else:
        yield BalancerFlags.NO_PREFIX_AFFINITY
    # The access log is JSON, on the same stream.
    yield from (LogFlags.FORMAT, "json")
    yield from (BalancerFlags.MAX_PRIORITY, str(spec.max_priority))
    yield from (BalancerFlags.HEARTBEAT_SECONDS, str(spec.heartbeat_seconds or 0))
    for path in spec.allowed_paths or ():
        yield from (BalancerFlags.ALLOWED_PATH, path)
    if spec.api_keys:
        yield from (BalancerFlags.API_KEYS, KEYS_FOLDER)
        for name, priority in sorted(spec.api_keys.max_priorities.items()):
            # One argument: a key's name may begin with a hyphen.
            yield f"{BalancerFlags.KEY_MAX_PRIORITY}={name}={priority}"


def _from_pod(name: str, field: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}


def _resources(server: LlamaServer) -> Manifest:
    spec = server.spec.balancer
    if spec.resources is None:
        # Bodies that wait, as many again on their way in and out, and the process itself.
        return {
            "requests": {"cpu": "50m", "memory": "96Mi"},
            "limits": {"memory": f"{256 + 2 * _mib(spec.max_queued_bytes)}Mi"},
        }
    # As text, as the API server gives them back.
    return {
        kind: {name: str(amount) for name, amount in amounts.items()}
        for kind, amounts in (
            ("requests", spec.resources.requests),
            ("limits", spec.resources.limits),
        )
        if amounts
    }


def _mib(size: int | str) -> int:
    return int(quantity.parse(size) / MIB)
