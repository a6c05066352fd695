"""Scheduling of replicas: `spec.placement`."""

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
    matches(LABEL_KEY, "must be a label key, such as nvidia.com/gpu.product"),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    matches(LABEL_VALUE, "must be a label value: up to 63 letters, digits, '-', '_' and '.'"),
]
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Label of a pod that Kueue admits to the queue with this name."""

Name = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "must be the name of an object: lower-case letters, digits, '-' and '.'",
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
    """Toleration of a taint, as in the tolerations of a pod."""

    rules: ClassVar = (
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
            "value must not be set if operator is Exists, which matches every value",
            lambda toleration: toleration.operator != "Exists" or toleration.value is None,
        ),
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "key must be set unless operator is Exists, which matches every taint without a key",
            lambda toleration: toleration.key is not None or toleration.operator == "Exists",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds must not be set unless effect is NoExecute",
            lambda toleration: (
                toleration.toleration_seconds is None or toleration.effect == "NoExecute"
            ),
        ),
    )

    key: LabelKey | None = None
    """Key of the taint. Default: any key; operator must then be Exists. Example: nvidia.com/gpu"""

    operator: TaintOperator | None = None
    """Comparison of the taint's value. Equal: it must equal value. Exists: it may be any.
    Default: Equal. Example: Exists"""

    value: LabelValue | None = None
    """Value of the taint. Default: empty. Example: present"""

    effect: TaintEffect | None = None
    """Effect of the taint. Default: any. Example: NoSchedule"""

    toleration_seconds: (
        Annotated[int, Field(ge=0, le=2**31 - 1, json_schema_extra={"format": "int64"})] | None
    ) = None
    """Seconds that a pod stays on a node after the taint is added, at least 0. Default:
    forever. Example: 300"""


class TopologySpreadConstraint(ApiModel):
    """Spread of a server's replicas over domains, as in the topologySpreadConstraints of a pod."""

    topology_key: LabelKey
    """Label of nodes. Nodes with the same value form one domain.
    Example: topology.kubernetes.io/zone"""

    max_skew: Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})] = 1
    """Maximum difference between the numbers of replicas in two domains, 1 to 1000. Default: 1.
    Example: 2"""

    when_unsatisfiable: Unsatisfiable = "ScheduleAnyway"
    """Treatment of a replica that would exceed maxSkew. DoNotSchedule: it stays pending.
    ScheduleAnyway: it is scheduled where the skew is smallest. Default: ScheduleAnyway.
    Example: DoNotSchedule"""

    min_domains: (
        Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})] | None
    ) = None
    """Minimum number of domains, 1 to 1000, only with DoNotSchedule. Default: the number of domains
    that exist. Example: 3"""

    rules: ClassVar = (
        Rule(
            "!has(self.minDomains) || "
            "(has(self.whenUnsatisfiable) && self.whenUnsatisfiable == 'DoNotSchedule')",
            "minDomains must not be set unless whenUnsatisfiable is DoNotSchedule",
            lambda constraint: (
                constraint.min_domains is None or constraint.when_unsatisfiable == "DoNotSchedule"
            ),
        ),
    )


class Affinity(ApiModel):
    """Affinity of replicas, as in the affinity of a pod."""

    node_affinity: JsonObject | None = None
    """Nodes that replicas require or prefer. The requirements of gpu.computeArch and gpu.minMemory
    are added. Default: none.
    Example: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms:
    [{matchExpressions: [{key: example.com/pool, operator: In, values: [gpu]}]}]}}"""

    pod_affinity: JsonObject | None = None
    """Pods that replicas must or should be close to. Default: none.
    Example: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname,
    labelSelector: {matchLabels: {app: cache}}}]}"""

    pod_anti_affinity: JsonObject | None = None
    """Pods that replicas must or should keep away from. Default: none.
    Example: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname,
    labelSelector: {matchLabels: {slotkeeper.dev/component: replica}}}]}"""


NodeSelector = Annotated[
    dict[str, LabelValue],
    Field(max_length=32),
    Rule(
        f"self.all(name, name.matches(r'^(?:{LABEL_KEY})$'))",
        "must have label keys, such as nvidia.com/gpu.product",
        lambda labels: all(re.fullmatch(LABEL_KEY, name, re.ASCII) for name in labels),
    ),
]
Tolerations = Annotated[list[Toleration], Field(max_length=32)]


class BalancerPlacement(ApiModel):
    """Scheduling of balancers to nodes."""

    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the node of a balancer must have, up to 32. Default: none.
    Example: {example.com/pool: services}"""

    tolerations: Tolerations = Field(default_factory=list)
    """Taints of nodes that balancers tolerate, up to 32. Default: none.
    Example: [{key: example.com/services, operator: Exists, effect: NoSchedule}]"""

    priority_class_name: Name | None = None
    """Name of the PriorityClass of balancers. Default: the cluster's default. Example: services"""


class Placement(ApiModel):
    """Scheduling of replicas to nodes."""

    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the node of a replica must have, up to 32. Default: none.
    Example: {nvidia.com/gpu.product: Tesla-T4}"""

    tolerations: Tolerations = Field(default_factory=list)
    """Taints of nodes that replicas tolerate, up to 32. Default: none.
    Example: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]"""

    affinity: Affinity = Affinity()
    """Affinity and anti-affinity to nodes and pods, as in the affinity of a pod. Default: none.
    Example: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1,
    preference: {matchExpressions: [{key: example.com/spot, operator: DoesNotExist}]}}]}}"""

    topology_spread_constraints: Annotated[list[TopologySpreadConstraint], Field(max_length=8)] = (
        Field(default_factory=list)
    )
    """Spread of replicas over zones or nodes, up to 8 constraints. The replicas of this server with
    the same pod template are counted. Default: the scheduler's defaults.
    Example: [{topologyKey: topology.kubernetes.io/zone}]"""

    priority_class_name: Name | None = None
    """Name of the PriorityClass of replicas. Default: the cluster's default. Example: inference"""

    runtime_class_name: Name | None = None
    """Name of the RuntimeClass of replicas. Some clusters require one for GPUs.
    Default: the cluster's default. Example: nvidia"""

    scheduler_name: Name | None = None
    """Name of the scheduler of replicas. Default: the cluster's default scheduler.
    Example: volcano"""

    queue_name: Annotated[Name, Field(max_length=63)] | None = None
    """Name of a LocalQueue of Kueue in the server's namespace: the label
    kueue.x-k8s.io/queue-name of the pods of replicas, up to 63 characters. Kueue schedules a pod
    when the quota of its queue has room for it. A change replaces the replicas. Default: none.
    Example: team-a"""
