"""The API server and the operator hold a server to the same rules, from the same place."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apiserver import ApiServer
from llamaservers import parsed, raw_server
from slotkeeper.api.extra_args import REJECTED
from slotkeeper.api.server import InvalidSpec

PATH = "/apis/slotkeeper.dev/v1alpha1/namespaces/default/llamaservers"

URL = "https://models.example.com/model.gguf"


def refusal(api: ApiServer, raw: dict[str, Any]) -> str | None:
    """What the API server says against a server; None where it would take it."""
    answer = api.post(PATH, raw, dry_run=True)
    if answer.status_code == 201:
        return None
    assert answer.status_code in {400, 422}, answer.text
    message: str = answer.json()["message"]
    return message


def is_taken_by_the_operator(raw: dict[str, Any]) -> bool:
    try:
        parsed(raw)
    except InvalidSpec:
        return False
    return True


PODS = {"type": "Pods", "value": 1, "periodSeconds": 60}

BAD_BALANCERS: list[tuple[dict[str, Any], str, str]] = [
    ({"balancer": spec}, f"spec.balancer.{field}".rstrip("."), sentence)
    for spec, field, sentence in (
        ({"replicas": 0}, "replicas", "greater than or equal to 1"),
        ({"replicas": 6}, "replicas", "less than or equal to 5"),
        ({"maxQueuedRequests": -1}, "maxQueuedRequests", "greater than or equal to 0"),
        ({"maxQueuedRequests": 100001}, "maxQueuedRequests", "less than or equal to 100000"),
        ({"maxQueuedBytes": "1023Ki"}, "maxQueuedBytes", "must be from 1Mi to 64Gi"),
        ({"maxQueuedBytes": "65Gi"}, "maxQueuedBytes", "must be from 1Mi to 64Gi"),
        ({"maxQueuedBytes": "128 MB"}, "maxQueuedBytes", "must be a quantity such as"),
        ({"maxBodyBytes": 1000}, "maxBodyBytes", "must be from 1Mi to 64Gi"),
        (
            {"maxBodyBytes": "129Mi"},
            "",
            "maxBodyBytes (default 32Mi) must not be above maxQueuedBytes",
        ),
        ({"maxQueuedBytes": "16Mi"}, "", "so large a request could never wait"),
        ({"queueTimeoutSeconds": 0}, "queueTimeoutSeconds", "greater than or equal to 1"),
        (
            {"coldStartTimeoutSeconds": 86401},
            "coldStartTimeoutSeconds",
            "less than or equal to 86400",
        ),
        (
            {"prefixAffinity": {"enabled": "yes"}},
            "prefixAffinity.enabled",
            "must be of type boolean",
        ),
        (
            {"prefixAffinity": {"maxWaitSeconds": 301}},
            "prefixAffinity.maxWaitSeconds",
            "less than or equal to 300",
        ),
        (
            {"prefixAffinity": {"cachedPrompts": -1}},
            "prefixAffinity.cachedPrompts",
            "greater than or equal to 0",
        ),
        ({"maxPriority": 1001}, "maxPriority", "less than or equal to 1000"),
        ({"heartbeatSeconds": 0}, "heartbeatSeconds", "greater than or equal to 1"),
        ({"heartbeatSeconds": 301}, "heartbeatSeconds", "less than or equal to 300"),
        ({"allowedPaths": []}, "allowedPaths", "should have at least 1 items"),
        (
            {"allowedPaths": ["/lora-adapters"]},
            "allowedPaths[0]",
            'Unsupported value: "/lora-adapters"',
        ),
        ({"allowedPaths": ["/infill", "/infill"]}, "allowedPaths", "must not name a path twice"),
        ({"apiKeys": {}}, "apiKeys.secretName", "Required value"),
        ({"apiKeys": {"secretName": "Chat_Keys"}}, "apiKeys.secretName", "must be a Secret's name"),
        (
            {"apiKeys": {"secretName": "a", "maxPriorities": {"a=b": 1}}},
            "apiKeys.maxPriorities",
            "must name entries of the Secret",
        ),
        (
            {"apiKeys": {"secretName": "a", "maxPriorities": {"a": 1001}}},
            "apiKeys.maxPriorities",
            "less than or equal to 1000",
        ),
        (
            {"resources": {"limits": {"memory": "255Mi"}}},
            "",
            "resources.limits.memory must be at least maxQueuedBytes",
        ),
        (
            {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}},
            "resources",
            "requests must not be above limits",
        ),
    )
]


BAD_SERVINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"kvCacheType": "q6_K"}, "spec.kvCacheType", 'Unsupported value: "q6_K"'),
    ({"flashAttention": True}, "spec.flashAttention", "must be of type string"),
    (
        {"kvCacheType": "q8_0", "flashAttention": "disabled"},
        "spec",
        "flashAttention must not be disabled with a quantised kvCacheType",
    ),
    ({"jinja": "no"}, "spec.jinja", "must be of type boolean"),
    ({"chatTemplate": ""}, "spec.chatTemplate", "should be at least 1 chars long"),
    (
        {"chatTemplate": "{{ messages }}" + " " * 32_754},
        "spec.chatTemplate",
        "may not be more than 32767",
    ),
    ({"chatTemplate": "llama3"}, "spec", "chatTemplate must be a Jinja template, or chatml"),
    ({"reasoning": {"format": "openai"}}, "spec.reasoning.format", 'value: "openai"'),
    ({"reasoning": {"enabled": "auto"}}, "spec.reasoning.enabled", "must be of type boolean"),
    (
        {"reasoning": {"budgetTokens": -2}},
        "spec.reasoning.budgetTokens",
        "greater than or equal to -1",
    ),
    ({"embeddings": {"pooling": "max"}}, "spec.embeddings.pooling", 'value: "max"'),
    (
        {"embeddings": {}, "extraArgs": ["--ubatch_size", "512"]},
        "spec",
        "extraArgs must not set the batch sizes beside embeddings: they follow contextPerSlot",
    ),
    ({"gpu": {"layers": -1}}, "spec.gpu.layers", "greater than or equal to 0"),
    ({"gpu": {"layers": "all"}}, "spec.gpu.layers", "must be of type integer"),
    ({"gpu": {"splitMode": "column"}}, "spec.gpu.splitMode", 'Unsupported value: "column"'),
    (
        {"gpu": {"count": 2, "tensorSplit": [1, 1, 1]}},
        "spec",
        "gpu.tensorSplit must have one number for each GPU of a replica",
    ),
    (
        {"gpu": {"count": 2, "tensorSplit": [1, 1]}, "workers": {"count": 1}},
        "spec",
        "gpu.count of them, and as many again for each of its workers",
    ),
    ({"workers": {}}, "spec.workers.count", "Required value"),
    (
        {"workers": {"count": 1}, "update": {"strategy": "Recreate"}},
        "spec",
        "update must not set strategy, maxSurge or maxUnavailable beside workers",
    ),
    (
        {"workers": {"count": 1}, "update": {"maxUnavailable": 1}},
        "spec",
        "groups are replaced one after the other",
    ),
    ({"workers": {"count": 0}}, "spec.workers.count", "greater than or equal to 1"),
    ({"workers": {"count": 17}}, "spec.workers.count", "less than or equal to 16"),
    (
        {"workers": {"count": 1, "resources": {"limits": {"nvidia.com/gpu": 1}}}},
        "spec",
        "workers.resources must not name the GPU: each worker has gpu.count",
    ),
    (
        {"gpu": {"count": 2, "tensorSplit": [0, 0.0]}},
        "spec.gpu",
        "tensorSplit must give some GPU a share above 0",
    ),
    ({"gpu": {"tensorSplit": [-1]}}, "spec.gpu.tensorSplit[0]", "greater than or equal to 0"),
    ({"gpu": {"minMemory": "16 GB"}}, "spec.gpu.minMemory", "must be a quantity such as"),
    ({"gpu": {"minMemory": 16}}, "spec.gpu.minMemory", "must be from 1Mi to 1Ti"),
    (
        {"gpu": {"minMemory": "16Gi", "resourceName": "amd.com/gpu"}},
        "spec.gpu",
        "minMemory needs a resourceName of nvidia.com",
    ),
    (
        {"gpu": {"count": 0, "layers": 10}},
        "spec.gpu",
        "count is 0, a CPU server: layers and minMemory need at least one GPU",
    ),
    ({"extraArgs": "--top-k 20"}, "spec.extraArgs", "must be of type array"),
    ({"extraArgs": ["--top-k", 20]}, "spec.extraArgs[1]", "must be of type string"),
    ({"extraArgs": ["--verbose"] * 65}, "spec.extraArgs", "must have at most 64 items"),
    ({"extraArgs": ["a" * 4097]}, "spec.extraArgs[0]", "may not be more than 4096"),
    (
        {"extraArgs": ["--top-k", "20", "--min-p 0.1"]},
        "spec.extraArgs[2]",
        "must not hold both a flag and its value, which llama-server does not take apart",
    ),
    ({"extraArgs": ["--port", "80"]}, "spec.extraArgs[0]", "the operator says where llama-server"),
    (
        {"extraArgs": ["-v", "--ctx_size=9"]},
        "spec.extraArgs[1]",
        "must not be -c, --ctx-size or --kv-unified-per-slot: set contextPerSlot",
    ),
]
BAD_MODELS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": {"url": URL, **spec}}, f"spec.model.{field}", sentence)
    for spec, field, sentence in (
        ({"tokenSecretRef": {}}, "tokenSecretRef.name", "Required value"),
        (
            {"tokenSecretRef": {"name": "Hugging Face"}},
            "tokenSecretRef.name",
            "must be an object's name",
        ),
        (
            {"tokenSecretRef": {"name": "a", "key": "a/b"}},
            "tokenSecretRef.key",
            "must name an entry of the Secret",
        ),
        ({"tokenSecretRef": {"name": "a", "key": ""}}, "tokenSecretRef.key", "must name an entry"),
        ({"alias": "a,b"}, "alias", "must start with a letter or digit, and hold only those"),
        ({"alias": "$(HOME)"}, "alias", "must start with a letter or digit"),
        ({"alias": ""}, "alias", "must start with a letter or digit"),
        ({"alias": "a" * 129}, "alias", "may not be more than 128"),
        ({"mmproj": {}}, "mmproj.url", "Required value"),
        ({"mmproj": {"url": "s3://a/b"}}, "mmproj.url", "must start with http:// or https://"),
        ({"mmproj": {"url": URL, "sha256": "a"}}, "mmproj.sha256", "must be 64 hexadecimal"),
        ({"adapters": URL}, "adapters", "must be of type array"),
        ({"adapters": [{"url": URL}] * 17}, "adapters", "must have at most 16 items"),
        ({"adapters": [{"scale": 1}]}, "adapters[0].url", "Required value"),
        (
            {"adapters": [{"url": URL}, {"url": "https://a:b@h/"}]},
            "adapters[1].url",
            "must not hold a user name or password",
        ),
        ({"adapters": [{"url": URL, "scale": 101}]}, "adapters[0].scale", "equal to 100"),
        ({"adapters": [{"url": URL, "scale": "1"}]}, "adapters[0].scale", "of type number"),
        ({"cache": {"claimName": "My Models"}}, "cache.claimName", "must be an object's name"),
        ({"cache": {"sizeLimit": "40 GB"}}, "cache.sizeLimit", "must be a quantity such as"),
        ({"cache": {"sizeLimit": "1Ki"}}, "cache.sizeLimit", "must be from 1Mi to 16Ti"),
        (
            {"cache": {"claimName": "models", "sizeLimit": "40Gi"}},
            "cache",
            "a claim has a size of its own",
        ),
    )
]

BAD_PODS: list[tuple[dict[str, Any], str, str]] = [
    ({"update": {"strategy": "BlueGreen"}}, "spec.update.strategy", 'value: "BlueGreen"'),
    ({"update": {"maxSurge": -1}}, "spec.update.maxSurge", "must be a number of replicas"),
    ({"update": {"maxSurge": "5"}}, "spec.update.maxSurge", "must be a number of replicas"),
    ({"update": {"maxSurge": "00"}}, "spec.update.maxSurge", "must be a number of replicas"),
    ({"update": {"maxSurge": 10000}}, "spec.update.maxSurge", "0 to 9999"),
    ({"update": {"maxSurge": "101%"}}, "spec.update.maxSurge", "or a share of them, such as 25%"),
    (
        {"update": {"maxSurge": "0%", "maxUnavailable": 0}},
        "spec.update",
        "maxSurge and maxUnavailable must not both be 0: no replica could ever be replaced",
    ),
    (
        {"update": {"strategy": "Recreate", "maxUnavailable": 1}},
        "spec.update",
        "are for the strategy RollingUpdate",
    ),
    (
        {"update": {"drainTimeoutSeconds": 0}},
        "spec.update.drainTimeoutSeconds",
        "greater than or equal to 1",
    ),
    ({"suspend": "yes"}, "spec.suspend", "must be of type boolean"),
    (
        {"imagePullSecrets": ["registry"]},
        "spec.imagePullSecrets[0]",
        "must be of type object",
    ),
    (
        {"imagePullSecrets": [{"name": "a"}, {"name": "a"}]},
        "spec.imagePullSecrets",
        "must not name a Secret twice",
    ),
    (
        {"placement": {"nodeSelector": {"a b": "c"}}},
        "spec.placement.nodeSelector",
        "must name labels, such as nvidia.com/gpu.product",
    ),
    (
        {"placement": {"nodeSelector": {"zone": True}}},
        "spec.placement.nodeSelector.zone",
        "must be of type string",
    ),
    (
        {"placement": {"tolerations": [{"effect": "NoSchedule"}]}},
        "spec.placement.tolerations[0]",
        "key must be set, but for the operator Exists",
    ),
    (
        {"placement": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        "spec.placement.tolerations[0]",
        "value is for the operator Equal",
    ),
    (
        {"placement": {"tolerations": [{"key": "a", "tolerationSeconds": 5}]}},
        "spec.placement.tolerations[0]",
        "tolerationSeconds is for the effect NoExecute",
    ),
    (
        {"placement": {"topologySpreadConstraints": [{"maxSkew": 1}]}},
        "spec.placement.topologySpreadConstraints[0].topologyKey",
        "Required value",
    ),
    (
        {"placement": {"topologySpreadConstraints": [{"topologyKey": "zone", "minDomains": 2}]}},
        "spec.placement.topologySpreadConstraints[0]",
        "minDomains is for whenUnsatisfiable: DoNotSchedule",
    ),
    (
        {"placement": {"priorityClassName": "High Priority"}},
        "spec.placement.priorityClassName",
        "must be an object's name",
    ),
    (
        {"podTemplate": {"labels": {"slotkeeper.dev/server": "other"}}},
        "spec.podTemplate.labels",
        "must not name what the operator sets itself",
    ),
    (
        {"podTemplate": {"annotations": {"slotkeeper.dev/applied-hash": "x"}}},
        "spec.podTemplate.annotations",
        "must not name what the operator sets itself",
    ),
    (
        {"podTemplate": {"env": [{"name": "LLAMA_ARG_CTX_SIZE", "value": "9"}]}},
        "spec.podTemplate.env[0].name",
        "llama-server reads such variables as flags. Use the field for it, or extraArgs",
    ),
    (
        {"podTemplate": {"env": [{"name": "A"}, {"name": "A"}]}},
        "spec.podTemplate.env",
        "must not name a variable twice",
    ),
    (
        {"podTemplate": {"env": [{"name": "A", "value": "b", "valueFrom": {}}]}},
        "spec.podTemplate.env[0]",
        "value and valueFrom must not both be set",
    ),
    (
        {"podTemplate": {"volumes": [{"name": "models", "emptyDir": {}}]}},
        "spec.podTemplate.volumes[0].name",
        "must not be models, tmp or model-token",
    ),
    (
        {"podTemplate": {"volumeMounts": [{"name": "a", "mountPath": "/a"}]}},
        "spec.podTemplate",
        "volumeMounts must name volumes of podTemplate.volumes",
    ),
    (
        {
            "podTemplate": {
                "volumes": [{"name": "a", "emptyDir": {}}],
                "volumeMounts": [{"name": "a", "mountPath": "/models/mine"}],
            }
        },
        "spec.podTemplate.volumeMounts[0].mountPath",
        "the operator's volumes are there",
    ),
]

AT_EIGHT = "0 8 * * *"

NO_CRONS = (
    *("", "soon", "@daily", "0 8 * *", "0 8 * * * *", "60 8 * * *", "0 24 * * *", "0 8 0 * *"),
    *("0 8 * 13 *", "0 8 * * 8", "0 8 * * FRE", "*/0 8 * * *", "0  8 * *"),
)

BAD_SCHEDULES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"autoscaling": {"maxReplicas": 2, "schedules": [schedule]}},
        f"spec.autoscaling{field}",
        sentence,
    )
    for schedule, field, sentence in (
        ({"cron": AT_EIGHT}, ".schedules[0]", "set minReplicas, maxReplicas or"),
        (
            {"cron": AT_EIGHT, "minReplicas": 3},
            "",
            "schedules must leave maxReplicas at least minReplicas",
        ),
        (
            {"cron": AT_EIGHT, "minReplicas": 1, "timeZone": "Europe/Brlin"},
            ".schedules[0].timeZone",
            "unknown time zone Europe/Brlin",
        ),
        (
            {"cron": AT_EIGHT, "minReplicas": 1, "timeZone": "Local"},
            ".schedules[0].timeZone",
            "must be a time zone of the IANA database",
        ),
        *(
            (
                {"cron": cron, "minReplicas": 1},
                ".schedules[0].cron",
                "must be minute, hour, day of month, month and day of week",
            )
            for cron in NO_CRONS
        ),
        *(
            ({"cron": cron, "minReplicas": 1}, ".schedules[0].cron", "must have ranges that go up")
            for cron in ("30-10 8 * * *", "0 8 5,9-07/2 * *", "0 8 * nov-FEB *", "0 8 * * FRI-MON")
        ),
        *(
            ({"cron": cron, "minReplicas": 1}, ".schedules[0].cron", "its day must be one of its")
            for cron in ("0 8 30 2 *", "0 8 31 4,Jun *", "0 8 30-31,31/2 feb */2")
        ),
    )
]

BAD_SCALINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"autoscaling": {"maxReplicas": 2, **spec}}, f"spec.autoscaling{field}", sentence)
    for spec, field, sentence in (
        ({"minReplicas": -1}, ".minReplicas", "greater than or equal to 0"),
        ({"minReplicas": "0"}, ".minReplicas", "must be of type integer"),
        ({"maxReplicas": 0}, ".maxReplicas", "greater than or equal to 1"),
        ({"maxReplicas": 1001}, ".maxReplicas", "less than or equal to 1000"),
        ({"targetSlotUtilization": 0}, ".targetSlotUtilization", "greater than or equal to 1"),
        ({"targetSlotUtilization": 101}, ".targetSlotUtilization", "less than or equal to 100"),
        ({"targetSlotUtilization": 0.8}, ".targetSlotUtilization", "must be of type integer"),
        ({"targetSlotUtilization": "80%"}, ".targetSlotUtilization", "must be of type integer"),
        ({"maxWaitSeconds": 0}, ".maxWaitSeconds", "greater than or equal to 1"),
        ({"maxWaitSeconds": 3601}, ".maxWaitSeconds", "less than or equal to 3600"),
        ({"maxWaitSeconds": "10s"}, ".maxWaitSeconds", "must be of type integer"),
        ({"idleSeconds": 300}, "", "idleSeconds is for minReplicas: 0, since without it"),
        ({"minReplicas": 0, "idleSeconds": 0}, ".idleSeconds", "greater than or equal to 1"),
        ({"minReplicas": 0, "idleSeconds": 86401}, ".idleSeconds", "less than or equal to 86400"),
        (
            {"minReplicas": 0, "behavior": {"scaleUp": {"selectPolicy": "Disabled"}}},
            "",
            "minReplicas must not be 0 where behavior.scaleUp.selectPolicy is Disabled",
        ),
        ({"behavior": "fast"}, ".behavior", "must be of type object"),
        (
            {"behavior": {"scaleUp": {"stabilizationWindowSeconds": -1}}},
            ".behavior.scaleUp.stabilizationWindowSeconds",
            "greater than or equal to 0",
        ),
        (
            {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}},
            ".behavior.scaleDown.stabilizationWindowSeconds",
            "less than or equal to 3600",
        ),
        (
            {"behavior": {"scaleDown": {"selectPolicy": "None"}}},
            ".behavior.scaleDown.selectPolicy",
            'Unsupported value: "None"',
        ),
        (
            {"behavior": {"scaleDown": {"policies": []}}},
            ".behavior.scaleDown.policies",
            "should have at least 1 items",
        ),
        (
            {"behavior": {"scaleUp": {"policies": [PODS] * 17}}},
            ".behavior.scaleUp.policies",
            "must have at most 16 items",
        ),
        (
            {"behavior": {"scaleUp": {"policies": [PODS | {"type": "Replicas"}]}}},
            ".behavior.scaleUp.policies[0].type",
            'Unsupported value: "Replicas"',
        ),
        (
            {"behavior": {"scaleUp": {"policies": [PODS | {"value": 0}]}}},
            ".behavior.scaleUp.policies[0].value",
            "greater than or equal to 1",
        ),
        (
            {"behavior": {"scaleDown": {"policies": [PODS | {"periodSeconds": 0}]}}},
            ".behavior.scaleDown.policies[0].periodSeconds",
            "greater than or equal to 1",
        ),
        (
            {"behavior": {"scaleDown": {"policies": [PODS | {"periodSeconds": 1801}]}}},
            ".behavior.scaleDown.policies[0].periodSeconds",
            "less than or equal to 1800",
        ),
        (
            {"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1}]}}},
            ".behavior.scaleDown.policies[0].periodSeconds",
            "Required value",
        ),
    )
]

BAD_SERVINGS += [
    ({"extraArgs": [flag]}, "spec.extraArgs[0]", rejected.rule.message)
    for rejected in REJECTED
    for flag in rejected.flags
]


@pytest.mark.parametrize(
    ("spec", "field", "sentence"),
    [
        ({"slots": 0}, "spec.slots", "should be greater than or equal to 1"),
        ({"slots": -3}, "spec.slots", "should be greater than or equal to 1"),
        ({"slots": 257}, "spec.slots", "should be less than or equal to 256"),
        ({"slots": "4"}, "spec.slots", "must be of type integer"),
        ({"slots": 1.5}, "spec.slots", "must be of type integer"),
        ({"contextPerSlot": 255}, "spec.contextPerSlot", "greater than or equal to 256"),
        ({"replicas": -1}, "spec.replicas", "should be greater than or equal to 0"),
        ({"replicas": 1001}, "spec.replicas", "should be less than or equal to 1000"),
        ({"image": ""}, "spec.image", "should be at least 1 chars long"),
        ({"model": {}}, "spec.model.url", "Required value"),
        (
            {"model": {"url": "ftp://models.example.com/model.gguf"}},
            "spec.model.url",
            (
                "must start with http:// or https:// and a host, such as "
                "https://example.com/model.gguf"
            ),
        ),
        ({"model": {"url": "model.gguf"}}, "spec.model.url", "must start with http:// or https://"),
        ({"model": {"url": ""}}, "spec.model.url", "must start with http:// or https://"),
        ({"model": {"url": "https:///a"}}, "spec.model.url", "and a host"),
        ({"model": {"url": "https://h/a b"}}, "spec.model.url", "write a blank as %20"),
        ({"model": {"url": "https://h/a\n"}}, "spec.model.url", "must be printable ASCII"),
        ({"model": {"url": "https://hé/a"}}, "spec.model.url", "must be printable ASCII"),
        (
            {"model": {"url": "https://me:secret@h/a"}},
            "spec.model.url",
            "must not hold a user name or password",
        ),
        (
            {"model": {"url": f"https://h/{'a' * 2048}"}},
            "spec.model.url",
            "may not be more than 2048",
        ),
        (
            {"model": {"url": URL, "sha256": "abc"}},
            "spec.model.sha256",
            "must be 64 hexadecimal digits, as `sha256sum FILE` prints them",
        ),
        (
            {"model": {"url": URL, "sha256": "g" * 64}},
            "spec.model.sha256",
            "must be 64 hexadecimal digits",
        ),
        ({"gpu": {"count": -1}}, "spec.gpu.count", "should be greater than or equal to 0"),
        (
            {"gpu": {"resourceName": "gpu"}},
            "spec.gpu.resourceName",
            "must be a resource name with a domain, such as nvidia.com/gpu or amd.com/gpu",
        ),
        ({"gpu": {"computeArch": "ampere"}}, "spec.gpu.computeArch", "should match '^([1-9]"),
        ({"gpu": {"computeArch": "sm_7.5"}}, "spec.gpu.computeArch", "sm_|compute_"),
        ({"gpu": {"computeArch": 0}}, "spec.gpu.computeArch", "greater than or equal to 1"),
        (
            {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}},
            "spec.autoscaling",
            "maxReplicas must be at least minReplicas",
        ),
        ({"autoscaling": {}}, "spec.autoscaling.maxReplicas", "Required value"),
        (
            {"resources": {"limits": {"gpu": 1}}},
            "spec.resources.limits",
            (
                "must name only cpu, memory, ephemeral-storage, hugepages-SIZE or resources with a "
                "domain"
            ),
        ),
        (
            {"resources": {"limits": {"memory": "4 GB"}}},
            "spec.resources.limits",
            "must be a quantity such as 500m, 2 or 4Gi",
        ),
        (
            {"resources": {"requests": {"cpu": -1}}},
            "spec.resources.requests",
            "must be a quantity such as 500m, 2 or 4Gi",
        ),
        (
            {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
            "spec.resources",
            "requests must not be above limits",
        ),
        (
            {"resources": {"limits": {"nvidia.com/gpu": 1}}},
            "spec",
            "resources.limits must not name the GPU: say how many in gpu.count",
        ),
        (
            {"gpu": {"resourceName": "amd.com/gpu"}, "resources": {"requests": {"amd.com/gpu": 1}}},
            "spec",
            "resources.requests must not name the GPU: say how many in gpu.count",
        ),
        *BAD_BALANCERS,
        *BAD_MODELS,
        *BAD_SERVINGS,
        *BAD_PODS,
        *BAD_SCALINGS,
        *BAD_SCHEDULES,
    ],
)
def test_an_invalid_spec_is_rejected_by_both_with_a_message(
    api: ApiServer, spec: dict[str, Any], field: str, sentence: str
) -> None:
    raw = raw_server(**spec)

    said = refusal(api, raw)

    assert said is not None
    assert field in said
    assert sentence in said
    assert not is_taken_by_the_operator(raw)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("1st", 'metadata.name: Invalid value: "string": must be 1 to 63 lower-case letters'),
        ("a.b", "must be 1 to 63 lower-case letters, digits and '-', start with a letter"),
        ("a" * 64, "it names the Service that clients use"),
        ("chat-replicas", "must not end with '-replicas' or '-workers'"),
        ("chat-workers", "must not end with '-replicas' or '-workers'"),
    ],
)
def test_a_name_that_no_service_can_have_is_rejected_by_both(
    api: ApiServer, name: str, sentence: str
) -> None:
    said = refusal(api, raw_server(name))

    assert said is not None
    assert sentence in said
    assert not is_taken_by_the_operator(raw_server(name))


@pytest.mark.parametrize("field", ["slot", "gpus", "maxReplicas"])
def test_an_unknown_field_is_rejected_by_name(api: ApiServer, field: str) -> None:
    unknown: dict[str, Any] = {field: 1}

    said = refusal(api, raw_server(**unknown))

    assert said is not None
    assert f'unknown field "spec.{field}"' in said


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(7.55, id="two decimals"),
        pytest.param(True, id="a truth value"),
        pytest.param({"major": 7}, id="an object"),
        pytest.param([7.5], id="a list"),
    ],
)
def test_the_operator_rejects_compute_archs_that_the_schema_cannot_exclude(
    api: ApiServer, arch: Any
) -> None:
    # The price of taking 7.5 without quotes: a CRD has no type for "number or string".
    raw = raw_server(gpu={"computeArch": arch})

    assert refusal(api, raw) is None
    with pytest.raises(InvalidSpec, match="must be a compute capability such as"):
        parsed(raw)


def mostly(good: Any, strange: Any) -> st.SearchStrategy[Any]:
    """Good values, and now and then one that may not be: else hardly a spec would be taken."""
    return st.integers(0, 19).flatmap(lambda chance: strange if chance == 0 else good)


quantities = mostly(
    st.sampled_from([1, "1", "1000m", "1.5", "2e0", "3"]),
    st.sampled_from([0, "500m", "1.5Gi", "2e3", "1n", "4Ki", "5.", -1, "-1", "x", "", "1 ", "1gi"]),
)
names = mostly(
    st.sampled_from(["cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "example.com/card"]),
    st.sampled_from(["nvidia.com/gpu", "amd.com/gpu", "gpu", "", "a/b/c", "/a"]),
)
amounts = st.dictionaries(names, quantities, max_size=3)

sizes = mostly(
    st.sampled_from(["128Mi", "130M", "256Mi", "300Mi", "1Gi", 268435456]),
    st.sampled_from([0, 1, "1023Ki", "1Mi", "64Gi", "65Gi", "-1", "x", "1e9", "1.5Gi"]),
)

specs = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {
                "url": mostly(
                    st.just(URL),
                    st.builds(
                        "{}{}".format,
                        st.sampled_from(["https://", "http://h", "https:/", "HTTPS://", "s3://h"]),
                        st.text("aé./?#@: \n-1[]%", max_size=8),
                    ),
                )
            },
            optional={
                "sha256": mostly(st.just("0aF9" * 16), st.text("0aFg", min_size=63, max_size=65)),
                "alias": mostly(st.just("org/a:7b"), st.text("aZ0-./:_@+, $\n", max_size=6)),
                "tokenSecretRef": st.fixed_dictionaries(
                    {"name": mostly(st.just("a.b-c"), st.text("aA.-_", max_size=4))},
                    optional={"key": mostly(st.just("HF_TOKEN"), st.text("aA.-_/ ", max_size=4))},
                ),
                "mmproj": st.fixed_dictionaries({"url": mostly(st.just(URL), st.just("s3://a"))}),
                "adapters": st.lists(
                    st.fixed_dictionaries(
                        {"url": mostly(st.just(URL), st.just("s3://a"))},
                        optional={
                            "scale": mostly(
                                st.sampled_from([0, 1, -0.5, 100]), st.sampled_from([-100.5, 101])
                            )
                        },
                    ),
                    max_size=2,
                ),
                "cache": st.one_of(
                    st.fixed_dictionaries({}, optional={"sizeLimit": sizes}),
                    st.fixed_dictionaries(
                        {"claimName": mostly(st.just("models"), st.just("A"))},
                        optional={"sizeLimit": sizes},
                    ),
                ),
            },
        )
    },
    optional={
        "slots": mostly(st.integers(1, 256), st.integers(-1, 300)),
        "contextPerSlot": mostly(
            st.integers(256, 16_777_216), st.sampled_from([0, 255, 16_777_217])
        ),
        "gpu": st.fixed_dictionaries(
            {},
            optional={
                "count": mostly(st.integers(0, 128), st.integers(-1, 130)),
                "resourceName": mostly(
                    st.sampled_from(["nvidia.com/gpu", "amd.com/gpu"]),
                    st.text("a.-/_A", max_size=6),
                ),
                "computeArch": mostly(
                    st.sampled_from([7.5, 75, "7.5", "sm_86", 12.1]),
                    st.one_of(
                        st.from_regex(r"(sm_|compute_|)[0-9]{0,3}\.?[0-9]?", fullmatch=True),
                        st.integers(0, 1100),
                    ),
                ),
                "minMemory": mostly(
                    st.sampled_from(["1Mi", "16Gi", "1Ti", 2**24]),
                    st.sampled_from([0, "1023Ki", "2Ti", "x"]),
                ),
                "layers": mostly(st.integers(0, 998), st.sampled_from([-1, 999])),
                "splitMode": mostly(
                    st.sampled_from(["none", "layer", "row", "tensor"]), st.just("x")
                ),
                "tensorSplit": st.lists(
                    mostly(st.sampled_from([0, 1, 2.5]), st.sampled_from([-0.5, 1_000_001])),
                    max_size=3,
                ),
            },
        ),
        "kvCacheType": mostly(st.sampled_from(["f16", "bf16", "q8_0", "iq4_nl"]), st.just("F16")),
        "flashAttention": mostly(st.sampled_from(["auto", "enabled", "disabled"]), st.just("on")),
        "jinja": st.booleans(),
        "chatTemplate": mostly(
            st.sampled_from(["chatml", "{{ a }}", "{%- b %}"]),
            st.text("{}% $a\né", max_size=4),
        ),
        "reasoning": st.fixed_dictionaries(
            {},
            optional={
                "enabled": st.booleans(),
                "format": mostly(st.sampled_from(["auto", "deepseek"]), st.just("")),
                "budgetTokens": mostly(
                    st.integers(-1, 1_000_000), st.sampled_from([-2, 1_000_001])
                ),
            },
        ),
        "embeddings": st.fixed_dictionaries(
            {}, optional={"pooling": mostly(st.sampled_from(["mean", "rank"]), st.just("sum"))}
        ),
        "extraArgs": st.lists(
            mostly(
                st.sampled_from(["--top-k", "-1", "", "-ub", "a=b", "--batch_size"]),
                st.one_of(
                    st.sampled_from(["-c", "--no_slots", "--fit=on", "--a=", "-a b", "--a\n"]),
                    st.text("-a_= \t\n\v\u00a0é", max_size=6),
                ),
            ),
            max_size=4,
        ),
        "resources": st.fixed_dictionaries({}, optional={"requests": amounts, "limits": amounts}),
        "workers": st.fixed_dictionaries(
            {"count": mostly(st.integers(1, 2), st.sampled_from([0, 17]))},
            optional={
                "resources": st.fixed_dictionaries(
                    {}, optional={"requests": amounts, "limits": amounts}
                )
            },
        ),
        "balancer": st.fixed_dictionaries(
            {},
            optional={
                "replicas": mostly(st.integers(1, 5), st.integers(-1, 7)),
                "maxQueuedBytes": sizes,
                "maxBodyBytes": sizes,
                "heartbeatSeconds": mostly(st.integers(1, 300), st.sampled_from([0, 301])),
                "allowedPaths": st.lists(
                    mostly(st.sampled_from(["/infill", "/v1/messages", "/rerank"]), st.just("/a")),
                    max_size=2,
                ),
                "apiKeys": st.fixed_dictionaries(
                    {"secretName": mostly(st.just("a.b-c"), st.text("aA.-_", max_size=4))},
                    optional={
                        "maxPriorities": st.dictionaries(
                            mostly(st.just("web"), st.text("aA.-_= \n", max_size=4)),
                            mostly(st.integers(0, 1000), st.sampled_from([-1, 1001])),
                            max_size=2,
                        )
                    },
                ),
                "resources": st.fixed_dictionaries(
                    {}, optional={"limits": st.dictionaries(st.just("memory"), sizes, max_size=1)}
                ),
            },
        ),
        "image": mostly(st.just("a"), st.sampled_from(["", "a" * 1024, "a" * 1025])),
        "replicas": mostly(st.integers(0, 1000), st.sampled_from([-1, 1001])),
        "autoscaling": st.fixed_dictionaries(
            {"maxReplicas": mostly(st.integers(3, 9), st.integers(-1, 1001))},
            optional={
                "minReplicas": mostly(st.integers(0, 3), st.integers(-1, 9)),
                "targetSlotUtilization": mostly(st.integers(1, 100), st.integers(-1, 102)),
                "idleSeconds": mostly(st.integers(1, 9), st.just(0)),
                "schedules": st.lists(
                    st.fixed_dictionaries(
                        {
                            "cron": mostly(
                                st.just("5 */2 1,15-20 jan *"),
                                st.sampled_from(["61 * * * *", "0 8 * * sun-sat", "9-8 8 31 2 *"]),
                            )
                        },
                        optional={
                            "timeZone": mostly(st.just("Asia/Tokyo"), st.just("Local")),
                            "minReplicas": mostly(st.integers(0, 3), st.integers(-1, 9)),
                            "maxReplicas": mostly(st.integers(3, 9), st.integers(-1, 9)),
                        },
                    ),
                    max_size=2,
                ),
                "behavior": st.fixed_dictionaries(
                    {},
                    optional={
                        "scaleUp": st.fixed_dictionaries(
                            {},
                            optional={
                                "selectPolicy": st.sampled_from(["Min", "Disabled"]),
                                "policies": mostly(st.just([PODS]), st.just([])),
                            },
                        )
                    },
                ),
            },
        ),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs)
def test_both_accept_the_same_specs(api: ApiServer, spec: dict[str, Any]) -> None:
    raw = raw_server(**spec)

    assert (refusal(api, raw) is None) == is_taken_by_the_operator(raw)
