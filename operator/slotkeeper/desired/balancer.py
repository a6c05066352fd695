"""Manifests of the balancers: Deployment, RBAC, Lease, and the Service for clients.

None of them depends on slots or replicas, so that a change of these restarts no balancer: balancers
read them from the replicas. Only two estimates depend on a replica's memory: the maximum size of a
prompt and, unless `cachedPrompts` is set, the number of cached prompts, which depends on the
context too.
"""

import hashlib
import json
from collections.abc import Iterator

from slotkeeper.api import quantity
from slotkeeper.api.access_rules import ALL_PATHS, AccessRules
from slotkeeper.api.balancer import Balancer
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import (
    ACCESS_RULES_ANNOTATION,
    PRIME_ANNOTATION,
    START_BLOCKER_ANNOTATION,
)
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt, to_annotation
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names, resources
from slotkeeper.desired.images import Images
from slotkeeper.desired.llama_container import cache_ram_mib
from slotkeeper.desired.metadata import (
    MIB,
    RBAC_GROUP,
    Manifest,
    cluster_service,
    config_map_volume,
    container_security_context,
    metadata,
    pod_basics,
    pull_secrets,
    secret_volume,
    spread_over_nodes,
)
from slotkeeper.desired.metadata import role_binding as role_binding_of
from slotkeeper.desired.metadata import service_account as service_account_of
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import balancer_placement
from slotkeeper.flags import BalancerFlags, LogFlags
from slotkeeper.llamacpp.kv_cache import token_bytes_of_8b

SHUTDOWN_DELAY_SECONDS = 30
"""Longer than a terminating balancer still accepts requests before it drains."""

KEYS_FOLDER = "/etc/slotkeeper/api-keys"
KEYS_VOLUME = "api-keys"

PRIME_FOLDER = "/etc/slotkeeper/prime"
_PRIME_VOLUME = "prime"


def deployment(server: LlamaServer, images: Images, account_uid: str = "") -> Manifest:
    """Return the Deployment of the balancers: a leader, and standbys that forward requests.

    `account_uid`: of their ServiceAccount. If it is deleted and created again, the pods' tokens are
    not valid any more: a new uid replaces the pods.
    """
    template: Manifest = {
        "metadata": {
            "labels": names.labels(server, Component.BALANCER),
            "annotations": {names.ACCOUNT_UID_ANNOTATION: account_uid},
        },
        "spec": _pod(server, images),
    }
    template["metadata"]["annotations"][names.TEMPLATE_HASH_ANNOTATION] = _hash(template)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
        "spec": {
            "replicas": 0 if server.spec.suspend else server.spec.balancer.replicas,
            "revisionHistoryLimit": 2,
            # The old pod completes its requests while the new one accepts requests.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": names.match_labels(server, Component.BALANCER)},
            "template": template,
        },
    }


def service(server: LlamaServer) -> Manifest:
    """Return the Service for clients, with the server's name. Metrics and other scalers use its
    second port."""
    return cluster_service(server, names.client_service(server), Component.BALANCER)


def service_account(server: LlamaServer) -> Manifest:
    """Return the ServiceAccount of the balancers."""
    return service_account_of(server, names.balancer(server), Component.BALANCER)


def lease(server: LlamaServer) -> Manifest:
    """Return the Lease of the balancers' leader election. Its spec belongs to the balancers."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata(server, names.balancer(server), Component.BALANCER),
    }


def access_rules(server: LlamaServer) -> AccessRules:
    """Return the rules for clients."""
    spec = server.spec.balancer
    keys = spec.api_keys
    return AccessRules(
        spec.max_priority,
        keys.max_priorities if keys else {},
        frozenset(path.encode() for path in spec.allowed_paths or ()) or ALL_PATHS,
        keys.secret_name if keys else "",
    )


def role(server: LlamaServer, blocker: StartBlocker | None = None) -> Manifest:
    """Return the Role of the balancers: watch EndpointSlices and this Role, and hold their Lease.

    Its annotations are for the balancers: the access rules in force, the start blocker, and the
    beginnings of prompts in the spec.
    """
    role_metadata = metadata(server, names.balancer(server), Component.BALANCER)
    annotations = {ACCESS_RULES_ANNOTATION: access_rules(server).to_annotation()}
    if blocker:
        annotations[START_BLOCKER_ANNOTATION] = blocker.to_annotation()
    if prompts := _primed_prompts(server):
        annotations[PRIME_ANNOTATION] = to_annotation(prompts)
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "Role",
        "metadata": {**role_metadata, "annotations": annotations},
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
            {
                "apiGroups": [RBAC_GROUP],
                "resources": ["roles"],
                "resourceNames": [names.balancer(server)],
                "verbs": ["get", "list", "watch"],
            },
        ],
    }


def role_binding(server: LlamaServer) -> Manifest:
    """Return the RoleBinding of the balancers' ServiceAccount."""
    return role_binding_of(server, names.balancer(server), Component.BALANCER)


