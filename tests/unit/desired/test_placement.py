"""Scheduling of replicas, and additions to their pods."""

from typing import Any

import pytest

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


def test_fields_without_a_value_are_omitted() -> None:
    fields = {"nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"}
    classes = {"priorityClassName", "runtimeClassName", "schedulerName", "imagePullSecrets"}

    assert not (fields | classes) & set(pod())
    assert "env" not in pod(gpu={"count": 0})["containers"][0]
    assert "annotations" not in template()["metadata"]


def test_placement_becomes_fields_of_the_pod() -> None:
    scheduled = pod(
        placement={
            "nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "priorityClassName": "inference",
            "runtimeClassName": "nvidia",
            "schedulerName": "volcano",
        }
    )

    assert scheduled["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}
    assert scheduled["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert scheduled["priorityClassName"] == "inference"
    assert scheduled["runtimeClassName"] == "nvidia"
    assert scheduled["schedulerName"] == "volcano"


@pytest.mark.parametrize(
    "affinity",
    [
        None,
        {REQUIRED: None},
        {REQUIRED: {"nodeSelectorTerms": None}},
        {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": None}]}},
    ],
)
def test_null_in_an_affinity_is_like_a_missing_field(affinity: Any) -> None:
    scheduled = pod(
        gpu={"count": 1, "computeArch": 7.5}, placement={"affinity": {"nodeAffinity": affinity}}
    )

    terms = scheduled["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": TURING}]


@pytest.mark.parametrize(
    "affinity",
    [
        {REQUIRED: "x"},
        {REQUIRED: {"nodeSelectorTerms": "x"}},
        {REQUIRED: {"nodeSelectorTerms": [None]}},
        {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": 7}]}},
    ],
)
def test_what_is_no_affinity_is_left_for_the_api_server_to_reject(affinity: Any) -> None:
    scheduled = pod(
        gpu={"count": 1, "computeArch": 7.5}, placement={"affinity": {"nodeAffinity": affinity}}
    )

    assert scheduled["affinity"]["nodeAffinity"] == affinity


def test_the_placement_of_balancers_is_their_own() -> None:
    tolerations = [{"key": "services", "operator": "Exists"}]
    placement = {
        "nodeSelector": {"pool": "services"},
        "tolerations": tolerations,
        "priorityClassName": "services",
    }
    chat = server("chat", balancer={"placement": placement})
    balancers = balancer.deployment(chat, IMAGES)["spec"]["template"]["spec"]
    fields = ("nodeSelector", "tolerations", "priorityClassName")

    assert {name: balancers[name] for name in fields} == placement
    assert "podAntiAffinity" in balancers["affinity"]
    assert not {*fields} & {*pod(balancer={"placement": placement})}
    assert not {*fields} & {*balancer.deployment(server(), IMAGES)["spec"]["template"]["spec"]}


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


def test_each_node_selector_term_also_requires_the_compute_arch() -> None:
    # A node has to match only one of the terms.
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


def test_affinity_to_pods_is_kept_with_a_compute_arch() -> None:
    apart = {REQUIRED: [{"topologyKey": "kubernetes.io/hostname"}]}

    affinity = pod(gpu={"computeArch": "7.5"}, placement={"affinity": {"podAntiAffinity": apart}})[
        "affinity"
    ]

    assert affinity["podAntiAffinity"] == apart
    assert affinity["nodeAffinity"] == {
        REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": TURING}]}
    }


def test_the_pod_template_is_merged_into_the_pod() -> None:
    customized = template(
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

    [container] = customized["spec"]["containers"]
    assert customized["metadata"]["labels"] == template()["metadata"]["labels"] | {"team": "search"}
    assert customized["metadata"]["annotations"] == {"example.com/scrape": "false"}
    assert container["env"][1:] == [
        {"name": "CUDA_DEVICE_ORDER", "value": "PCI_BUS_ID"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]
    assert customized["spec"]["volumes"][-1] == {
        "name": "certificates",
        "configMap": {"name": "ca"},
    }
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
        secrets = deployment["spec"]["template"]["spec"]["imagePullSecrets"]
        assert secrets == [{"name": "registry"}]
