"""Manifests of the replicas: Deployment, and the headless Service that the balancer watches."""

from slotkeeper.api.placement import QUEUE_LABEL
from slotkeeper.api.server import LlamaServer, LlamaServerSpec
from slotkeeper.desired import (
    llama_container,
    model_container,
    names,
    prompt_files,
    prompt_volume,
    resources,
)
from slotkeeper.desired.download_settings import NO_SETTINGS, DownloadSettings
from slotkeeper.desired.images import Images
from slotkeeper.desired.llama_container import LOADING_SECONDS
from slotkeeper.desired.metadata import Manifest, metadata, pod_basics, pull_secrets
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import placement


def deployment(
    server: LlamaServer, replicas: int, images: Images, downloads: DownloadSettings = NO_SETTINGS
) -> Manifest:
    """Return the Deployment, whose pods download and verify the model before they serve it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(server, names.replicas(server), Component.REPLICA),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            # Longer than loading may take: a slow start must not count as a failed rollout.
            "progressDeadlineSeconds": LOADING_SECONDS + server.spec.update.drain_timeout_seconds,
            "strategy": _strategy(server.spec),
            "selector": {"matchLabels": names.match_labels(server, Component.REPLICA)},
            "template": _template(server, images, downloads),
        },
    }


def service(server: LlamaServer) -> Manifest:
    """Return the headless Service, whose EndpointSlices list the ready replicas."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server, names.replicas(server), Component.REPLICA),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": False,
            "selector": names.match_labels(server, Component.REPLICA),
            "ports": [
                {
                    "name": names.HTTP,
                    "protocol": "TCP",
                    "port": names.LLAMA_SERVER_PORT,
                    "targetPort": names.HTTP,
                }
            ],
        },
    }


def _strategy(spec: LlamaServerSpec) -> Manifest:
    if spec.update.strategy == "Recreate":
        return {"type": "Recreate"}
    # There may be no spare GPU: a surge replica would stay pending forever.
    default = (0, 1) if spec.gpu.count else (1, 0)
    surge, unavailable = spec.update.surge_and_unavailable or default
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
    }


def _template(server: LlamaServer, images: Images, downloads: DownloadSettings) -> Manifest:
    template = server.spec.pod_template
    queue = server.spec.placement.queue_name
    labels = {
        **template.labels,
        **({QUEUE_LABEL: queue} if queue else {}),
        **names.labels(server, Component.REPLICA),
    }
    annotations = {"annotations": dict(template.annotations)} if template.annotations else {}
    return {"metadata": {"labels": labels, **annotations}, "spec": _pod(server, images, downloads)}


def _pod(server: LlamaServer, images: Images, downloads: DownloadSettings) -> Manifest:
    in_image = model_container.is_in_image(server.spec)
    init_containers = [
        *([] if in_image else [model_container.container(server, images, downloads)]),
        *prompt_files.init_containers(server, images),
    ]
    save_path = prompt_files.save_path(server, images)
    return {
        "automountServiceAccountToken": False,
        **pod_basics(server.spec.gpu.supplemental_groups),
        **resources.pod_claims(server.spec.gpu),
        "terminationGracePeriodSeconds": llama_container.grace_period(server.spec),
        **pull_secrets(server),
        **placement(server),
        **({"initContainers": init_containers} if init_containers else {}),
        "containers": [llama_container.container(server, images, save_path)],
        "volumes": [
            *model_container.volumes(server, downloads),
            {"name": "tmp", "emptyDir": {}},
            *prompt_volume.volumes(server, downloads),
            *(volume.model_dump(by_alias=True) for volume in server.spec.pod_template.volumes),
        ],
    }
