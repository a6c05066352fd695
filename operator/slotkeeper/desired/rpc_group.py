"""Replicas of several pods: a leader, and the workers whose GPUs it uses.

Leader i of the leaders' StatefulSet uses pod i of each worker's StatefulSet. All StatefulSets have
the same number of replicas and roll from the highest index down, so that a group is created and
replaced as one:

- a leader starts once all its workers are ready;
- a terminating worker stays until its leader disconnects, which it does after it has drained;
- a leader is replaced with its workers, because its pods are annotated with the hash of theirs;
- a leader that loses a worker exits, and starts when the worker is back.
"""

import copy
import hashlib
import json

from slotkeeper.api.server import LlamaServer
from slotkeeper.api.workers import Workers
from slotkeeper.desired import llama_container, names, network_and_pdb, resources, rpc_cache
from slotkeeper.desired.literal import literal
from slotkeeper.desired.llama_container import (
    LOADING_SECONDS,
    REPLICA_VARIABLE,
    threads,
    worker_hosts,
)
from slotkeeper.desired.metadata import Manifest, container_security_context, metadata
from slotkeeper.desired.names import Component

_PATH_SCRIPT = "PATH=$PATH:/app\n"
"""llama.cpp's images have their programs there."""

# rpc-server serves one client at a time. A connection that ends at once does not occupy it.
WAIT_SCRIPT = f"""\
trap exit TERM
connects() {{
  command -v bash >/dev/null || return 0
  timeout 2 bash -c ': <>"/dev/tcp/$0/{names.RPC_PORT}"' "$1" 2>/dev/null
}}
for worker; do
  shift
  [ "$worker" != -- ] || break
  tries=30 waits=
  until getent hosts "$worker" >/dev/null && {{ connects "$worker" || [ $((tries -= 1)) -lt 0 ]; }}
  do
    [ "$waits" ] || echo "waits for $worker"
    waits=1
    sleep 1
  done
done
"""
"""Waits for the workers that are its arguments, up to "--".

A name resolves when its worker is ready, and for a while after its end. Where it resolves and no
connection succeeds for half a minute, llama-server is to say so. Without bash the name is enough.
"""

LEAD_SCRIPT = f"""\
{WAIT_SCRIPT}\
{_PATH_SCRIPT}\
if command -v llama-server >/dev/null; then
  exec llama-server "$@"
fi
echo "the image has no llama-server on its PATH or in /app" >&2
exit 127
"""
"""The kubelet restarts a container that has ended twice only after a while, and a leader would end
until its workers are back. So it waits for them at each start."""

WORK_SCRIPT = f"""\
{_PATH_SCRIPT}\
for name in ggml-rpc-server rpc-server; do
  if command -v $name >/dev/null; then
    exec $name "$@"
  fi
done
echo "the image has no ggml-rpc-server on its PATH or in /app" >&2
exit 127
"""
"""The program is called rpc-server in older builds."""

# From the kernel's table of connections: an rpc-server serves one client at a time, and would treat
# the connection of a probe as its leader.
_PORT = f":{names.RPC_PORT:04X}"
LISTENS_SCRIPT = f"grep -qs '{_PORT} [0-9A-F]*:0000 0A ' /proc/net/tcp /proc/net/tcp6"
LEAVE_SCRIPT = f"""\
while grep -qs '{_PORT} [0-9A-F]*:[0-9A-F]* 01 ' /proc/net/tcp /proc/net/tcp6; do sleep 1; done
"""


_LEADERS_ONLY = {"initContainers", "topologySpreadConstraints"}
"""Fields of a leader's pod that a worker does not have: it needs no model, and replicas, not
workers, are spread."""


def manifests(server: LlamaServer, workers: Workers, deployment: Manifest) -> list[Manifest]:
    """Return the manifests that replace the replicas' Deployment if replicas have workers."""
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
    pod_metadata = template["metadata"]
    text = json.dumps([worker["spec"]["template"] for worker in workers], sort_keys=True)
    workers_hash = {names.WORKERS_HASH_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]}
    return _stateful_set(
        deployment["metadata"] | {"name": names.leaders(server)},
        replicas=deployment["spec"]["replicas"],
        selector=deployment["spec"]["selector"]["matchLabels"],
        service=names.replicas(server),
        template={
            "metadata": pod_metadata
            | {"annotations": {**pod_metadata.get("annotations", {}), **workers_hash}},
            "spec": pod
            | {
                "initContainers": [*pod.get("initContainers", []), _wait(server, pod)],
                "containers": [_leader(server, container) for container in pod["containers"]],
            },
        },
    )


