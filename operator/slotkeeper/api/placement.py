"""Where replicas run, as a user sets it in `spec.placement`."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slotkeeper.api.json_object import JsonObject
from slotkeeper.api.validation import ApiModel, Rule, matches

LABEL_KEY = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"

LabelKey = Annotated[
    str,
    Field(max_length=317),
    matches(LABEL_KEY, "must be a label's name, such as nvidia.com/gpu.product"),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    matches(LABEL_VALUE, "must be a label's value: up to 63 letters, digits, '-', '_' and '.'"),
]
Name = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "must be an object's name: lower-case letters, digits, '-' and '.'",
    ),
]

TaintOperator = Annotated[Literal["Equal", "Exists"], Field(json_schema_extra={"maxLength": 6})]
TaintEffect = Annotated[
    Literal["NoSchedule", "PreferNoSchedule", "NoExecute"],
    Field(json_schema_extra={"maxLength": 16}),
]
Unsatisfiable = Annotated[
    Literal["DoNotSchedule", "ScheduleAnyway"], Field(json_schema_extra={"maxLength": 14})
]


class Toleration(ApiModel):
    """A taint in spite of which replicas may run on a node, as in a pod's tolerations."""

    rules: ClassVar = (
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
            "value is for the operator Equal: Exists goes by the key alone",
            lambda toleration: toleration.operator != "Exists" or toleration.value is None,
        ),
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "key must be set, but for the operator Exists, which then tolerates every taint",
            lambda toleration: toleration.key is not None or toleration.operator == "Exists",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds is for the effect NoExecute",
            lambda toleration: (
                toleration.toleration_seconds is None or toleration.effect == "NoExecute"
            ),
        ),
    )

    key: LabelKey | None = None
    """Key of the taint. Default: any, with the operator Exists. Example: nvidia.com/gpu"""

    operator: TaintOperator | None = None
    """Whether the taint's value must be value (Equal) or may be anything (Exists). Default: Equal.
    Example: Exists"""

    value: LabelValue | None = None
    """Value of the taint. Default: empty. Example: present"""

    effect: TaintEffect | None = None
    """Effect of the taint. Default: any. Example: NoSchedule"""

    toleration_seconds: (
        Annotated[int, Field(ge=0, le=2**31 - 1, json_schema_extra={"format": "int64"})] | None
    ) = None
    """Seconds that a replica stays on a node that gets such a taint, at least 0. Default: for ever.
    Example: 300"""


class TopologySpread(ApiModel):
    """How evenly a server's replicas spread, as in a pod's topologySpreadConstraints."""

    topology_key: LabelKey
    """Label of the nodes by whose values replicas are spread. Example: topology.kubernetes.io/zone
    """

    max_skew: Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})] = 1
    """Replicas by which one value may be ahead of another, 1 to 1000. Default: 1. Example: 2"""

    when_unsatisfiable: Unsatisfiable = "ScheduleAnyway"
    """Whether a replica that would upset the balance waits or runs all the same. Default:
    ScheduleAnyway. Example: DoNotSchedule"""

    min_domains: (
        Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Values of the label that count at least, 1 to 1000; only with DoNotSchedule. Default: those
    that there are. Example: 3"""

    rules: ClassVar = (
        Rule(
            "!has(self.minDomains) || "
            "(has(self.whenUnsatisfiable) && self.whenUnsatisfiable == 'DoNotSchedule')",
            "minDomains is for whenUnsatisfiable: DoNotSchedule",
            lambda spread: (
                spread.min_domains is None or spread.when_unsatisfiable == "DoNotSchedule"
            ),
        ),
    )


class Affinity(ApiModel):
    """A pod's affinity, each part as Kubernetes has it."""

    node_affinity: JsonObject | None = None
    """Nodes that replicas need or prefer. What gpu.computeArch and gpu.minMemory need is added to
    it. Default: none. Example: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms:
    [{matchExpressions: [{key: example.com/pool, operator: In, values: [gpu]}]}]}}"""

    pod_affinity: JsonObject | None = None
    """Pods that replicas need or prefer near them. Default: none.
    Example: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname,
    labelSelector: {matchLabels: {app: cache}}}]}"""

    pod_anti_affinity: JsonObject | None = None
    """Pods that replicas must or should keep away from. Default: none.
    Example: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname,
    labelSelector: {matchLabels: {slotkeeper.dev/component: replica}}}]}"""


class Placement(ApiModel):
    """The nodes that replicas run on."""

    node_selector: Annotated[
        dict[str, LabelValue],
        Field(max_length=32),
        Rule(
            f"self.all(name, name.matches(r'^(?:{LABEL_KEY})$'))",
            "must name labels, such as nvidia.com/gpu.product",
            lambda labels: all(re.fullmatch(LABEL_KEY, name, re.ASCII) for name in labels),
        ),
    ] = Field(default_factory=dict)
    """Labels that a replica's node must have, up to 32. Default: none.
    Example: {nvidia.com/gpu.product: Tesla-T4}"""

    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(default_factory=list)
    """Taints in spite of which replicas may run on a node, up to 32. Default: none.
    Example: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]"""

    affinity: Affinity = Affinity()
    """Nodes and pods that replicas are drawn to or kept from, as in a pod's affinity. Default:
    none. Example: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1,
    preference: {matchExpressions: [{key: example.com/spot, operator: DoesNotExist}]}}]}}"""

    topology_spread_constraints: Annotated[list[TopologySpread], Field(max_length=8)] = Field(
        default_factory=list
    )
    """How evenly a server's replicas spread over zones or nodes, up to 8. It counts this server's
    replicas of the same spec. Default: as the scheduler has it.
    Example: [{topologyKey: topology.kubernetes.io/zone}]"""

    priority_class_name: Name | None = None
    """Priority class of replicas. Default: the cluster's. Example: inference"""

    runtime_class_name: Name | None = None
    """Runtime class of replicas. Some clusters need one for GPUs. Default: the cluster's.
    Example: nvidia"""

    scheduler_name: Name | None = None
    """Scheduler that places replicas. Default: the cluster's own. Example: volcano"""
