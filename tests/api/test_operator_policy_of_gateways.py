"""What the operator's token may write for LlamaGateways under the chart's `operatorPolicy`."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from helm import NAMESPACE, Helm
from llamagateways import parsed_gateway, raw_gateway
from llamaservers import IMAGES
from operator_policy import (
    FULL_NAME,
    OPERATOR,
    STRANGERS,
    TEAM,
    Json,
    apply,
    changed,
    child,
    guarded_server,
)
from operator_process import create, namespace_of
from slotkeeper.desired.gateway import manifests as gateway_manifests


@pytest.fixture(scope="module")
def helm(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    create(api, *map(namespace_of, (NAMESPACE, TEAM, STRANGERS)))
    return Helm(api, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def guarded(helm: Helm) -> Iterator[ApiServer]:
    with guarded_server(helm) as api:
        yield api


def gateway_children(name: str = "llm", **spec: Any) -> list[Json]:
    raw = raw_gateway(name, **spec)
    raw["metadata"]["namespace"] = TEAM
    return gateway_manifests(parsed_gateway(raw), IMAGES)


def of_gateway(kind: str, **spec: Any) -> Json:
    """A child of the gateway `llm`."""
    return next(each for each in gateway_children(**spec) if each["kind"] == kind)


BATCHES = {"storage": {"size": "1Gi"}}


def of_batches(kind: str) -> Json:
    """A child for the batches of the gateway `llm`."""
    return next(
        each
        for each in gateway_children(batches=BATCHES)
        if each["kind"] == kind and each["metadata"]["name"] == "llm-batches"
    )


WITHOUT_ACCOUNT = {
    **of_gateway("Deployment")["spec"]["template"]["spec"],
    "serviceAccountName": "",
    "automountServiceAccountToken": False,
}
"""The spec of a gateway's pods without a ServiceAccount: a program of another kind."""


def changed_owner(manifest: Json) -> Json:
    """The same object as a child of the gateway `llm`."""
    copied = copy.deepcopy(manifest)
    metadata = copied["metadata"]
    del metadata["labels"]["slotkeeper.dev/server"]
    metadata["labels"]["slotkeeper.dev/gateway"] = "llm"
    metadata["ownerReferences"][0] |= {"kind": "LlamaGateway", "name": "llm"}
    return copied


@pytest.mark.parametrize("name", ["llm", "a" * 56, "a" * 63])
def test_the_operator_may_create_change_and_delete_all_children_of_a_gateway(
    guarded: ApiServer, name: str
) -> None:
    ref = {"name": "keys", "key": "token"}
    backend = {
        "name": "up",
        "url": "https://up.example/v1",
        "secretRef": ref,
        "caSecretRef": ref,
        "models": [{"name": "gpt"}],
    }
    spec: dict[str, Any] = {
        "apiKeys": {"secretRef": {"name": "keys"}},
        "tls": {"secretName": "cert"},
        "externalBackends": [backend, {**backend, "name": "a" * 40}],
        "batches": BATCHES,
    }
    written = gateway_children(name, **spec)

    assert apply(guarded, *written) == ""
    assert apply(guarded, *written) == ""

    deleted = guarded.kubectl(
        *("delete", f"--as={OPERATOR}", "--wait=false", "--filename=-"),
        stdin=yaml.safe_dump_all(written),
    )
    assert deleted.stderr == ""
    # Its finalizer needs a controller that does not run here.
    patch = ("-n", TEAM, "-p", '{"metadata":{"finalizers":null}}')
    [claim] = [each for each in written if each["kind"] == "PersistentVolumeClaim"]
    patched = guarded.kubectl("patch", "pvc", claim["metadata"]["name"], *patch)
    assert patched.returncode == 0, patched.stderr


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_the_service_of_a_gateway_may_have_each_type(guarded: ApiServer, kind: str) -> None:
    assert apply(guarded, of_gateway("Service", service={"type": kind}), dry_run=True) == ""