def cached_prompts(server: LlamaServer) -> int:
    """Return the number of prompts in a replica's cache, without those in its slots.

    The estimate assumes prompts that fill half of their slot, because conversations are seldom
    longer on average, and tokens of an 8B model, because that is a usual size. For
    other sizes `cachedPrompts` should be set: the cache has room for more prompts of a smaller
    model, and for fewer of a larger one.
    """
    cached = server.spec.balancer.prefix_affinity.cached_prompts
    if cached is not None:
        return cached
    spec = server.spec
    prompt = spec.context_tokens * token_bytes_of_8b(spec.kv_cache_type) / 2
    return int(cache_ram_mib(spec) * MIB / prompt)


def _pod(server: LlamaServer, images: Images) -> Manifest:
    pod = {
        "serviceAccountName": names.balancer(server),
        "automountServiceAccountToken": True,
        **pod_basics(),
        "terminationGracePeriodSeconds": server.spec.update.drain_timeout_seconds
        + SHUTDOWN_DELAY_SECONDS,
        **pull_secrets(server),
        **balancer_placement(server),
        "affinity": spread_over_nodes(server, Component.BALANCER),
        "containers": [_container(server, images)],
    }
    if volumes := list(_volumes(server)):
        pod["volumes"] = volumes
    return pod


def _volumes(server: LlamaServer) -> Iterator[Manifest]:
    if keys := server.spec.balancer.api_keys:
        yield secret_volume(KEYS_VOLUME, keys.secret_name)
    if server.spec.prime and (name := server.spec.prime.config_map_name):
        yield config_map_volume(_PRIME_VOLUME, name)


def _mounts(server: LlamaServer) -> Iterator[Manifest]:
    if server.spec.balancer.api_keys:
        yield {"name": KEYS_VOLUME, "mountPath": KEYS_FOLDER, "readOnly": True}
    if server.spec.prime and server.spec.prime.config_map_name:
        yield {"name": _PRIME_VOLUME, "mountPath": PRIME_FOLDER, "readOnly": True}


