from typing import Any

import pytest

from llamagateways import gateway
from llamaservers import IMAGES
from slotkeeper.api import quantity
from slotkeeper.batches.options import DAY, parse
from slotkeeper.desired import gateway_secrets, names
from slotkeeper.desired.gateway_batches import DATA_FOLDER, batches_manifests
from slotkeeper.desired.metadata import MIB

KEYS = {"secretRef": {"name": "keys"}}
OWN = {"storage": {"claimName": "mine"}}
NEW = {"storage": {"size": "20Gi"}}


def by_kind(**spec: Any) -> dict[str, Any]:
    return {each["kind"]: each for each in batches_manifests(gateway(**spec), IMAGES)}


def pod(**spec: Any) -> Any:
    return by_kind(**spec)["Deployment"]["spec"]["template"]["spec"]


def test_without_the_field_there_is_nothing() -> None:
    assert batches_manifests(gateway(), IMAGES) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"batches": OWN},
        {"batches": OWN, "apiKeys": KEYS, "tls": {"secretName": "cert"}},
        {
            "maxBodyBytes": "64Mi",
            "batches": {
                **NEW,
                "maxFileBytes": "1500Ki",
                "maxStorageBytes": "1Gi",
                "retentionDays": 7,
                "concurrency": 3,
            },
        },
    ],
)
def test_the_process_accepts_its_command_line(spec: dict[str, Any]) -> None:
    found = pod(**spec)
    [container] = found["containers"]
    program, process, *arguments = container["command"]

    options = parse(arguments)

    declared = gateway(**spec).spec
    batches = declared.batches
    assert batches
    assert (program, process) == ("slotkeeper", "batches")
    port = 443 if declared.tls else 80
    assert options.gateway == ("llm.default.svc", port)
    assert str(options.data) == DATA_FOLDER
    assert (options.api_keys is not None, options.certificate is not None) == (
        declared.api_keys is not None,
        declared.tls is not None,
    )
    size = float(quantity.parse(batches.max_file_bytes))
    assert size <= options.max_file_bytes < size + MIB
    assert (options.max_storage_bytes is None) == (batches.max_storage_bytes is None)
    assert options.max_line == declared.max_body
    assert options.retention_seconds == batches.retention_days * DAY
    assert options.concurrency == batches.concurrency
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts.keys() == {each["name"] for each in found["volumes"]}


def test_the_pod_has_no_token_and_only_the_certificate() -> None:
    found = pod(batches=OWN, tls={"secretName": "cert"}, apiKeys=KEYS)

    assert found["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in found
    volumes = {each["name"]: each for each in found["volumes"]}
    assert volumes[gateway_secrets.TLS_VOLUME]["secret"]["items"] == [
        {"key": "tls.crt", "path": "tls.crt"}
    ]
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "mine"}


def test_a_claim_is_created_only_without_one_of_the_users() -> None:
    assert "PersistentVolumeClaim" not in by_kind(batches=OWN)
    claim = by_kind(batches={"storage": {"size": "20Gi", "storageClassName": "fast"}})[
        "PersistentVolumeClaim"
    ]
    assert claim["metadata"]["name"] == "llm-batches"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "20Gi"}},
        "storageClassName": "fast",
    }
    assert "storageClassName" not in by_kind(batches=NEW)["PersistentVolumeClaim"]["spec"]


def test_only_one_pod_writes_the_volume() -> None:
    spec = by_kind(batches=OWN)["Deployment"]["spec"]

    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_only_pods_of_the_gateway_may_connect() -> None:
    policy = by_kind(batches=OWN)["NetworkPolicy"]["spec"]
    requests, metrics = policy["ingress"]

    assert requests["from"] == [
        {
            "podSelector": {
                "matchLabels": {names.GATEWAY_LABEL: "llm", names.COMPONENT_LABEL: "gateway"}
            }
        }
    ]
    assert [each["port"] for each in requests["ports"]] == [names.GATEWAY_PORT]
    assert [each["port"] for each in metrics["ports"]] == [names.METRICS_PORT]


def test_the_service_has_the_name_by_which_the_gateway_finds_it() -> None:
    long = "a" * 60
    for name in ("llm", long):
        owner = gateway(name=name, batches=OWN) if name != "llm" else gateway(batches=OWN)
        [service] = [each for each in batches_manifests(owner, IMAGES) if each["kind"] == "Service"]
        assert service["metadata"]["name"] == names.batches(owner)
        assert len(service["metadata"]["name"]) <= 63
