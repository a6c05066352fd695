"""The API server accepts all golden servers, all examples, and all manifests made from them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from llamagateways import gateway_cases, only_gateway, parsed_gateway
from llamaservers import EXAMPLES, IMAGES, golden_cases, only_server, parsed, raw_server
from slotkeeper.desired import gateway
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.objects import child
from slotkeeper.reconcile.write.conflicts import Drift, FieldConflicts
from slotkeeper.reconcile.write.diff import differences

NAMESPACE = "restricted"

PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "LlamaGateway": "/apis/slotkeeper.dev/v1alpha1/namespaces/{}/llamagateways",
    "LlamaServer": "/apis/slotkeeper.dev/v1alpha1/namespaces/{}/llamaservers",
    "Pod": "/api/v1/namespaces/{}/pods",
}

CLASSES: dict[str, dict[str, Any]] = {
    "/apis/scheduling.k8s.io/v1/priorityclasses": {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "inference"},
        "value": 1,
    },
    "/apis/node.k8s.io/v1/runtimeclasses": {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "nvidia",
    },
}
"""Cluster-scoped objects that pods of the golden servers refer to."""

THIRD_PARTY_KINDS = {"ScaledObject"}
"""Kinds of other projects, whose CRDs are not installed here: the test of KEDA applies them."""

each_gateway = pytest.mark.parametrize("case", gateway_cases(), ids=lambda case: case.name)
each_golden = pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)


@pytest.fixture(scope="module")
def restricted(api: ApiServer) -> str:
    """A namespace that enforces Pod Security's `restricted` standard."""
    level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    created = api.post(
        "/api/v1/namespaces",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": level},
        },
    )
    assert created.status_code == 201, created.text
    for path, kind in CLASSES.items():
        response = api.post(path, kind)
        assert response.status_code == 201, response.text
    return NAMESPACE


def read(case: Path) -> dict[str, Any]:
    """Return a golden server with the restricted namespace."""
    raw = only_server(case / "server.yaml")
    return {**raw, "metadata": {**raw["metadata"], "namespace": NAMESPACE}}


def pods(case: Path) -> Iterator[dict[str, Any]]:
    """Yield the pods that a server's Deployments, StatefulSets and Job would create."""
    yield from pods_of(manifests(parsed(read(case)), 1, IMAGES))


def read_gateway(case: Path) -> dict[str, Any]:
    """Return a golden gateway with the restricted namespace."""
    raw = only_gateway(case / "gateway.yaml")
    return {**raw, "metadata": {**raw["metadata"], "namespace": NAMESPACE}}


