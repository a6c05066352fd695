"""A request that wakes a server in vain is told why, in time; when that is mended, it is served."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from servers import QUICK, Server, spec
from stack import Cluster

TO_ZERO = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 1}
MISSING = QUICK.replace("quick", "missing")


T4 = {"count": 1, "computeArch": 7.5}


@pytest.fixture
def holder(cluster: Cluster, namespace: str) -> Iterator[Server]:
    """A server that holds the only GPU of the cluster."""
    cluster.call("gpus", "1", "--compute", "7.5")
    holder = Server(cluster, namespace, "holder")
    holder.ready(spec(gpu=T4))
    yield holder
    cluster.call("gpus", "0")


@dataclass(frozen=True)
class Policy:
    """An admission policy by which no server of a namespace may have a replica."""

    cluster: Cluster
    namespace: str
    message = "no replicas before Monday"

    def put(self) -> None:
        """Have the API server enforce it."""
        group = "admissionregistration.k8s.io/v1"
        where = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
        deployments = {
            "apiGroups": ["apps"],
            "apiVersions": ["v1"],
            "resources": ["deployments"],
            "operations": ["CREATE", "UPDATE"],
        }
        allowed = "!object.metadata.name.endsWith('-replicas') || object.spec.replicas == 0"
        self.cluster.apply(
            {
                "apiVersion": group,
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": self.namespace},
                "spec": {
                    "matchConstraints": {"resourceRules": [deployments]},
                    "validations": [{"expression": allowed, "message": self.message}],
                },
            },
            {
                "apiVersion": group,
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": self.namespace},
                "spec": {
                    "policyName": self.namespace,
                    "validationActions": ["Deny"],
                    "matchResources": {"namespaceSelector": where},
                },
            },
        )

    def withdraw(self) -> None:
        """Have it enforced no longer."""
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            self.cluster.kubectl("delete", kind, self.namespace, "--ignore-not-found")


@pytest.fixture
def policy(cluster: Cluster, namespace: str) -> Iterator[Policy]:
    policy = Policy(cluster, namespace)
    policy.put()
    yield policy
    policy.withdraw()


def test_a_model_that_cannot_be_had_is_named_within_half_a_minute(server: Server) -> None:
    server.apply(spec(MISSING, autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")

    status, headers, error = _asked(server, seconds=45)

    assert (status, error["code"]) == (503, "server_unavailable")
    assert MISSING in error["message"]
    assert "404" in error["message"]
    assert int(headers["retry-after"]) > 0

    server.apply(spec(autoscaling=TO_ZERO))
    [ending] = server.chat()

    assert ending["answered"], ending


def test_a_wake_that_failed_is_tried_anew(server: Server) -> None:
    server.apply(spec(MISSING, autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")
    codes = []
    for _ in range(2):
        _, _, error = _asked(server, seconds=45)
        codes.append(error["code"])
        server.wait_until_asleep()

    ups = [made for made in server.get()["status"]["scaling"]["history"] if made["to"] == 1]

    assert codes == ["server_unavailable"] * 2
    assert len(ups) == 2


def test_a_gpu_that_does_not_come_free_is_named_when_the_time_is_over(
    holder: Server, server: Server
) -> None:
    short = {"coldStartTimeoutSeconds": 15}
    server.apply(spec(gpu=T4, autoscaling=TO_ZERO, balancer=short))
    server.wait("condition=BalancerReady")

    status, headers, error = _asked(server, seconds=45)

    assert (status, error["code"]) == (503, "cold_start_timeout")
    assert "waiting for 1 nvidia.com/gpu" in error["message"]
    assert int(headers["retry-after"]) > 0

    holder.kubectl("delete", "llamaserver", holder.name)
    [ending] = server.chat()

    assert ending["answered"], ending


def test_a_policy_that_refuses_the_replica_is_named(policy: Policy, server: Server) -> None:
    server.apply(spec(autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")

    status, headers, error = _asked(server, seconds=45)

    assert (status, error["code"]) == (503, "server_unavailable")
    assert policy.message in error["message"]
    assert int(headers["retry-after"]) > 0

    policy.withdraw()
    # What was refused is tried ever more rarely, and forgotten when nobody asks.
    server.wait_for_reason("Ready", "ScaledToZero")
    [ending] = server.chat()

    assert ending["answered"], ending


def test_a_secret_that_is_not_there_is_named_when_the_time_is_over(server: Server) -> None:
    short = {"coldStartTimeoutSeconds": 15}
    gated = {"url": QUICK, "tokenSecretRef": {"name": "gate"}}
    server.apply(spec(autoscaling=TO_ZERO, balancer=short) | {"model": gated})
    server.wait("condition=BalancerReady")

    status, headers, error = _asked(server, seconds=45)

    assert (status, error["code"]) == (503, "cold_start_timeout")
    assert "Secret gate" in error["message"]
    assert int(headers["retry-after"]) > 0


def _asked(server: Server, *, seconds: int) -> tuple[int, dict[str, str], dict[str, Any]]:
    """The status, the headers and the error of an answer that comes within so many seconds."""
    told = server.cluster.read(
        *("run", "curl", "--silent", "--show-error", "--include", "--max-time", str(seconds)),
        *("--data", json.dumps({"prompt": "hello"}), f"{server.url}/completion"),
    )
    head, _, body = told.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)["error"]
