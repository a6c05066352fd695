"""Manifests of a gateway: Deployment, RBAC, the Service for clients, and what bounds its pods.

The pods read their LlamaGateway and the LlamaServers from the API server, so that a change of their
specs restarts no pod: the Deployment depends only on what a pod itself needs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from slotkeeper.api.backend_folders import (
    BACKENDS_FOLDER,
    CA_FILE,
    CA_FOLDER,
    HOSTS_FILE,
    KEY_FILE,
    KEY_FOLDER,
)
from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.gateway_drain import DRAIN_SECONDS, SHUTDOWN_DELAY_SECONDS
from slotkeeper.api.gateway_memory import MAX_CONNECTIONS
from slotkeeper.api.group import GATEWAY_PLURAL, GROUP, PLURAL
from slotkeeper.desired import names, resources
from slotkeeper.desired.gateway_batches import batches_manifests
from slotkeeper.desired.gateway_secrets import KEYS_FOLDER, KEYS_VOLUME, TLS_FOLDER, TLS_VOLUME
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import (
    MIB,
    RBAC_GROUP,
    Manifest,
    container_security_context,
    metadata,
    pod_basics,
    pull_secrets,
    role_binding,
    secret_volume,
    service_account,
    service_port,
    spread_over_nodes,
)
from slotkeeper.desired.names import Component
from slotkeeper.desired.network_and_pdb import gateway_budget, gateway_policy
from slotkeeper.desired.placement import gateway_placement
from slotkeeper.flags import GatewayFlags, LogFlags


def manifests(
    gateway: LlamaGateway,
    images: Images,
    account_uid: str = "",
    backend_cidrs: Sequence[str] = (),
) -> list[Manifest]:
    """Return the manifests of all child objects, in the order in which they should be applied.

    `account_uid` is of the pods' ServiceAccount, `backend_cidrs` are the private addresses that
    external backends may have. Each call returns new trees, and equal trees for equal arguments.
    """
    return [
        service_account(gateway, names.gateway(gateway), Component.GATEWAY),
        role(gateway),
        role_binding(gateway, names.gateway(gateway), Component.GATEWAY),
        service(gateway),
        gateway_policy(gateway),
        gateway_budget(gateway),
        deployment(gateway, images, account_uid, backend_cidrs),
        *batches_manifests(gateway, images),
    ]


def role(gateway: LlamaGateway) -> Manifest:
    """Return the Role of the gateway's pods: read the gateways and servers of the namespace."""
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "Role",
        "metadata": metadata(gateway, names.gateway(gateway), Component.GATEWAY),
        "rules": [
            {
                "apiGroups": [GROUP],
                "resources": [GATEWAY_PLURAL, PLURAL],
                "verbs": ["get", "list", "watch"],
            }
        ],
    }


def service(gateway: LlamaGateway) -> Manifest:
    """Return the Service for clients, with the gateway's name."""
    service_metadata = metadata(gateway, gateway.name, Component.GATEWAY)
    if annotations := gateway.spec.service.annotations:
        service_metadata["annotations"] = dict(annotations)
    ports = [service_port(*_client_port(gateway))]
    # Metrics have no authentication: they are for the cluster only.
    if gateway.spec.service.type == "ClusterIP":
        ports.append(service_port(names.METRICS, names.METRICS_PORT))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": service_metadata,
        "spec": {
            "type": gateway.spec.service.type,
            "selector": names.match_labels(gateway, Component.GATEWAY),
            "ports": ports,
        },
    }


