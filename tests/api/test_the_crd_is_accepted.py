"""The API server accepts the CRD, and kubectl works with it."""

import json
import re
from typing import Any

import yaml

from apiserver import ApiServer
from llamaservers import ROOT, raw_server

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATH = "/apis/slotkeeper.dev/v1alpha1/namespaces/default/llamaservers"

STATUS = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "2/2 replicas available",
            "lastTransitionTime": "2026-11-22T10:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "replicas": 2,
    "readyReplicas": 1,
    "replicasReady": "1/2",
    "selector": "slotkeeper.dev/server=seen,slotkeeper.dev/component=replica",
    "slots": {"total": 8, "busy": 3},
    "slotsInUse": "3/8",
    "queued": 5,
    "url": "http://seen.default.svc",
    "model": {
        "source": "https://models.example.com/model.gguf",
        "file": "model.gguf",
        "sizeBytes": 4_920_739_232,
        "sha256": "ab" * 32,
        "architecture": "llama",
        "contextLength": 8192,
        "layers": 32,
        "quantization": "Q4_K_M",
        "name": "Llama 3 8B",
        "sizeLabel": "8B",
        "bytes": 4_920_739_232,
        "downloadedBytes": 2_115_917_869,
        "bytesPerSecond": 35_060_267,
        "secondsLeft": 80,
        "display": "43% 1m20s",
    },
    "scaling": {"desiredReplicas": 2, "reason": "Manual", "message": "replicas: 2"},
}


def applied(api: ApiServer, name: str, **spec: Any) -> dict[str, Any]:
    """Apply a LlamaServer and return it as stored."""
    body = json.dumps(raw_server(name, **spec))
    done = api.kubectl("apply", "--server-side", "--filename=-", "--output=json", stdin=body)
    assert done.returncode == 0, done.stderr
    stored: dict[str, Any] = json.loads(done.stdout)
    return stored


def test_the_api_server_accepts_the_crd_without_a_warning(api: ApiServer) -> None:
    crd = yaml.safe_load((ROOT / "crds" / "slotkeeper.dev_llamaservers.yaml").read_text())

    response = api.client.patch(
        f"{CRD_PATH}/{crd['metadata']['name']}",
        params={
            "fieldManager": "test",
            "fieldValidation": "Strict",
            "force": "true",
        },
        headers={"Content-Type": "application/apply-patch+yaml"},
        content=yaml.safe_dump(crd),
    )

    assert response.status_code == 200, response.text
    assert "Warning" not in response.headers
    conditions = {each["type"]: each["status"] for each in response.json()["status"]["conditions"]}
    assert conditions["Established"] == "True"
    # The condition is absent if the schema is structural.
    assert "NonStructuralSchema" not in conditions


def test_kubectl_explains_each_field(api: ApiServer) -> None:
    done = api.kubectl("explain", "llamaserver.spec", "--recursive")
    assert done.returncode == 0, done.stderr
    paths = explained(done.stdout)
    assert {"model.url", "gpu.computeArch", "autoscaling.maxReplicas"} <= set(paths)

    for path in paths:
        text = api.kubectl("explain", f"llamaserver.spec.{path}").stdout
        _, _, description = text.partition("DESCRIPTION:")
        assert description.strip(), path
        assert "<empty>" not in description, path


def explained(text: str) -> list[str]:
    """Paths of the fields in the output of `kubectl explain --recursive`, indented by two spaces.

    The enum of a field is on its own line below it, indented like a nested field.
    """
    paths: list[str] = []
    parents: list[str] = []
    _, _, fields = text.partition("FIELDS:\n")
    for line in fields.splitlines():
        if (name := line.strip().split("\t")[0]) and not name.startswith("enum:"):
            level = (len(line) - len(line.lstrip())) // 2 - 1
            parents = [*parents[:level], name]
            paths.append(".".join(parents))
    return paths


def test_kubectl_get_prints_the_columns(api: ApiServer) -> None:
    applied(api, "seen")
    patched = api.client.patch(
        f"{PATH}/seen/status",
        params={"fieldValidation": "Strict"},
        headers={"Content-Type": "application/merge-patch+json"},
        content=json.dumps({"status": STATUS}),
    )
    assert patched.status_code == 200, patched.text
    assert patched.json()["status"] == STATUS

    header, row = api.kubectl("get", "llama", "seen").stdout.splitlines()
    wide = [
        re.split(" {2,}", line)
        for line in api.kubectl("get", "llama", "seen", "--output=wide").stdout.splitlines()
    ]

    assert header.split() == ["NAME", "READY", "REPLICAS", "SLOTS", "QUEUED", "MODEL", "AGE"]
    columns = re.split(" {2,}", row)
    assert columns[:6] == ["seen", "True", "1/2", "3/8", "5", "43% 1m20s"]
    assert wide[0][7:] == ["REASON", "DEGRADED", "GPUS", "URL"]
    assert [wide[1][7], *wide[1][-2:]] == ["Serving", "1", "http://seen.default.svc"]


def test_kubectl_get_all_shows_servers(api: ApiServer) -> None:
    applied(api, "listed")

    assert "llamaserver.slotkeeper.dev/listed" in api.kubectl("get", "all").stdout


def test_kubectl_scale_sets_replicas(api: ApiServer) -> None:
    applied(api, "scaled")

    done = api.kubectl("scale", "llama/scaled", "--replicas=3")

    assert done.returncode == 0, done.stderr
    assert api.client.get(f"{PATH}/scaled").json()["spec"]["replicas"] == 3


def test_scale_reports_the_number_of_replicas_and_their_selector(api: ApiServer) -> None:
    applied(api, "measured", replicas=2)
    api.client.patch(
        f"{PATH}/measured/status",
        headers={"Content-Type": "application/merge-patch+json"},
        content=json.dumps({"status": STATUS}),
    )

    scale = api.client.get(f"{PATH}/measured/scale").json()

    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 2, "selector": STATUS["selector"]}


def test_a_partial_status_of_an_older_operator_is_accepted(api: ApiServer) -> None:
    applied(api, "partly")

    patched = api.client.patch(
        f"{PATH}/partly/status",
        headers={"Content-Type": "application/merge-patch+json"},
        content=json.dumps({"status": {"queued": 1}}),
    )

    assert patched.json()["status"] == {"queued": 1}