def _with_index(container: Manifest) -> Manifest:
    index = {
        "name": REPLICA_VARIABLE,
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{names.POD_INDEX_LABEL}']"}},
    }
    # First: a variable can be used only in variables after it.
    return container | {"env": [index, *container.get("env", [])]}


def _leader(server: LlamaServer, llama_server: Manifest) -> Manifest:
    command = _shell(LEAD_SCRIPT, "llama-server", *worker_hosts(server), "--")
    return _with_index(llama_server | {"command": command})


def _shell(script: str, *arguments: str) -> list[str]:
    return ["/bin/sh", "-c", literal(script), *arguments]


def _wait(server: LlamaServer, pod: Manifest) -> Manifest:
    llama_server = _llama_server(pod)
    return _with_index(
        {
            "name": names.WAIT_CONTAINER,
            "image": llama_server["image"],
            "imagePullPolicy": llama_server["imagePullPolicy"],
            "command": _shell(WAIT_SCRIPT, "sh", *worker_hosts(server)),
            "resources": resources.of_init_container(server.spec.resources),
            "securityContext": container_security_context(),
        }
    )


def _workers(server: LlamaServer, workers: Workers, deployment: Manifest, number: int) -> Manifest:
    template = copy.deepcopy(deployment["spec"]["template"])
    pod = template["spec"]
    labels = template["metadata"]["labels"]
    label = {names.WORKER_LABEL: str(number)}
    set_metadata = metadata(server, names.worker(server, number), Component.WORKER)
    set_metadata["labels"] |= label
    return _stateful_set(
        set_metadata,
        replicas=deployment["spec"]["replicas"],
        selector=names.match_labels(server, Component.WORKER) | label,
        service=names.workers(server),
        template={
            "metadata": template["metadata"]
            | {"labels": {**labels, **names.labels(server, Component.WORKER), **label}},
            "spec": {
                **{field: value for field, value in pod.items() if field not in _LEADERS_ONLY},
                # It may be terminated first, and then waits until the group before it is replaced.
                "terminationGracePeriodSeconds": LOADING_SECONDS
                + server.spec.update.drain_timeout_seconds,
                "containers": [
                    rpc_cache.enable(
                        _rpc_server(server, workers, _llama_server(pod)), workers.cache
                    )
                ],
                "volumes": [
                    *(volume for volume in pod["volumes"] if volume["name"] == "tmp"),
                    *rpc_cache.volumes(workers.cache),
                ],
            },
        },
    )


def _rpc_server(server: LlamaServer, workers: Workers, llama_server: Manifest) -> Manifest:
    worker_resources = workers.resources or server.spec.resources
    thread_count = threads(worker_resources)
    thread_flag = [] if thread_count is None else ["--threads", str(thread_count)]
    address = ["--host", "0.0.0.0", "--port", str(names.RPC_PORT)]
    env = llama_container.environment(server.spec)
    return {
        "name": names.WORKER_CONTAINER,
        "image": llama_server["image"],
        "imagePullPolicy": llama_server["imagePullPolicy"],
        "command": _shell(WORK_SCRIPT, "rpc-server", *address, *thread_flag),
        "ports": [{"name": names.RPC, "protocol": "TCP", "containerPort": names.RPC_PORT}],
        "resources": resources.with_gpus(worker_resources, server.spec.gpu),
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **({"env": env} if env else {}),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 (in the container)
        "readinessProbe": {
            "exec": {"command": _shell(LISTENS_SCRIPT)},
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
    set_metadata: Manifest, *, replicas: int, selector: Manifest, service: str, template: Manifest
) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": set_metadata,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "serviceName": service,
            # Groups start independently, and a rollout can replace a template that never became
            # ready.
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
            "selector": names.match_labels(server, Component.WORKER),
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
    """Return the NetworkPolicy for leaders only: an rpc-server has no access control."""
    leaders = {"podSelector": {"matchLabels": names.match_labels(server, Component.REPLICA)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(server, names.workers(server), Component.WORKER),
        "spec": {
            "podSelector": {"matchLabels": names.match_labels(server, Component.WORKER)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [leaders], "ports": [{"protocol": "TCP", "port": names.RPC_PORT}]}
            ],
        },
    }
