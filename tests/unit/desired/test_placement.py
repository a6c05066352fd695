"""The nodes that replicas run on, and what else a user adds to their pods."""

from typing import Any

from llamaservers import IMAGES, server
from slotkeeper.desired import balancer, replicas

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

TURING = [
    {"key": "nvidia.com/gpu.compute.major", "operator": "In", "values": ["7"]},
    {"key": "nvidia.com/gpu.compute.minor", "operator": "In", "values": ["5"]},
]
POOL = {"key": "example.com/pool", "operator": "In", "values": ["a", "b"]}
NOT_SPOT = {"key": "example.com/spot", "operator": "DoesNotExist"}


def template(**spec: Any) -> Any:
    return replicas.deployment(server("chat", **spec), 1, IMAGES)["spec"]["template"]


def pod(**spec: Any) -> Any:
    return template(**spec)["spec"]


def test_what_is_not_said_is_not_set() -> None:
    fields = {"nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"}
    classes = {"priorityClassName", "runtimeClassName", "schedulerName", "imagePullSecrets"}

    assert not (fields | classes) & set(pod())
    assert "env" not in pod()["containers"][0]
    assert "annotations" not in template()["metadata"]


def test_replicas_go_where_they_are_told() -> None:
    placed = pod(
        placement={
            "nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "priorityClassName": "inference",
            "runtimeClassName": "nvidia",
            "schedulerName": "volcano",
        }
    )

    assert placed["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}
    assert placed["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert placed["priorityClassName"] == "inference"
    assert placed["runtimeClassName"] == "nvidia"
    assert placed["schedulerName"] == "volcano"


def test_replicas_of_one_spec_spread_among_themselves() -> None:
    [spread] = pod(
        placement={"topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone"}]}
    )["topologySpreadConstraints"]

    assert spread == {
        "topologyKey": "topology.kubernetes.io/zone",
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {
            "matchLabels": {
                "slotkeeper.dev/server": "chat",
                "slotkeeper.dev/component": "replica",
            }
        },
        "matchLabelKeys": ["pod-template-hash"],
    }


def test_each_of_the_users_terms_demands_the_compute_arch_too() -> None:
    # A node has to meet one of the terms only.
    terms = [{"matchExpressions": [POOL]}, {"matchExpressions": [NOT_SPOT]}]
    preferred: Any = {"preferredDuringSchedulingIgnoredDuringExecution": []}

    affinity = pod(
        gpu={"computeArch": "7.5"},
        placement={
            "affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}, **preferred}}
        },
    )["affinity"]

    assert affinity["nodeAffinity"] == {
        REQUIRED: {
            "nodeSelectorTerms": [
                {"matchExpressions": [POOL, *TURING]},
                {"matchExpressions": [NOT_SPOT, *TURING]},
            ]
        },
        **preferred,
    }


def test_affinity_to_pods_stands_beside_the_compute_arch() -> None:
    apart = {REQUIRED: [{"topologyKey": "kubernetes.io/hostname"}]}

    affinity = pod(gpu={"computeArch": "7.5"}, placement={"affinity": {"podAntiAffinity": apart}})[
        "affinity"
    ]

    assert affinity["podAntiAffinity"] == apart
    assert affinity["nodeAffinity"] == {
        REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": TURING}]}
    }


def test_what_a_user_adds_stands_beside_what_is_there() -> None:
    made = template(
        podTemplate={
            "labels": {"team": "search"},
            "annotations": {"example.com/scrape": "false"},
            "env": [
                {"name": "CUDA_DEVICE_ORDER", "value": "PCI_BUS_ID"},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
            ],
            "volumes": [{"name": "certificates", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "certificates", "mountPath": "/etc/certificates"}],
        }
    )

    [container] = made["spec"]["containers"]
    assert made["metadata"]["labels"] == template()["metadata"]["labels"] | {"team": "search"}
    assert made["metadata"]["annotations"] == {"example.com/scrape": "false"}
    assert container["env"] == [
        {"name": "CUDA_DEVICE_ORDER", "value": "PCI_BUS_ID"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]
    assert made["spec"]["volumes"][-1] == {"name": "certificates", "configMap": {"name": "ca"}}
    assert container["volumeMounts"][-1] == {
        "name": "certificates",
        "mountPath": "/etc/certificates",
        "readOnly": True,
    }


def test_replicas_and_balancers_are_pulled_with_the_same_secrets() -> None:
    private = server(imagePullSecrets=[{"name": "registry"}])

    for deployment in (
        replicas.deployment(private, 1, IMAGES),
        balancer.deployment(private, IMAGES),
    ):
        found = deployment["spec"]["template"]["spec"]["imagePullSecrets"]
        assert found == [{"name": "registry"}]