def _container(server: LlamaServer, images: Images) -> Manifest:
    container = {
        "name": names.BALANCER_CONTAINER,
        "image": images.balancer,
        "imagePullPolicy": images.pull_policy,
        "command": list(_command(server)),
        "env": [_pod_field("POD_NAME", "metadata.name")],
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
    if mounts := list(_mounts(server)):
        container["volumeMounts"] = mounts
    return container


def _command(server: LlamaServer) -> Iterator[str]:
    """All flags are set explicitly: none relies on a default of the balancer."""
    spec = server.spec.balancer
    yield from ("slotkeeper", "balancer")
    yield from (BalancerFlags.LISTEN, f"[::]:{names.BALANCER_PORT}")
    yield from (BalancerFlags.METRICS, f"[::]:{names.METRICS_PORT}")
    yield from (BalancerFlags.ENDPOINTS, f"{server.namespace}/{names.replicas(server)}")
    yield from (BalancerFlags.MODEL, server.model_name)
    # Also with a single replica: during a rollout there are two.
    yield from (BalancerFlags.LEASE, f"{server.namespace}/{names.balancer(server)}")
    yield from (BalancerFlags.IDENTITY, "$(POD_NAME)")
    yield from (BalancerFlags.PEERS, f"{server.namespace}/{names.client_service(server)}")
    yield from (BalancerFlags.ROLE, f"{server.namespace}/{names.balancer(server)}")
    yield from (BalancerFlags.MAX_QUEUED, str(spec.max_queued_requests))
    yield from (BalancerFlags.MAX_QUEUED_MIB, str(_mib(spec.max_queued_bytes)))
    yield from (BalancerFlags.MAX_BODY_MIB, str(_mib(spec.max_body_bytes)))
    yield from (BalancerFlags.MAX_BUFFERED_MIB, str(spec.max_buffered // MIB))
    yield from _connection_flags(spec)
    yield from (BalancerFlags.REPLICA_MEMORY_MIB, str(_replica_memory_mib(server)))
    yield BalancerFlags.MEDIA if server.spec.model.mmproj else BalancerFlags.NO_MEDIA
    yield from (BalancerFlags.QUEUE_TIMEOUT, str(spec.queue_timeout_seconds))
    yield from (BalancerFlags.COLD_START_TIMEOUT, str(spec.cold_start_timeout_seconds))
    yield from (BalancerFlags.DRAIN_TIMEOUT, str(server.spec.update.drain_timeout_seconds))
    if spec.prefix_affinity.enabled:
        yield from (
            BalancerFlags.PREFIX_AFFINITY,
            BalancerFlags.CACHED_PROMPTS,
            str(cached_prompts(server)),
        )
        yield from (BalancerFlags.MAX_AFFINITY_WAIT, str(spec.prefix_affinity.max_wait_seconds))
    else:
        yield BalancerFlags.NO_PREFIX_AFFINITY
    if prompts := server.spec.prompt_cache:
        yield from (BalancerFlags.PROMPT_FILES, str(names.PROMPT_FILES_PORT))
        yield from (BalancerFlags.PROMPT_MIN_TOKENS, str(prompts.min_tokens))
    yield from _prime_flags(server)
    if server.spec.speculative:
        yield BalancerFlags.SPECULATIVE
    if server.spec.workers:
        yield BalancerFlags.WORKERS
    # The access log is JSON and is written to the same stream.
    yield from (LogFlags.FORMAT, "json")
    yield from (BalancerFlags.MAX_PRIORITY, str(spec.max_priority))
    yield from (BalancerFlags.HEARTBEAT_INTERVAL, str(spec.heartbeat_seconds or 0))
    for path in spec.allowed_paths or ():
        yield from (BalancerFlags.ALLOWED_PATH, path)
    if spec.api_keys:
        yield from (BalancerFlags.API_KEYS, KEYS_FOLDER)
        yield from (BalancerFlags.API_KEYS_SECRET, spec.api_keys.secret_name)
        for name, priority in sorted(spec.api_keys.max_priorities.items()):
            # A single argument, because a key's name may begin with a hyphen.
            yield f"{BalancerFlags.KEY_MAX_PRIORITY}={name}={priority}"
        if spec.api_keys.max_running_requests:
            yield BalancerFlags.MAX_RUNNING_PER_KEY
            yield str(spec.api_keys.max_running_requests)
        for name, limit in sorted(spec.api_keys.max_running_requests_by_key.items()):
            yield f"{BalancerFlags.KEY_MAX_RUNNING}={name}={limit}"


def _prime_flags(server: LlamaServer) -> Iterator[str]:
    prime = server.spec.prime
    if prime is None:
        return
    yield from (BalancerFlags.PRIME_SECONDS, str(prime.max_seconds))
    if prime.config_map_name:
        yield from (BalancerFlags.PRIME_FOLDER, PRIME_FOLDER)
        yield from (BalancerFlags.PRIME_CONFIG_MAP, prime.config_map_name)
    if prime.learned:
        yield BalancerFlags.LEARN_PROMPTS


def _primed_prompts(server: LlamaServer) -> list[SpecPrompt]:
    prompts = server.spec.prime.prompts if server.spec.prime else ()
    return [
        SpecPrompt(PromptKind.CHAT, each.chat)
        if each.chat is not None
        else SpecPrompt(PromptKind.TEXT, each.text or "")
        for each in prompts
    ]


def _connection_flags(spec: Balancer) -> Iterator[str]:
    connections = spec.connections
    total = spec.max_connections
    yield from (BalancerFlags.MAX_CONNECTIONS, str(total))
    per_address = min(connections.max_per_address or total // 2, total)
    yield from (BalancerFlags.MAX_CONNECTIONS_PER_ADDRESS, str(per_address))
    yield from (BalancerFlags.IDLE_TIMEOUT, str(connections.idle_timeout_seconds))
    yield from (BalancerFlags.HEAD_TIMEOUT, str(connections.head_timeout_seconds))
    yield from (BalancerFlags.BODY_TIMEOUT, str(connections.body_timeout_seconds))
    yield from (BalancerFlags.WRITE_TIMEOUT, str(connections.write_timeout_seconds))


def _pod_field(name: str, field: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}


def _resources(server: LlamaServer) -> Manifest:
    spec = server.spec.balancer
    return resources.of_proxy(spec.resources, spec.memory_limit or 0)


def _replica_memory_mib(server: LlamaServer) -> int:
    memory = server.spec.resources.limits.get("memory")
    return 0 if memory is None else _mib(memory)


def _hash(template: Manifest) -> str:
    text = json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mib(size: int | str) -> int:
    return int(quantity.parse(size) / MIB)
