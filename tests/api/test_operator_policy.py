"""The chart's `operatorPolicy`, on a real API server: what the operator's token may write."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from helm import NAMESPACE, SECOND_RELEASE, Helm
from llamaservers import EXAMPLES, GOLDEN, only_server, raw_server, servers_in
from operator_policy import (
    FULL_NAME,
    OPERATOR,
    RELEASE,
    STRANGERS,
    TEAM,
    Json,
    apply,
    changed,
    child,
    children,
    guarded_server,
    send,
    service,
)
from operator_process import (
    create,
    eventually,
    get,
    namespace_of,
    operator_kubeconfig,
    operator_process,
)
from slotkeeper.api.group import GROUP

CASES = sorted([*EXAMPLES.glob("*.yaml"), *GOLDEN.glob("*/server.yaml")])


@pytest.fixture(scope="module")
def helm(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    create(api, *map(namespace_of, (NAMESPACE, TEAM, STRANGERS)))
    return Helm(api, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def guarded(helm: Helm) -> Iterator[ApiServer]:
    with guarded_server(helm) as api:
        yield api


def pod(**labels: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": STRANGERS, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "registry.example.com/c:1"}]},
    }


def prompt_cleanup() -> Json:
    """The Job that removes a folder of prompts."""
    found = children(raw_server(promptCache={"claimName": "prompts"}))
    return next(each for each in found if each["kind"] == "Job")


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.relative_to(case.parents[1])))
def test_the_operator_may_create_all_children(guarded: ApiServer, case: Path) -> None:
    servers = servers_in(case)
    for server in servers:
        server["metadata"].pop("namespace", None)

    errors = [send(guarded, "POST", child) for server in servers for child in children(server)]

    # The API server looks the Role up, which a dry run has not created.
    assert [error for error in errors if error and "not found" not in error] == []


def test_the_operator_may_change_and_delete_all_children(guarded: ApiServer) -> None:
    written = children(only_server(EXAMPLES / "rpc-group.yaml"))

    assert apply(guarded, *written) == ""
    assert apply(guarded, *written) == ""

    deleted = guarded.kubectl(
        "delete", f"--as={OPERATOR}", "--filename=-", stdin=yaml.safe_dump_all(written)
    )
    assert deleted.stderr == ""


@pytest.mark.parametrize(
    ("manifest", "path", "value", "message"),
    [
        (
            child("Deployment", "replicas"),
            "metadata.labels",
            {"app": "a"},
            "may only write objects with the label",
        ),
        (
            child("Deployment", "replicas"),
            "metadata.ownerReferences",
            [],
            "may only write objects with the label",
        ),
        (
            child("Deployment", "replicas"),
            "spec.template.spec.serviceAccountName",
            "cluster-admin",
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            child("Deployment", "balancer"),
            "spec.template.spec.serviceAccountName",
            "default",
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            child("Deployment", "balancer"),
            "metadata.name",
            "aws-load-balancer",
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            child("Deployment", "balancer"),
            "spec.template.spec.containers.0.image",
            "registry.example.com/shell",
            "the image slotkeeper/balancer:0.1.0",
        ),
        (
            child("Deployment", "balancer"),
            "spec.template.spec.containers.0.command",
            ["sh", "-c", "cat /var/run/secrets/kubernetes.io/serviceaccount/token"],
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            child("Deployment", "balancer"),
            "spec.template.spec.containers.0.lifecycle",
            {"postStart": {"exec": {"command": ["sh"]}}},
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            child("Deployment", "balancer"),
            "spec.template.spec.volumes",
            [{"name": "code", "configMap": {"name": "code"}}],
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            changed(
                child("Deployment", "balancer"),
                "spec.template.spec.volumes",
                [{"name": "prime", "configMap": {"name": "code", "defaultMode": 0o555}}],
            ),
            "spec.template.spec.containers.0.volumeMounts",
            [{"name": "prime", "mountPath": "/usr/local/bin"}],
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            changed(
                child("Deployment", "balancer"),
                "spec.template.spec.volumes",
                [{"name": "code", "secret": {"secretName": "code", "defaultMode": 0o555}}],
            ),
            "spec.template.spec.containers.0.volumeMounts",
            [{"name": "code", "mountPath": "/usr/local/bin"}],
            "only balancers and gateways may have a ServiceAccount",
        ),
        (
            child("Deployment", "replicas"),
            "spec.template.spec.containers.0.ports.0.hostPort",
            8080,
            "must not have privileges",
        ),
        (
            child("Deployment", "replicas"),
            "spec.template.spec.automountServiceAccountToken",
            True,
            "must have automountServiceAccountToken=false",
        ),
        (
            child("Deployment", "replicas"),
            "spec.template.spec.hostNetwork",
            True,
            "must not have privileges",
        ),
        (
            child("Deployment", "replicas"),
            "spec.template.spec.containers.0.securityContext.allowPrivilegeEscalation",
            True,
            "must not have privileges",
        ),
        (
            child("Deployment", "replicas"),
            "spec.template.spec.containers.0.securityContext.capabilities",
            {"add": ["SYS_ADMIN"]},
            "must not have privileges",
        ),
        (
            child("Deployment", "replicas"),
            "spec.template.spec.initContainers.0.securityContext",
            {},
            "must not have privileges",
        ),
        (
            child("Job"),
            "spec.template.spec.hostNetwork",
            True,
            "must not have privileges",
        ),
        (
            child("Job"),
            "metadata.ownerReferences",
            [],
            "may only write objects with the label",
        ),
        (
            child("Job"),
            "spec.template.spec.containers.0.image",
            "registry.example.com/miner",
            "must run only `slotkeeper download` with the image slotkeeper/download:0.1.0",
        ),
        (
            child("Job"),
            "spec.template.spec.containers.0.command",
            ["sh"],
            "must run only `slotkeeper download`",
        ),
        (
            prompt_cleanup(),
            "spec.template.spec.containers.0.command",
            ["rm", "-rf", "--", "/prompt-files"],
            "or remove the folder of their label slotkeeper.dev/prompt-folder",
        ),
        (
            prompt_cleanup(),
            "metadata.labels.slotkeeper\\.dev/prompt-folder",
            "everything",
            "may only write objects with the label",
        ),
        (
            prompt_cleanup(),
            "spec.template.spec.containers.0.image",
            "registry.example.com/miner",
            "with the image slotkeeper/download:0.1.0",
        ),
        (
            prompt_cleanup(),
            "spec.template.spec.volumes",
            [{"name": "prompt-files", "secret": {"secretName": "keys"}}],
            "or remove the folder of their label slotkeeper.dev/prompt-folder",
        ),
        (
            prompt_cleanup(),
            "spec.template.spec.serviceAccountName",
            "cluster-admin",
            "or remove the folder of their label slotkeeper.dev/prompt-folder",
        ),
        (
            child("Service"),
            "spec.externalIPs",
            ["192.0.2.1"],
            "must have the type ClusterIP, no externalIPs",
        ),
        (child("Service"), "spec.selector", {"app": "a"}, "select pods of their own LlamaServer"),
        (
            child("NetworkPolicy"),
            "spec.podSelector",
            {},
            "NetworkPolicies of Slotkeeper's operator must select pods",
        ),
        (
            child("PodDisruptionBudget"),
            "spec.selector",
            {"matchLabels": {"app": "a"}},
            "PodDisruptionBudgets of Slotkeeper's operator must select pods",
        ),
        (
            child("Lease"),
            "spec",
            {"holderIdentity": "thief"},
            "may not change the spec of a balancer's Lease",
        ),
        (child("ServiceAccount"), "metadata.name", "other", "must have the name SERVER-balancer"),
        (
            child("Role"),
            "rules",
            [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}],
            "may only allow to read EndpointSlices",
        ),
        (
            child("RoleBinding"),
            "subjects",
            [{"kind": "ServiceAccount", "name": "thief", "namespace": TEAM}],
            "may only bind the Role of their own name",
        ),
        (child("Service"), "spec.type", "LoadBalancer", "must have the type ClusterIP"),
        (
            child("Role"),
            "rules",
            [{"apiGroups": [GROUP], "resources": ["llamaservers"], "verbs": ["get"]}],
            "may only allow to read EndpointSlices",
        ),
    ],
)
def test_the_operators_token_writes_no_other_object(
    guarded: ApiServer, manifest: Json, path: str, value: Any, message: str
) -> None:
    # The API server looks the Role up first.
    assert apply(guarded, child("Role")) == ""

    error = apply(guarded, changed(manifest, path, value), dry_run=True)

    assert f"ValidatingAdmissionPolicy '{FULL_NAME}-operator.{NAMESPACE}'" in error
    assert message in " ".join(error.split())


def test_a_job_that_removes_prompts_is_resumed_without_an_owner(guarded: ApiServer) -> None:
    job = prompt_cleanup()
    older = changed(job, "spec.template.spec.containers.0.image", "slotkeeper/download:0.0.9")
    create(guarded, older)

    assert apply(guarded, changed(older, "spec.suspend", value=False)) == ""
    assert (
        guarded.kubectl(
            *("delete", "job", job["metadata"]["name"]), f"--as={OPERATOR}", f"--namespace={TEAM}"
        ).stderr
        == ""
    )


def test_the_operators_token_changes_and_deletes_no_foreign_object(guarded: ApiServer) -> None:
    foreign = service("foreign")
    foreign["metadata"]["labels"] = {"slotkeeper.dev/server": "chat"}
    create(guarded, foreign, lease("node-a"))
    taken_over = child("Service")
    taken_over["metadata"] |= {"name": "foreign", "namespace": STRANGERS}

    def refused(*arguments: str) -> str:
        return guarded.kubectl(*arguments, f"--as={OPERATOR}", f"--namespace={STRANGERS}").stderr

    assert "may only change and delete objects" in apply(guarded, taken_over)
    assert "may only change and delete objects" in refused("delete", "service", "foreign")
    patch = ("--type=merge", '--patch={"spec": {"holderIdentity": "thief"}}')
    assert "may only write objects" in refused("patch", "lease", "node-a", *patch)


def lease(name: str) -> Json:
    metadata = {"name": name, "namespace": STRANGERS}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}


def test_the_operators_token_changes_no_image_of_a_running_pod(guarded: ApiServer) -> None:
    image = {"spec": {"containers": [{"name": "c", "image": "registry.example.com/evil"}]}}
    cost = {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "3"}}

    def patch(**fields: Any) -> str:
        return send(guarded, "PATCH", merged(pod(), fields))

    create(guarded, pod(app="api"))
    foreign = [patch(**image), patch(metadata=cost)]
    create(guarded, pod(**{"slotkeeper.dev/server": "chat"}))
    own = [patch(**image), patch(metadata={"labels": {"app": "api"}})]

    for error in (*foreign, *own):
        assert "may only change annotations of pods" in error
    assert patch(metadata=cost) == ""


def merged(manifest: Json, fields: Json) -> Json:
    """A patch of the object with these fields."""
    identity = {key: manifest["metadata"][key] for key in ("name", "namespace")}
    metadata = {**identity, **fields.get("metadata", {})}
    head = {key: manifest[key] for key in ("apiVersion", "kind")}
    return {**head, **fields, "metadata": metadata}


def test_other_users_are_not_affected(guarded: ApiServer) -> None:
    create(guarded, service("of-a-user"))

    assert get(guarded, "service", "of-a-user", f"--namespace={STRANGERS}")


def test_the_operator_works_under_its_policy_and_roles_of_listed_namespaces(
    helm: Helm, guarded: ApiServer, tmp_path: Path
) -> None:
    gone = "guarded-gone"
    create(guarded, namespace_of(gone))
    helm.install(RELEASE, *SECOND_RELEASE, values={"watchNamespaces": [TEAM, gone, NAMESPACE]})
    assert guarded.kubectl("delete", "rolebinding", FULL_NAME, "-n", gone).returncode == 0
    deployment = get(guarded, "deployment", FULL_NAME, f"--namespace={NAMESPACE}")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    arguments = [
        each for each in container["args"] if not each.startswith(("--health", "--metrics"))
    ]
    kubeconfig = operator_kubeconfig(guarded, tmp_path, FULL_NAME, NAMESPACE)
    for namespace in (TEAM, STRANGERS):
        server = raw_server("watched", gpu={"count": 0})
        create(guarded, changed(server, "metadata.namespace", namespace))

    def status(namespace: str) -> Any:
        return get(guarded, "llama", "watched", f"--namespace={namespace}").get("status")

    with operator_process(kubeconfig, tmp_path / "log", *arguments) as operator:
        eventually(lambda: "balancers" in str(status(TEAM)), 30)
        eventually(lambda: f"/namespaces/{gone}/llamaservers" in operator.log_text())
        # While it is running, too.
        create(guarded, changed(raw_server("later"), "metadata.namespace", TEAM))
        eventually(lambda: get(guarded, "deployment", "later-balancer", f"--namespace={TEAM}"))
        assert operator.process.poll() is None

    assert f"--lease-namespace={NAMESPACE}" in arguments
    assert "ApplyRejected" not in str(status(TEAM))
    assert status(STRANGERS) is None
    assert not get(guarded, "clusterrole", FULL_NAME)
    allowed = guarded.kubectl(
        *("auth", "can-i", "patch", "deployments", f"--as={OPERATOR}", f"--namespace={STRANGERS}")
    )
    assert allowed.stdout.strip() == "no"
    guarded.kubectl("delete", "llama", "--all", f"--namespace={TEAM}")
    helm.install(RELEASE, *SECOND_RELEASE)
