"""The custom resources: names, columns of `kubectl get`, and the models of spec and status."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slotkeeper.api import gateway, server
from slotkeeper.api.gateway_status import LlamaGatewayStatus
from slotkeeper.api.group import GATEWAY_KIND, GATEWAY_PLURAL, KIND, PLURAL
from slotkeeper.api.status import LlamaServerStatus
from slotkeeper.api.validation import ApiModel, Rule


@dataclass(frozen=True)
class Definition:
    """What the CRD and the reference of one resource are generated from."""

    kind: str
    plural: str
    short_name: str
    description: str
    name_rules: tuple[Rule, ...]
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Mapping[str, Any], ...]
    scale: Mapping[str, str] | None = None
    """The subresource scale, if there is one."""


_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_REASON = {
    "name": "Reason",
    "type": "string",
    "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
    "description": "Reason of the condition Ready",
    "priority": 1,
}

_DEGRADED = {
    "name": "Degraded",
    "type": "string",
    "jsonPath": '.status.conditions[?(@.type=="Degraded")].status',
    "description": "Whether a problem needs attention",
    "priority": 1,
}

_SERVER_COLUMNS: tuple[Mapping[str, Any], ...] = (
    {
        "name": "Ready",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        "description": "Whether the server serves requests",
    },
    {
        "name": "Replicas",
        "type": "string",
        "jsonPath": ".status.replicasReady",
        "description": "Ready replicas / all replicas",
    },
    {
        "name": "Slots",
        "type": "string",
        "jsonPath": ".status.slotsInUse",
        "description": "Busy slots / all slots",
    },
    {
        "name": "Queued",
        "type": "integer",
        "jsonPath": ".status.queued",
        "description": "Requests queued for a slot",
    },
    {
        "name": "Model",
        "type": "string",
        "jsonPath": ".status.model.display",
        "description": "Progress of the download, Failed, Loading, or the file name of the model",
    },
    _AGE,
    _REASON,
    _DEGRADED,
    {
        "name": "GPUs",
        "type": "integer",
        "jsonPath": ".spec.gpu.count",
        "description": "GPUs of each replica",
        "priority": 1,
    },
    {
        "name": "URL",
        "type": "string",
        "jsonPath": ".status.url",
        "description": "URL for clients in the cluster",
        "priority": 1,
    },
)

_GATEWAY_COLUMNS: tuple[Mapping[str, Any], ...] = (
    {
        "name": "Ready",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        "description": "Whether the gateway serves requests",
    },
    {
        "name": "Models",
        "type": "string",
        "jsonPath": ".status.modelsReady",
        "description": "Ready models / all models",
    },
    {
        "name": "URL",
        "type": "string",
        "jsonPath": ".status.url",
        "description": "URL for clients in the cluster",
    },
    _AGE,
    _REASON,
    _DEGRADED,
    {
        "name": "Pods",
        "type": "integer",
        "jsonPath": ".status.readyReplicas",
        "description": "Ready gateway pods",
        "priority": 1,
    },
)

LLAMA_SERVER = Definition(
    kind=KIND,
    plural=PLURAL,
    short_name="llama",
    description="A model served by llama.cpp: its slots, the resources of a replica, and the "
    "number of replicas.",
    name_rules=server.NAME_RULES,
    spec=server.LlamaServerSpec,
    status=LlamaServerStatus,
    columns=_SERVER_COLUMNS,
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)

LLAMA_GATEWAY = Definition(
    kind=GATEWAY_KIND,
    plural=GATEWAY_PLURAL,
    short_name="llamagw",
    description="One address for the models of several LlamaServers: names, access, and what they "
    "may use together.",
    name_rules=gateway.NAME_RULES,
    spec=gateway.LlamaGatewaySpec,
    status=LlamaGatewayStatus,
    columns=_GATEWAY_COLUMNS,
)

DEFINITIONS = (LLAMA_SERVER, LLAMA_GATEWAY)
