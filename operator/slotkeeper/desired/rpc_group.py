"""Replicas of several pods: leaders, and the workers whose GPUs they compute with.

Leader i of the leaders' StatefulSet computes with pod i of each worker's StatefulSet. All are
scaled to the same number and roll from the highest pod down, so that a group comes and goes as one:

- a leader waits, before it starts, until each of its workers has a name, which it has when ready;
- a worker that is to go stays until its leader has let go of it, as it does when it is drained;
- a leader is replaced whenever its workers are, since its pods carry the hash of theirs;
- a leader whose worker is lost ends, and starts anew when there is another.
"""

import copy
import hashlib
import json

from slotkeeper.api.server import LlamaServer
from slotkeeper.api.workers import Workers
from slotkeeper.desired import names, network_and_pdb
from slotkeeper.desired.llama_container import (
    LOADING_SECONDS,
    REPLICA,
    resources,
    threads,
    worker_hosts,
)
from slotkeeper.desired.metadata import Manifest, container_security_context, metadata
from slotkeeper.desired.names import Component

WAIT_SCRIPT = """\
for worker; do
  until getent hosts "$worker" >/dev/null; do sleep 1; done
done
"""

WORK_SCRIPT = """\
PATH=$PATH:/app
for name in ggml-rpc-server rpc-server; do
  if command -v $name >/dev/null; then
    exec $name "$@"
  fi
done
echo "the image has no ggml-rpc-server on its PATH or in /app" >&2
exit 127
"""
"""Older builds call it rpc-server."""

# The kernel's table of connections: an rpc-server talks to one client at a time, and would take a
# probe's connection for its leader.
_PORT = f":{names.RPC_PORT:04X}"
LISTENS_SCRIPT = f"grep -qs '{_PORT} [0-9A-F]*:0000 0A ' /proc/net/tcp /proc/net/tcp6"
LEAVE_SCRIPT = f"""\
while grep -qs '{_PORT} [0-9A-F]*:[0-9A-F]* 01 ' /proc/net/tcp /proc/net/tcp6; do sleep 1; done
"""


_LEADERS_ONLY = {"initContainers", "topologySpreadConstraints"}
"""What of a leader's pod is no worker's: it has no model, and whoever spreads counts replicas."""


def manifests(server: LlamaServer, workers: Workers, deployment: Manifest) -> list[Manifest]:
    """What stands in for the replicas' Deployment where they have workers."""
    sets = [_workers(server, workers, deployment, number) for number in range(workers.count)]
    return [
        _service(server),
        _policy(server),
        network_and_pdb.worker_budget(server),
        *sets,
        _leaders(server, deployment, sets),
    ]


def _leaders(server: LlamaServer, deployment: Manifest, workers: list[Manifest]) -> Manifest:
    template = deployment["spec"]["template"]
    pod = template["spec"]
    about = template["metadata"]
    text = json.dumps([each["spec"]["template"] for each in workers], sort_keys=True)
    marks = {names.WORKERS_HASH_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]}
    return _stateful_set(
        deployment["metadata"] | {"name": names.leaders(server)},
        replicas=deployment["spec"]["replicas"],
        selector=deployment["spec"]["selector"]["matchLabels"],
        service=names.replicas(server),
        template={
            "metadata": about | {"annotations": {**about.get("annotations", {}), **marks}},
            "spec": pod
            | {
                "initContainers": [*pod["initContainers"], _wait(server, pod)],
                "containers": [_numbered(container) for container in pod["containers"]],
            },
        },
    )


def _numbered(container: Manifest) -> Manifest:
    number = {
        "name": REPLICA,
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{names.POD_INDEX_LABEL}']"}},
    }
    # First: Kubernetes puts a variable into what comes after it.
    return container | {"env": [number, *container.get("env", [])]}


