"""Values of update, suspend, placement, podTemplate and imagePullSecrets that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from rejections import assert_rejected

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"update": {"strategy": "BlueGreen"}}, "spec.update.strategy", 'value: "BlueGreen"'),
    ({"update": {"maxSurge": -1}}, "spec.update.maxSurge", "must be a number of replicas"),
    ({"update": {"maxSurge": "5"}}, "spec.update.maxSurge", "must be a number of replicas"),
    ({"update": {"maxSurge": "00"}}, "spec.update.maxSurge", "must be a number of replicas"),
    ({"update": {"maxSurge": 10000}}, "spec.update.maxSurge", "0 to 9999"),
    ({"update": {"maxSurge": "101%"}}, "spec.update.maxSurge", "or a percentage such as 25%"),
    (
        {"update": {"maxSurge": "0%", "maxUnavailable": 0}},
        "spec.update",
        "maxSurge and maxUnavailable must not both be 0: no replica could ever be replaced",
    ),
    (
        {"update": {"strategy": "Recreate", "maxUnavailable": 1}},
        "spec.update",
        "must not be set if strategy is Recreate",
    ),
    (
        {"update": {"drainTimeoutSeconds": 0}},
        "spec.update.drainTimeoutSeconds",
        "greater than or equal to 1",
    ),
    *(
        (
            {"podTemplate": {"volumeMounts": [{"name": "v", "mountPath": path}]}},
            "spec.podTemplate.volumeMounts[0].mountPath",
            "must not contain '//', '/./' or '/../'",
        )
        for path in ("/./models", "/etc//models", "/x/../models", "/x/..", "/.", "/../tmp")
    ),
    ({"suspend": "yes"}, "spec.suspend", "must be of type boolean"),
    ({"imagePullSecrets": ["registry"]}, "spec.imagePullSecrets[0]", "must be of type object"),
    (
        {"imagePullSecrets": [{"name": "a"}, {"name": "a"}]},
        "spec.imagePullSecrets",
        "must not contain a name twice",
    ),
    (
        {"placement": {"nodeSelector": {"a b": "c"}}},
        "spec.placement.nodeSelector",
        "must have label keys, such as nvidia.com/gpu.product",
    ),
    (
        {"placement": {"nodeSelector": {"zone": True}}},
        "spec.placement.nodeSelector.zone",
        "must be of type string",
    ),
    (
        {"placement": {"tolerations": [{"effect": "NoSchedule"}]}},
        "spec.placement.tolerations[0]",
        "key must be set unless operator is Exists",
    ),
    (
        {"placement": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        "spec.placement.tolerations[0]",
        "value must not be set if operator is Exists",
    ),
    (
        {"placement": {"tolerations": [{"key": "a", "tolerationSeconds": 5}]}},
        "spec.placement.tolerations[0]",
        "tolerationSeconds must not be set unless effect is NoExecute",
    ),
    (
        {"placement": {"topologySpreadConstraints": [{"maxSkew": 1}]}},
        "spec.placement.topologySpreadConstraints[0].topologyKey",
        "Required value",
    ),
    (
        {"placement": {"topologySpreadConstraints": [{"topologyKey": "zone", "minDomains": 2}]}},
        "spec.placement.topologySpreadConstraints[0]",
        "minDomains must not be set unless whenUnsatisfiable is DoNotSchedule",
    ),
    (
        {"placement": {"priorityClassName": "High Priority"}},
        "spec.placement.priorityClassName",
        "must be the name of an object",
    ),
    (
        {"podTemplate": {"labels": {"slotkeeper.dev/server": "other"}}},
        "spec.podTemplate.labels",
        "must not have keys that the operator sets itself",
    ),
    (
        {"podTemplate": {"labels": {"kueue.x-k8s.io/queue-name": "team-a"}}},
        "spec.podTemplate.labels",
        "must not contain kueue.x-k8s.io/queue-name: set placement.queueName",
    ),
    (
        {"podTemplate": {"annotations": {"slotkeeper.dev/applied-hash": "x"}}},
        "spec.podTemplate.annotations",
        "must not have keys that the operator sets itself",
    ),
    (
        {"podTemplate": {"env": [{"name": "LLAMA_ARG_CTX_SIZE", "value": "9"}]}},
        "spec.podTemplate.env[0].name",
        "llama-server reads such variables as flags; set the field for the flag",
    ),
    (
        {"podTemplate": {"env": [{"name": "A"}, {"name": "A"}]}},
        "spec.podTemplate.env",
        "must not contain a name twice",
    ),
    (
        {"podTemplate": {"env": [{"name": "A", "value": "b", "valueFrom": {}}]}},
        "spec.podTemplate.env[0]",
        "value and valueFrom must not both be set",
    ),
    (
        {"podTemplate": {"volumes": [{"name": "models", "emptyDir": {}}]}},
        "spec.podTemplate.volumes[0].name",
        "must not be models, tmp, model-token, model-ca",
    ),
    (
        {"podTemplate": {"volumeMounts": [{"name": "a", "mountPath": "/a"}]}},
        "spec.podTemplate",
        "volumeMounts must refer to volumes by their names in podTemplate.volumes",
    ),
    (
        {
            "podTemplate": {
                "volumes": [{"name": "a", "emptyDir": {}}],
                "volumeMounts": [{"name": "a", "mountPath": "/models/mine"}],
            }
        },
        "spec.podTemplate.volumeMounts[0].mountPath",
        "the operator mounts its volumes there",
    ),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_pod_field_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_rejected(api, spec, field, message)