def deployment(
    gateway: LlamaGateway,
    images: Images,
    account_uid: str = "",
    backend_cidrs: Sequence[str] = (),
) -> Manifest:
    """Return the Deployment of the gateway's pods, all of which serve requests.

    `account_uid`: of their ServiceAccount. If it is deleted and created again, the pods' tokens are
    not valid any more: a new uid replaces the pods.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(gateway, names.gateway(gateway), Component.GATEWAY),
        "spec": {
            "replicas": gateway.spec.replicas,
            "revisionHistoryLimit": 2,
            # The old pod completes its requests while the new one accepts requests.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": names.match_labels(gateway, Component.GATEWAY)},
            "template": {
                "metadata": {
                    "labels": names.labels(gateway, Component.GATEWAY),
                    "annotations": {names.ACCOUNT_UID_ANNOTATION: account_uid},
                },
                "spec": _pod(gateway, images, backend_cidrs),
            },
        },
    }


def _pod(gateway: LlamaGateway, images: Images, backend_cidrs: Sequence[str]) -> Manifest:
    pod = {
        "serviceAccountName": names.gateway(gateway),
        "automountServiceAccountToken": True,
        **pod_basics(),
        "terminationGracePeriodSeconds": DRAIN_SECONDS + SHUTDOWN_DELAY_SECONDS,
        **pull_secrets(gateway),
        **gateway_placement(gateway),
        "affinity": spread_over_nodes(gateway, Component.GATEWAY),
        "containers": [_container(gateway, images, backend_cidrs)],
    }
    volumes = [secret_volume(name, secret) for name, secret, _ in _secrets(gateway)]
    volumes += [volume for volume, _ in _backend_volumes(gateway)]
    if volumes:
        pod["volumes"] = volumes
    return pod


def _container(gateway: LlamaGateway, images: Images, backend_cidrs: Sequence[str]) -> Manifest:
    port, _ = _client_port(gateway)
    container = {
        "name": names.GATEWAY_CONTAINER,
        "image": images.balancer,
        "imagePullPolicy": images.pull_policy,
        "command": list(_command(gateway, backend_cidrs)),
        "ports": [
            {"name": port, "protocol": "TCP", "containerPort": names.GATEWAY_PORT},
            {"name": names.METRICS, "protocol": "TCP", "containerPort": names.METRICS_PORT},
        ],
        "resources": resources.of_proxy(gateway.spec.resources, gateway.spec.memory_limit or 0),
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": names.METRICS},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }
    mounts = [
        {"name": name, "mountPath": folder, "readOnly": True}
        for name, _, folder in _secrets(gateway)
    ]
    mounts += [
        {"name": volume["name"], "mountPath": folder, "readOnly": True}
        for volume, folder in _backend_volumes(gateway)
    ]
    if mounts:
        container["volumeMounts"] = mounts
    return container


def _secrets(gateway: LlamaGateway) -> Iterator[tuple[str, str, str]]:
    """The Secrets of a pod: name of the volume, name of the Secret, folder."""
    spec = gateway.spec
    if spec.api_keys:
        yield KEYS_VOLUME, spec.api_keys.secret_ref.name, KEYS_FOLDER
    if spec.tls:
        yield TLS_VOLUME, spec.tls.secret_name, TLS_FOLDER


def _backend_volumes(gateway: LlamaGateway) -> Iterator[tuple[Manifest, str]]:
    """The volumes with Secrets of external backends, and the folder of each."""
    for backend in gateway.spec.external_backends:
        folder = f"{BACKENDS_FOLDER}/{backend.name}"
        if ref := backend.secret_ref:
            entries = {ref.key: KEY_FILE, "hosts": HOSTS_FILE}
            volume = _entries_volume(f"backend-key-{backend.name}", ref.name, entries)
            yield volume, f"{folder}/{KEY_FOLDER}"
        if ref := backend.ca_secret_ref:
            volume = _entries_volume(f"backend-ca-{backend.name}", ref.name, {ref.key: CA_FILE})
            yield volume, f"{folder}/{CA_FOLDER}"


def _entries_volume(name: str, secret: str, files: Mapping[str, str]) -> Manifest:
    """The volume of some entries of a Secret, without which the pod starts nevertheless.

    A backend that lacks its Secret must not keep the gateway from serving other models.
    """
    items = [{"key": key, "path": file.rpartition("/")[2]} for key, file in files.items()]
    source = {"secretName": secret, "defaultMode": 0o440, "optional": True, "items": items}
    return {"name": name, "secret": source}


def _command(gateway: LlamaGateway, backend_cidrs: Sequence[str]) -> Iterator[str]:
    yield from ("slotkeeper", "gateway")
    yield from (GatewayFlags.GATEWAY, f"{gateway.namespace}/{gateway.name}")
    yield from (GatewayFlags.LISTEN, f"[::]:{names.GATEWAY_PORT}")
    yield from (GatewayFlags.METRICS, f"[::]:{names.METRICS_PORT}")
    yield from (GatewayFlags.MAX_BODY_MIB, str(math.ceil(gateway.spec.max_body / MIB)))
    yield from (GatewayFlags.MAX_BUFFERED_MIB, str(gateway.spec.max_buffered // MIB))
    yield from (GatewayFlags.MAX_CONNECTIONS, str(MAX_CONNECTIONS))
    if gateway.spec.api_keys:
        yield from (GatewayFlags.API_KEYS, KEYS_FOLDER)
    if gateway.spec.tls:
        yield from (GatewayFlags.TLS, TLS_FOLDER)
    if any(_backend_volumes(gateway)):
        yield from (GatewayFlags.BACKENDS, BACKENDS_FOLDER)
    if gateway.spec.external_backends:
        for cidr in backend_cidrs:
            yield from (GatewayFlags.BACKEND_CIDR, cidr)
    # The access log is JSON and is written to the same stream.
    yield from (LogFlags.FORMAT, "json")


def _client_port(gateway: LlamaGateway) -> tuple[str, int]:
    """Name and number of the Service's port for clients."""
    if gateway.spec.tls:
        return names.HTTPS, names.TLS_CLIENT_PORT
    return names.HTTP, names.CLIENT_PORT
