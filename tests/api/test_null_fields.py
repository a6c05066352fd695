"""Templating tools write null for what is not set: it is like a missing field, as in a pod."""

from typing import Any

import pytest

from apiserver import ApiServer
from llamaservers import IMAGES, parsed, raw_server
from rejections import PATH
from slotkeeper.desired.manifests import manifests

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

SPECS: list[dict[str, Any]] = [
    {"resources": None, "balancer": None, "placement": None, "podTemplate": None, "gpu": None},
    {"replicas": None, "autoscaling": None, "extraArgs": None, "imagePullSecrets": None},
    {"model": {"url": "https://h/a", "sha256": None, "cache": None, "download": None}},
    {"resources": {"limits": None, "requests": None}},
    {"resources": {"limits": {"cpu": None}}},
    {"balancer": {"resources": {"limits": None}, "apiKeys": None, "allowedPaths": None}},
    {"balancer": {"placement": {"nodeSelector": None, "tolerations": None}}},
    {"placement": {"nodeSelector": {"a": None}, "tolerations": None, "affinity": None}},
    {"placement": {"affinity": {"nodeAffinity": None}}},
    {"placement": {"affinity": {"nodeAffinity": {REQUIRED: None}}}},
    {"podTemplate": {"labels": {"a": None}, "annotations": {"a": None}}},
    {"podTemplate": {"env": [{"name": "A", "value": None, "valueFrom": None}]}},
    {"podTemplate": {"volumes": [{"name": "a", "configMap": None}]}},
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_null_is_like_a_missing_field(api: ApiServer, spec: dict[str, Any]) -> None:
    raw = raw_server(**({"gpu": {"count": 1, "computeArch": "7.5"}} | spec))

    created = api.post(f"{PATH}/llamaservers", raw, dry_run=True)

    assert created.status_code == 201, created.text
    assert list(manifests(parsed(created.json()), 1, IMAGES))