@pytest.mark.parametrize(
    ("manifest", "path", "value", "message"),
    [
        *(
            (of_gateway(kind), path, value, message)
            for kind, path, value, message in (
                (
                    "Deployment",
                    "metadata.labels.slotkeeper\\.dev/server",
                    "llm",
                    "may only write objects with the label",
                ),
                (
                    "Deployment",
                    "metadata.ownerReferences.0.kind",
                    "LlamaServer",
                    "may only write objects with the label",
                ),
                (
                    "Deployment",
                    "spec.template.spec.serviceAccountName",
                    "llm-balancer",
                    "only balancers and gateways may have a ServiceAccount",
                ),
                (
                    "Deployment",
                    "spec.template.spec",
                    WITHOUT_ACCOUNT,
                    "only balancers and gateways may have a ServiceAccount",
                ),
                (
                    "Deployment",
                    "spec.template.spec.containers.0.image",
                    "registry.example.com/shell",
                    "with the image slotkeeper/balancer:0.1.0",
                ),
                (
                    "Deployment",
                    "spec.template.spec.containers.0.command",
                    ["slotkeeper", "balancer"],
                    "only balancers and gateways may have a ServiceAccount",
                ),
                (
                    "Deployment",
                    "metadata.name",
                    "api-gateway",
                    "only balancers and gateways may have a ServiceAccount",
                ),
                ("Service", "spec.externalIPs", ["192.0.2.1"], "no externalIPs"),
                (
                    "Service",
                    "spec.selector",
                    {"slotkeeper.dev/server": "llm"},
                    "select pods of their own",
                ),
                ("ServiceAccount", "metadata.name", "llm-balancer", "must have the name"),
                (
                    "Role",
                    "rules",
                    [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}],
                    "may only allow to read LlamaGateways and LlamaServers",
                ),
                (
                    "Role",
                    "rules",
                    [
                        {
                            "apiGroups": ["discovery.k8s.io"],
                            "resources": ["endpointslices"],
                            "verbs": ["get"],
                        }
                    ],
                    "may only allow to read LlamaGateways and LlamaServers",
                ),
                (
                    "RoleBinding",
                    "roleRef.name",
                    "chat-balancer",
                    "may only bind the Role of their own name",
                ),
            )
        ),
        *(
            (of_batches(kind), path, value, message)
            for kind, path, value, message in (
                (
                    "Deployment",
                    "spec.template.spec.containers.0.command",
                    ["sh", "-c", "id"],
                    "must run only `slotkeeper batches`",
                ),
                (
                    "Deployment",
                    "spec.template.spec.containers.0.image",
                    "registry.example.com/shell",
                    "must run only `slotkeeper batches`",
                ),
                (
                    "Deployment",
                    "spec.template.spec.serviceAccountName",
                    "llm-gateway",
                    "must run only `slotkeeper batches`",
                ),
                (
                    "Deployment",
                    "spec.template.spec.automountServiceAccountToken",
                    True,
                    "must have automountServiceAccountToken=false",
                ),
                (
                    "Deployment",
                    "spec.template.spec.volumes",
                    [{"name": "data", "hostPath": {"path": "/"}}],
                    "must run only `slotkeeper batches`",
                ),
                (
                    "Deployment",
                    "metadata.name",
                    "api-batches",
                    "only balancers and gateways may have a ServiceAccount",
                ),
                ("PersistentVolumeClaim", "metadata.name", "db", "must have the name"),
                ("PersistentVolumeClaim", "spec.volumeName", "pv-1", "no source, selector"),
                (
                    "PersistentVolumeClaim",
                    "spec.dataSource",
                    {"kind": "PersistentVolumeClaim", "name": "db"},
                    "no source, selector",
                ),
            )
        ),
        *(
            (
                of_gateway("Deployment", apiKeys={"secretRef": {"name": "keys"}}),
                "spec.template.spec.containers.0.volumeMounts.0.mountPath",
                folder,
                "only balancers and gateways may have a ServiceAccount",
            )
            for folder in (
                "/etc/slotkeeper/backends",
                "/etc/slotkeeper/backends/up",
                "/etc/slotkeeper/backends/../key",
                "/etc/slotkeeper/backends/up/key/x",
                "/opt/etc/slotkeeper/backends/up/key",
            )
        ),
        (
            changed_owner(child("Lease")),
            "metadata.name",
            "llm",
            "may only write objects with the label",
        ),
    ],
)
def test_the_operators_token_writes_nothing_else_for_a_gateway(
    guarded: ApiServer, manifest: Json, path: str, value: Any, message: str
) -> None:
    # The API server looks the Role up first.
    assert apply(guarded, child("Role"), of_gateway("Role")) == ""

    error = apply(guarded, changed(manifest, path, value), dry_run=True)

    assert f"ValidatingAdmissionPolicy '{FULL_NAME}-operator.{NAMESPACE}'" in error
    assert message in " ".join(error.split())
