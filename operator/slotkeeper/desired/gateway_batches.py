"""Manifests of a gateway's batches: one pod with a volume, and who may connect to it."""

import math
from collections.abc import Iterator

from slotkeeper.api import quantity
from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.gateway_batches import GatewayBatches
from slotkeeper.api.gateway_memory import batches_limit
from slotkeeper.desired import names, resources
from slotkeeper.desired.gateway_secrets import KEYS_FOLDER, KEYS_VOLUME, TLS_FOLDER, TLS_VOLUME
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import (
    MIB,
    Manifest,
    cluster_service,
    container_security_context,
    metadata,
    pod_basics,
    pull_secrets,
    secret_volume,
)
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import gateway_placement
from slotkeeper.flags import BatchesFlags, LogFlags

DATA_FOLDER = "/var/lib/slotkeeper/batches"
DATA_VOLUME = "data"


def batches_manifests(gateway: LlamaGateway, images: Images) -> list[Manifest]:
    """Return the manifests of all child objects for batches; none without `spec.batches`."""
    batches = gateway.spec.batches
    if batches is None:
        return []
    claims = [] if batches.storage.size is None else [_claim(gateway, batches)]
    return [
        *claims,
        cluster_service(gateway, names.batches(gateway), Component.BATCHES),
        _network_policy(gateway),
        _deployment(gateway, batches, images),
    ]


def _claim(gateway: LlamaGateway, batches: GatewayBatches) -> Manifest:
    storage = batches.storage
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(storage.size)}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(gateway, names.batches(gateway), Component.BATCHES),
        "spec": spec,
    }


def _network_policy(gateway: LlamaGateway) -> Manifest:
    """Return the NetworkPolicy that lets only the gateway's pods connect, but for metrics.

    It is a second line: each request needs an API key here as well, if the gateway has any.
    """
    pods = {"podSelector": {"matchLabels": names.match_labels(gateway, Component.GATEWAY)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(gateway, names.batches(gateway), Component.BATCHES),
        "spec": {
            "podSelector": {"matchLabels": names.match_labels(gateway, Component.BATCHES)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [pods], "ports": [{"protocol": "TCP", "port": names.GATEWAY_PORT}]},
                {"ports": [{"protocol": "TCP", "port": names.METRICS_PORT}]},
            ],
        },
    }


def _deployment(gateway: LlamaGateway, batches: GatewayBatches, images: Images) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(gateway, names.batches(gateway), Component.BATCHES),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            # The database has one writer, and many volumes can be mounted on one node only.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": names.match_labels(gateway, Component.BATCHES)},
            "template": {
                "metadata": {"labels": names.labels(gateway, Component.BATCHES)},
                "spec": {
                    "automountServiceAccountToken": False,
                    **pod_basics(),
                    **pull_secrets(gateway),
                    **gateway_placement(gateway),
                    "containers": [_container(gateway, batches, images)],
                    "volumes": list(_volumes(gateway, batches)),
                },
            },
        },
    }


def _container(gateway: LlamaGateway, batches: GatewayBatches, images: Images) -> Manifest:
    mounts: list[Manifest] = [{"name": DATA_VOLUME, "mountPath": DATA_FOLDER}]
    if gateway.spec.api_keys:
        mounts.append({"name": KEYS_VOLUME, "mountPath": KEYS_FOLDER, "readOnly": True})
    if gateway.spec.tls:
        mounts.append({"name": TLS_VOLUME, "mountPath": TLS_FOLDER, "readOnly": True})
    return {
        "name": names.BATCHES_CONTAINER,
        "image": images.balancer,
        "imagePullPolicy": images.pull_policy,
        "command": list(_command(gateway, batches)),
        "ports": [
            {"name": names.HTTP, "protocol": "TCP", "containerPort": names.GATEWAY_PORT},
            {"name": names.METRICS, "protocol": "TCP", "containerPort": names.METRICS_PORT},
        ],
        "resources": resources.of_proxy(batches.resources, batches_limit(gateway.spec.max_body)),
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": names.METRICS},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "volumeMounts": mounts,
    }


def _volumes(gateway: LlamaGateway, batches: GatewayBatches) -> Iterator[Manifest]:
    claim = batches.storage.claim_name or names.batches(gateway)
    yield {"name": DATA_VOLUME, "persistentVolumeClaim": {"claimName": claim}}
    if gateway.spec.api_keys:
        yield secret_volume(KEYS_VOLUME, gateway.spec.api_keys.secret_ref.name)
    if gateway.spec.tls:
        volume = secret_volume(TLS_VOLUME, gateway.spec.tls.secret_name)
        # The key is for the gateway only.
        volume["secret"]["items"] = [{"key": "tls.crt", "path": "tls.crt"}]
        yield volume


def _command(gateway: LlamaGateway, batches: GatewayBatches) -> Iterator[str]:
    port = names.TLS_CLIENT_PORT if gateway.spec.tls else names.CLIENT_PORT
    yield from ("slotkeeper", "batches")
    yield from (BatchesFlags.GATEWAY, f"{gateway.name}.{gateway.namespace}.svc:{port}")
    yield from (BatchesFlags.DATA, DATA_FOLDER)
    yield from (BatchesFlags.LISTEN, f"[::]:{names.GATEWAY_PORT}")
    yield from (BatchesFlags.METRICS, f"[::]:{names.METRICS_PORT}")
    yield from (BatchesFlags.MAX_FILE_MIB, _mib(batches.max_file_bytes))
    if batches.max_storage_bytes is not None:
        yield from (BatchesFlags.MAX_STORAGE_MIB, _mib(batches.max_storage_bytes))
    yield from (BatchesFlags.MAX_LINE_MIB, str(math.ceil(gateway.spec.max_body / MIB)))
    yield from (BatchesFlags.RETENTION_DAYS, str(batches.retention_days))
    yield from (BatchesFlags.CONCURRENCY, str(batches.concurrency))
    if gateway.spec.api_keys:
        yield from (BatchesFlags.API_KEYS, KEYS_FOLDER)
    if gateway.spec.tls:
        yield from (BatchesFlags.GATEWAY_CERTIFICATE, f"{TLS_FOLDER}/tls.crt")
    yield from (LogFlags.FORMAT, "json")


def _mib(size: int | str) -> str:
    return str(math.ceil(quantity.parse(size) / MIB))