def pods_of(children: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the pods that Deployments, StatefulSets and Jobs would create."""
    for manifest in children:
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            template = manifest["spec"]["template"]
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**template["metadata"], "generateName": "pod-"},
                "spec": template["spec"],
            }


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_an_example_applies(api: ApiServer, example: Path) -> None:
    resources = [*yaml.safe_load_all(example.read_text())]
    items = [resource for resource in resources if resource["kind"] not in THIRD_PARTY_KINDS]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    for namespace in {resource["metadata"].get("namespace", "default") for resource in items}:
        api.kubectl("create", "namespace", namespace)

    result = api.kubectl("apply", "--dry-run=server", "--filename", "-", stdin=manifest)

    assert (result.returncode, result.stderr) == (0, "")
    assert "LlamaServer" in {resource["kind"] for resource in items}


@each_golden
def test_the_api_server_and_the_operator_set_the_same_defaults(
    api: ApiServer, restricted: str, case: Path
) -> None:
    raw = read(case)

    stored = api.post(PATHS["LlamaServer"].format(restricted), raw, dry_run=True).json()

    assert parsed(stored).spec == parsed(raw).spec


@each_golden
def test_the_children_of_a_server_are_accepted_without_a_warning(
    api: ApiServer, restricted: str, case: Path
) -> None:
    for manifest in manifests(parsed(read(case)), 1, IMAGES):
        assert_accepted(api, restricted, manifest)


@each_gateway
def test_the_children_of_a_gateway_are_accepted_without_a_warning(
    api: ApiServer, restricted: str, case: Path
) -> None:
    children = gateway.manifests(parsed_gateway(read_gateway(case)), IMAGES)

    for manifest in children:
        assert_accepted(api, restricted, manifest)
    for pod in pods_of(children):
        response = api.post(PATHS["Pod"].format(restricted), pod, dry_run=True)
        assert response.status_code == 201, response.text
        assert "Warning" not in response.headers, response.headers["Warning"]


@each_gateway
def test_both_set_the_same_defaults_of_a_gateway(
    api: ApiServer, restricted: str, case: Path
) -> None:
    raw = read_gateway(case)

    stored = api.post(PATHS["LlamaGateway"].format(restricted), raw, dry_run=True).json()

    assert parsed_gateway(stored).spec == parsed_gateway(raw).spec


def assert_accepted(api: ApiServer, namespace: str, manifest: dict[str, Any]) -> None:
    response = api.client.patch(
        f"{PATHS[manifest['kind']].format(namespace)}/{manifest['metadata']['name']}",
        params={
            "dryRun": "All",
            "fieldManager": "slotkeeper",
            "fieldValidation": "Strict",
            "force": "true",
        },
        headers={"Content-Type": "application/apply-patch+yaml"},
        content=json.dumps(manifest),
    )
    assert response.status_code == 201, response.text
    assert "Warning" not in response.headers, response.headers["Warning"]


@each_golden
def test_the_pods_of_a_server_pass_pod_security_restricted(
    api: ApiServer, restricted: str, case: Path
) -> None:
    for pod in pods(case):
        response = api.post(PATHS["Pod"].format(restricted), pod, dry_run=True)
        assert response.status_code == 201, response.text
        assert "Warning" not in response.headers, response.headers["Warning"]


def test_the_namespace_rejects_a_pod_that_is_not_restricted(
    api: ApiServer, restricted: str
) -> None:
    pod = next(pods(golden_cases()[0]))
    del pod["spec"]["securityContext"]

    response = api.post(PATHS["Pod"].format(restricted), pod, dry_run=True)

    assert response.status_code == 403
    assert "violates PodSecurity" in response.json()["message"]


QUOTA = {
    "requests.cpu": "8",
    "requests.memory": "16Gi",
    "limits.cpu": "8",
    "limits.memory": "16Gi",
}
LIMITS = {"type": "Container", "min": {"cpu": "100m", "memory": "128Mi"}, "max": {"cpu": "4"}}


def test_the_pods_of_the_example_pass_a_quota_and_a_limit_range(api: ApiServer) -> None:
    namespace = "limited"
    root = f"/api/v1/namespaces/{namespace}"
    metadata = {"name": "limited"}
    for path, kind, fields in (
        ("/api/v1/namespaces", "Namespace", {}),
        (f"{root}/limitranges", "LimitRange", {"spec": {"limits": [LIMITS]}}),
        (f"{root}/resourcequotas", "ResourceQuota", {"spec": {"hard": QUOTA}}),
    ):
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}
        created = api.post(path, manifest)
        assert created.status_code == 201, created.text
    # As its controller, which does not run here, does.
    used = dict.fromkeys(QUOTA, "0")
    counted = api.client.patch(
        f"{root}/resourcequotas/limited/status",
        headers={"Content-Type": "application/merge-patch+json"},
        content=json.dumps({"status": {"hard": QUOTA, "used": used}}),
    )
    assert counted.status_code == 200, counted.text

    case = next(case for case in golden_cases() if case.name == "restricted-namespace")
    responses = [api.post(f"{root}/pods", pod, dry_run=True) for pod in pods(case)]

    assert [response.status_code for response in responses] == [201, 201], [
        response.text for response in responses
    ]


def test_claims_are_kept_by_the_api_server(api: ApiServer) -> None:
    claims = [{"name": "gpu", "resourceClaimTemplateName": "large"}]
    raw = raw_server(gpu={"resourceClaims": claims}, workers={"count": 1})
    created = manifests(parsed(raw), 1, IMAGES)

    for specified in (each for each in created if each["kind"] == "StatefulSet"):
        response = api.post(PATHS["StatefulSet"].format("default"), specified, dry_run=True)

        # An API server without dynamic resource allocation drops them.
        assert response.status_code == 201, response.text
        assert not list(differences(specified, response.json()))
        pod = response.json()["spec"]["template"]["spec"]
        assert pod["resourceClaims"] == claims
        assert pod["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]


def test_an_api_server_without_image_volumes_drops_them_which_is_noticed(api: ApiServer) -> None:
    weights = {"name": "weights", "image": {"reference": "registry.example.com/gemma:4b"}}
    mount = {"name": "weights", "mountPath": "/weights"}
    raw = raw_server(podTemplate={"volumes": [weights], "volumeMounts": [mount]})
    [specified] = (
        each
        for each in manifests(parsed(raw), 1, IMAGES)
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "chat-replicas")
    )

    # Kubernetes 1.34, where the feature gate is off by default.
    response = api.post(PATHS["Deployment"].format("default"), specified, dry_run=True)

    assert response.status_code == 201
    conflicts = FieldConflicts()
    drift = Drift.of(child(specified), differences(specified, response.json()))
    conflicts.record([], [drift], now=0)
    problem = conflicts.problem(now=0)
    assert problem is not None
    assert "enable the feature gate ImageVolume" in problem.message
