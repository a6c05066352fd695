"""After a failed cold start the error response states the reason; a correction makes it succeed."""

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
def gpu_user(cluster: Cluster, namespace: str) -> Iterator[Server]:
    """A server that uses the only GPU of the cluster."""
    cluster.call("gpus", "1", "--compute", "7.5")
    gpu_user = Server(cluster, namespace, "gpu-user")
    gpu_user.ready(spec(gpu=T4))
    yield gpu_user
    cluster.call("gpus", "0")


@dataclass(frozen=True)
class Policy:
    """An admission policy that denies replicas to all servers of a namespace."""

    cluster: Cluster
    namespace: str
    message = "no replicas before Monday"

    def create(self) -> None:
        """Create the policy and its binding."""
        group = "admissionregistration.k8s.io/v1"
        selector = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
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
                    "matchResources": {"namespaceSelector": selector},
                },
            },
        )

    def delete(self) -> None:
        """Delete the policy and its binding."""
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            self.cluster.kubectl("delete", kind, self.namespace, "--ignore-not-found")


@pytest.fixture
def policy(cluster: Cluster, namespace: str) -> Iterator[Policy]:
    policy = Policy(cluster, namespace)
    policy.create()
    yield policy
    policy.delete()


def test_a_missing_model_is_reported_within_half_a_minute(server: Server) -> None:
    server.apply(spec(MISSING, autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")

    status, headers, error = _request(server, seconds=45)

    assert (status, error["code"]) == (503, "server_unavailable")
    assert MISSING in error["message"]
    assert "404" in error["message"]
    assert int(headers["retry-after"]) > 0

    server.apply(spec(autoscaling=TO_ZERO))
    [result] = server.chat()

    assert result["completed"], result


def test_a_failed_cold_start_is_retried(server: Server) -> None:
    server.apply(spec(MISSING, autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")
    codes = []
    for _ in range(2):
        _, _, error = _request(server, seconds=45)
        codes.append(error["code"])
        server.wait_until_scaled_to_zero()

    history = server.get()["status"]["scaling"]["history"]
    scale_ups = [entry for entry in history if entry["to"] == 1]

    assert codes == ["server_unavailable"] * 2
    assert len(scale_ups) == 2


def test_a_missing_free_gpu_is_reported_after_the_cold_start_timeout(
    gpu_user: Server, server: Server
) -> None:
    short = {"coldStartTimeoutSeconds": 15}
    server.apply(spec(gpu=T4, autoscaling=TO_ZERO, balancer=short))
    server.wait("condition=BalancerReady")

    status, headers, error = _request(server, seconds=45)

    assert (status, error["code"]) == (503, "cold_start_timeout")
    assert "waiting for 1 nvidia.com/gpu" in error["message"]
    assert int(headers["retry-after"]) > 0

    gpu_user.kubectl("delete", "llamaserver", gpu_user.name)
    [result] = server.chat()

    assert result["completed"], result


def test_an_admission_policy_that_denies_the_replica_is_reported(
    policy: Policy, server: Server
) -> None:
    server.apply(spec(autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")

    status, headers, error = _request(server, seconds=45)

    assert (status, error["code"]) == (503, "server_unavailable")
    assert policy.message in error["message"]
    assert int(headers["retry-after"]) > 0

    policy.delete()
    # A denied write is retried with increasing delays, and given up once no request is queued.
    server.wait_for_reason("Ready", "ScaledToZero")
    [result] = server.chat()

    assert result["completed"], result


def test_a_missing_secret_is_reported_after_the_cold_start_timeout(server: Server) -> None:
    short = {"coldStartTimeoutSeconds": 15}
    gated = {"url": QUICK, "tokenSecretRef": {"name": "gate", "allowHttp": True}}
    server.apply(spec(autoscaling=TO_ZERO, balancer=short) | {"model": gated})
    server.wait("condition=BalancerReady")

    status, headers, error = _request(server, seconds=45)

    assert (status, error["code"]) == (503, "cold_start_timeout")
    assert "Secret gate" in error["message"]
    assert int(headers["retry-after"]) > 0


def _request(server: Server, *, seconds: int) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Send a request; return the status, headers and error of the response.

    Fails if the response takes longer than `seconds`.
    """
    response = server.cluster.read(
        *("run", "curl", "--silent", "--show-error", "--include", "--max-time", str(seconds)),
        *("--data", json.dumps({"prompt": "hello"}), f"{server.url}/completion"),
    )
    head, _, body = response.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)["error"]