def _wait(server: LlamaServer, pod: Manifest) -> Manifest:
    llama_server = _llama_server(pod)
    return _numbered(
        {
            "name": names.WAIT_CONTAINER,
            "image": llama_server["image"],
            "imagePullPolicy": llama_server["imagePullPolicy"],
            "command": ["/bin/sh", "-c", WAIT_SCRIPT, "sh", *worker_hosts(server)],
            "resources": {
                "requests": {"cpu": "10m", "memory": "16Mi"},
                "limits": {"memory": "64Mi"},
            },
            "securityContext": container_security_context(),
        }
    )


def _workers(server: LlamaServer, workers: Workers, deployment: Manifest, number: int) -> Manifest:
    template = copy.deepcopy(deployment["spec"]["template"])
    pod = template["spec"]
    labels = template["metadata"]["labels"]
    label = {names.WORKER_LABEL: str(number)}
    about = metadata(server, names.worker(server, number), Component.WORKER)
    about["labels"] |= label
    return _stateful_set(
        about,
        replicas=deployment["spec"]["replicas"],
        selector=names.identity(server, Component.WORKER) | label,
        service=names.workers(server),
        template={
            "metadata": template["metadata"]
            | {"labels": {**labels, **names.labels(server, Component.WORKER), **label}},
            "spec": {
                **{field: value for field, value in pod.items() if field not in _LEADERS_ONLY},
                # It may be the first to go, and then stays while the group before it is replaced.
                "terminationGracePeriodSeconds": LOADING_SECONDS
                + server.spec.update.drain_timeout_seconds,
                "containers": [_rpc_server(server, workers, _llama_server(pod))],
                "volumes": [volume for volume in pod["volumes"] if volume["name"] == "tmp"],
            },
        },
    )


def _rpc_server(server: LlamaServer, workers: Workers, llama_server: Manifest) -> Manifest:
    said = workers.resources or server.spec.resources
    cpus = threads(said)
    bound = [] if cpus is None else ["--threads", str(cpus)]
    address = ["--host", "0.0.0.0", "--port", str(names.RPC_PORT)]
    return {
        "name": names.WORKER_CONTAINER,
        "image": llama_server["image"],
        "imagePullPolicy": llama_server["imagePullPolicy"],
        "command": ["/bin/sh", "-c", WORK_SCRIPT, "rpc-server", *address, *bound],
        "ports": [{"name": names.RPC, "protocol": "TCP", "containerPort": names.RPC_PORT}],
        "resources": resources(said, server.spec.gpu),
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **({"env": llama_server["env"]} if "env" in llama_server else {}),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 (in the container)
        "readinessProbe": {
            "exec": {"command": ["/bin/sh", "-c", LISTENS_SCRIPT]},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", LEAVE_SCRIPT]}}},
    }


def _llama_server(pod: Manifest) -> Manifest:
    return next(
        container
        for container in pod["containers"]
        if container["name"] == names.LLAMA_SERVER_CONTAINER
    )


def _stateful_set(
    about: Manifest, *, replicas: int, selector: Manifest, service: str, template: Manifest
) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": about,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "serviceName": service,
            # One group's trouble is not another's, and a template that never was ready can be left.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": selector},
            "template": template,
        },
    }


def _service(server: LlamaServer) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(server, names.workers(server), Component.WORKER),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": False,
            "selector": names.identity(server, Component.WORKER),
            "ports": [
                {
                    "name": names.RPC,
                    "protocol": "TCP",
                    "port": names.RPC_PORT,
                    "targetPort": names.RPC,
                }
            ],
        },
    }


def _policy(server: LlamaServer) -> Manifest:
    """Lets only leaders in: an rpc-server does for everybody who reaches it whatever they ask."""
    leaders = {"podSelector": {"matchLabels": names.identity(server, Component.REPLICA)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(server, names.workers(server), Component.WORKER),
        "spec": {
            "podSelector": {"matchLabels": names.identity(server, Component.WORKER)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [leaders], "ports": [{"protocol": "TCP", "port": names.RPC_PORT}]}
            ],
        },
    }
