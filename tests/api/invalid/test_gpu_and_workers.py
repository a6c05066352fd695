"""Values of spec.gpu and spec.workers that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from rejections import assert_rejected

CLAIM = {"name": "gpu", "resourceClaimName": "shared"}

ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"gpu": {"layers": -1}}, "spec.gpu.layers", "must be a number from 0 to 998, or auto"),
    ({"gpu": {"layers": 999}}, "spec.gpu.layers", "must be a number from 0 to 998, or auto"),
    ({"gpu": {"layers": "all"}}, "spec.gpu.layers", "must be a number from 0 to 998, or auto"),
    ({"gpu": {"layers": "12"}}, "spec.gpu.layers", "must be a number from 0 to 998, or auto"),
    ({"gpu": {"layers": "auto", "count": 0}}, "spec.gpu", "must not be set if count is 0"),
    ({"gpu": {"memory": "15Gi", "count": 0}}, "spec.gpu", "it is that of a GPU"),
    ({"gpu": {"memory": "2Ti"}}, "spec.gpu.memory", "must be from 1Mi to 1Ti"),
    ({"gpu": {"splitMode": "column"}}, "spec.gpu.splitMode", 'Unsupported value: "column"'),
    (
        {"gpu": {"count": 2, "tensorSplit": [1, 1, 1]}},
        "spec",
        "gpu.tensorSplit must have one number for each GPU of a replica",
    ),
    (
        {"gpu": {"count": 2, "tensorSplit": [1, 1]}, "workers": {"count": 1}},
        "spec",
        "gpu.count numbers, and gpu.count more for each of its workers",
    ),
    ({"workers": {}}, "spec.workers.count", "Required value"),
    (
        {"workers": {"count": 1}, "update": {"strategy": "Recreate"}},
        "spec",
        "update must not set strategy, maxSurge or maxUnavailable with workers",
    ),
    (
        {"workers": {"count": 1}, "update": {"maxUnavailable": 1}},
        "spec",
        "groups are always replaced one after the other",
    ),
    (
        {"workers": {"count": 1, "cache": {"sizeLimit": "1Ki"}}},
        "spec.workers.cache.sizeLimit",
        "must be from 1Mi to 16Ti",
    ),
    ({"workers": {"count": 1, "cache": True}}, "spec.workers.cache", "must be of type object"),
    ({"workers": {"count": 0}}, "spec.workers.count", "greater than or equal to 1"),
    ({"workers": {"count": 17}}, "spec.workers.count", "less than or equal to 16"),
    (
        {"workers": {"count": 1, "resources": {"limits": {"nvidia.com/gpu": 1}}}},
        "spec",
        "workers.resources must not contain gpu.resourceName: each worker has gpu.count",
    ),
    (
        {"gpu": {"count": 2, "tensorSplit": [0, 0.0]}},
        "spec.gpu",
        "tensorSplit must have at least one share above 0",
    ),
    ({"gpu": {"tensorSplit": [-1]}}, "spec.gpu.tensorSplit[0]", "greater than or equal to 0"),
    (
        {"gpu": {"minMemory": "16 GB"}},
        "spec.gpu.minMemory",
        "must be a quantity such as 512Mi or 16Gi",
    ),
    (
        {"gpu": {"minMemory": 16}},
        "spec.gpu.minMemory",
        "must be from 1Mi to 1Ti: write the unit, as in 16Gi",
    ),
    (
        {"gpu": {"minMemory": "16Gi", "resourceName": "amd.com/gpu"}},
        "spec.gpu",
        "minMemory must not be set unless resourceName is in nvidia.com",
    ),
    (
        {"gpu": {"count": 0, "layers": 10}},
        "spec.gpu",
        "layers and minMemory must not be set if count is 0: they require a GPU",
    ),
    ({"gpu": {"cpuMoeLayers": 0}}, "spec.gpu.cpuMoeLayers", "greater than or equal to 1"),
    (
        {"gpu": {"count": 0, "cpuMoeLayers": 1}},
        "spec.gpu",
        "cpuMoeLayers and mainGpu must not be set if count is 0: they require a GPU",
    ),
    (
        {"gpu": {"count": 0, "mainGpu": 0, "splitMode": "none"}},
        "spec.gpu",
        "cpuMoeLayers and mainGpu must not be set if count is 0: they require a GPU",
    ),
    (
        {"gpu": {"count": 2, "mainGpu": 1}},
        "spec.gpu",
        "mainGpu must not be set unless splitMode is none",
    ),
    (
        {"gpu": {"count": 2, "mainGpu": 2, "splitMode": "none"}},
        "spec.gpu",
        "mainGpu must be less than count: the first GPU is 0",
    ),
    (
        {"gpu": {"mainGpu": 0, "splitMode": "none"}, "workers": {"count": 1}},
        "spec",
        "gpu.mainGpu must not be set with workers",
    ),
    ({"gpu": {"count": -1}}, "spec.gpu.count", "should be greater than or equal to 0"),
    (
        {"gpu": {"resourceName": "gpu"}},
        "spec.gpu.resourceName",
        "must be a resource name with a domain, such as nvidia.com/gpu or amd.com/gpu",
    ),
    (
        {"gpu": {"computeArch": 7.5, "resourceName": "amd.com/gpu"}},
        "spec.gpu.resourceName",
        "should match '^nvidia",
    ),
    (
        {"gpu": {"computeArch": "auto", "resourceName": "amd.com/gpu"}},
        "spec.gpu",
        "must validate at least one schema (anyOf)",
    ),
    ({"gpu": {"computeArch": "ampere"}}, "spec.gpu.computeArch", "should match '^([1-9]"),
    ({"gpu": {"computeArch": "sm_7.5"}}, "spec.gpu.computeArch", "sm_|compute_"),
    ({"gpu": {"computeArch": 0}}, "spec.gpu.computeArch", "greater than or equal to 2"),
    (
        {"gpu": {"resourceClaims": [{"name": "gpu"}]}},
        "spec.gpu.resourceClaims[0]",
        "must have either resourceClaimTemplateName or resourceClaimName",
    ),
    (
        {"gpu": {"resourceClaims": [{**CLAIM, "resourceClaimTemplateName": "a"}]}},
        "spec.gpu.resourceClaims[0]",
        "must have either resourceClaimTemplateName or resourceClaimName",
    ),
    ({"gpu": {"resourceClaims": [CLAIM, CLAIM]}}, "spec.gpu.resourceClaims", "a name twice"),
    ({"gpu": {"resourceClaims": []}}, "spec.gpu.resourceClaims", "at least 1 items"),
    ({"gpu": {"resourceClaims": [CLAIM], "count": 0}}, "spec.gpu", "if count is 0"),
    ({"gpu": {"resourceClaims": [CLAIM], "minMemory": "9Gi"}}, "spec.gpu", "with minMemory"),
    (
        {"gpu": {"resourceClaims": [CLAIM]}, "workers": {"count": 1}},
        "spec",
        "gpu.resourceClaims must not have resourceClaimName with workers",
    ),
    (
        {"gpu": {"resourceClaims": [{**CLAIM, "name": "a.b"}]}},
        "spec.gpu.resourceClaims[0].name",
        "must be the name of a claim",
    ),
    ({"gpu": {"supplementalGroups": [0]}}, "spec.gpu.supplementalGroups[0]", "equal to 1"),
    ({"gpu": {"supplementalGroups": [2**31]}}, "supplementalGroups[0]", "equal to 2147483647"),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_gpu_or_worker_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_rejected(api, spec, field, message)
