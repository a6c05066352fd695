"""The chart's `nodeCache` on a real API server: objects, rights, and the operator's mounts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer, free_port
from cached_models import name_of, write_model
from helm import NAMESPACE, SECOND_RELEASE, Helm
from llamaservers import EXAMPLES, UID, only_server, raw_server
from operator_policy import (
    FULL_NAME,
    RELEASE,
    STRANGERS,
    TEAM,
    Json,
    apply,
    changed,
    children,
    send,
)
from operator_process import create, eventually, get, namespace_of, operator_kubeconfig
from slotkeeper.node_folder import LIMITS_FILE

PATH = "/var/lib/slotkeeper/models"
PROMPTS = "/var/lib/slotkeeper/prompts"
AGENT = f"system:serviceaccount:{NAMESPACE}:{FULL_NAME}-node-cache"
VOLUME = "spec.template.spec.volumes.0"
ONLY_ONE = "may have only one hostPath volume"


@pytest.fixture(scope="module")
def helm(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    create(api, *map(namespace_of, (NAMESPACE, TEAM, STRANGERS)))
    return Helm(api, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def cached(helm: Helm) -> Iterator[ApiServer]:
    """An API server with the node's cache allowed, and the operator's policy in effect."""
    values = {"nodeCache": {"enabled": True, "promptsPath": PROMPTS}}
    helm.install(RELEASE, *SECOND_RELEASE, values=values)
    wrong = changed(replicas(), f"{VOLUME}.hostPath.path", "/")
    eventually(lambda: ONLY_ONE in apply(helm.api, wrong, dry_run=True))
    yield helm.api
    helm.run("uninstall", RELEASE, "--namespace", NAMESPACE)


def replicas(**spec: Any) -> Json:
    server = raw_server(
        "chat", **{"model": {"url": "https://a.example/a.gguf", "cache": {"node": True}}, **spec}
    )
    return next(
        each
        for each in children(server)
        if each["metadata"]["name"] == "chat-replicas" and each["kind"] == "Deployment"
    )


def test_the_operator_may_mount_the_folder_of_the_namespace(cached: ApiServer) -> None:
    server = only_server(EXAMPLES / "node-cache.yaml")
    errors = [send(cached, "POST", each) for each in children(server)]

    assert [error for error in errors if error and "not found" not in error] == []


def prefetch_job() -> Json:
    model = {"url": "https://a.example/a.gguf", "cache": {"node": True}, "prefetch": True}
    found = children(raw_server("chat", model=model))
    return next(each for each in found if each["kind"] == "Job")


def test_a_prefetch_may_write_to_the_folder_of_its_namespace_only(cached: ApiServer) -> None:
    job = prefetch_job()
    assert job["spec"]["template"]["spec"]["volumes"][0]["hostPath"]["path"] == f"{PATH}/{TEAM}"

    assert ONLY_ONE not in send(cached, "POST", job)
    for path in (PATH, f"{PATH}/{STRANGERS}", "/"):
        wrong = changed(job, f"{VOLUME}.hostPath.path", path)
        assert ONLY_ONE in send(cached, "POST", wrong), path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{VOLUME}.hostPath.path", PATH),
        (f"{VOLUME}.hostPath.path", f"{PATH}/{STRANGERS}"),
        (f"{VOLUME}.hostPath.path", f"{PATH}/{TEAM}/deep"),
        (f"{VOLUME}.hostPath.path", f"{PATH}/./{STRANGERS}"),
        (f"{VOLUME}.hostPath.path", f"{PATH}//{STRANGERS}"),
        (f"{VOLUME}.hostPath.path", "/"),
        (f"{VOLUME}.hostPath.type", "DirectoryOrCreate"),
        ("spec.template.spec.containers.0.volumeMounts.0.readOnly", False),
    ],
)
def test_the_operator_may_mount_nothing_else_of_the_node(
    cached: ApiServer, path: str, value: object
) -> None:
    error = send(cached, "POST", changed(replicas(), path, value))

    assert ONLY_ONE in error


def test_a_user_may_not_mount_a_folder_of_the_node_by_a_llama_server(cached: ApiServer) -> None:
    volumes = [{"name": "own", "hostPath": {"path": f"{PATH}/{STRANGERS}"}}]

    assert ONLY_ONE in send(cached, "POST", replicas(podTemplate={"volumes": volumes}))


PROMPTS_VOLUME = "spec.template.spec.volumes.2"


def test_the_operator_may_mount_the_folder_of_a_server_for_its_prompts(cached: ApiServer) -> None:
    deployment = replicas(promptCache={"node": True})
    source = deployment["spec"]["template"]["spec"]["volumes"][2]["hostPath"]
    assert source["path"] == f"{PROMPTS}/{TEAM}/{UID}"
    assert ONLY_ONE not in send(cached, "POST", deployment)

    for path in (f"{PROMPTS}/{TEAM}", f"{PROMPTS}/{TEAM}/0000-1", f"{PROMPTS}/{STRANGERS}/{UID}"):
        wrong = changed(deployment, f"{PROMPTS_VOLUME}.hostPath.path", path)
        assert ONLY_ONE in send(cached, "POST", wrong), path
    wrong = changed(deployment, f"{PROMPTS_VOLUME}.hostPath.type", "DirectoryOrCreate")
    assert ONLY_ONE in send(cached, "POST", wrong)


def test_without_the_value_no_prompts_are_on_nodes(helm: Helm) -> None:
    manifests = helm.rendered({"nodeCache": {"enabled": True}})

    assert "prompts-path" not in manifests
    assert "volume.name == 'prompt-files'" not in manifests
    rights = [each for each in manifests.split("---") if "kind: ClusterRole\n" in each]
    agent = next(each for each in rights if "node-cache" in each)
    assert "llamaservers" not in agent


@pytest.mark.parametrize("path", [PATH, f"{PATH}/prompts", "/var/lib/slotkeeper"])
def test_models_and_prompts_have_separate_folders(helm: Helm, path: str) -> None:
    with pytest.raises(AssertionError, match="must not be in nodeCache"):
        helm.rendered({"nodeCache": {"enabled": True, "promptsPath": path}})


def test_the_agent_may_only_list_pods_and_servers_and_watch_pods(cached: ApiServer) -> None:
    def may(verb: str, resource: str) -> bool:
        answer = cached.kubectl("auth", "can-i", verb, resource, f"--as={AGENT}", "-A")
        return answer.stdout.strip() == "yes"

    assert may("list", "pods")
    assert may("watch", "pods")
    assert may("list", "llamaservers.slotkeeper.dev")
    for verb, resource in (
        ("get", "secrets"),
        ("get", "pods"),
        ("delete", "pods"),
        ("create", "pods/exec"),
        ("list", "nodes"),
        ("get", "llamaservers.slotkeeper.dev"),
        ("watch", "llamaservers.slotkeeper.dev"),
    ):
        assert not may(verb, resource), (verb, resource)


def bound(name: str, namespace: str, model: str, node: str = "node-1") -> Json:
    """A pod on a node that uses a model in the folder of its namespace."""
    volume = {"name": "models", "hostPath": {"path": f"{PATH}/{namespace}"}}
    arguments = ["--model", f"/models/{name_of(model)}.gguf"]
    container = {"name": "llama-server", "image": "registry.example.com/a:1", "args": arguments}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [container], "volumes": [volume]},
    }


def test_the_agent_creates_folders_and_removes_what_no_pod_of_its_node_uses(
    cached: ApiServer, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    root.mkdir()
    prompts = tmp_path / "prompts"
    of_deleted_server = prompts / TEAM / "0000-1"
    of_deleted_server.mkdir(parents=True)
    kubeconfig = operator_kubeconfig(cached, tmp_path, f"{FULL_NAME}-node-cache", NAMESPACE)
    create(cached, bound("first", TEAM, "used"), bound("elsewhere", TEAM, "unused", "node-2"))
    agent = subprocess.Popen(
        [
            *(sys.executable, "-m", "slotkeeper", "node-cache", "--path", PATH),
            *("--folder", root, "--size-limit", "1", "--min-free-percent", "0"),
            *("--node", "node-1", "--interval", "1", "--metrics", f"127.0.0.1:{free_port()}"),
            *("--prompts-path", PROMPTS, "--prompts-folder", prompts),
        ],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually((root / TEAM / LIMITS_FILE).exists)
        eventually(lambda: not of_deleted_server.exists())
        # By its watch.
        create(cached, bound("second", STRANGERS, "used"))
        eventually((root / STRANGERS / LIMITS_FILE).exists)
        used = [write_model(root / each, "used")[0] for each in (TEAM, STRANGERS)]
        unused = write_model(root / TEAM, "unused")
        eventually(lambda: not any(file.exists() for file in unused))
        assert all(file.exists() for file in used)

        cached.kubectl("delete", "pod", "second", "-n", STRANGERS, "--force", "--grace-period=0")
        write_model(root / TEAM, "next")
        eventually(lambda: not used[1].exists())
        assert used[0].exists()
    finally:
        agent.terminate()
        _, log = agent.communicate(timeout=20)
    assert agent.returncode == 0
    assert f"removed {TEAM}/{name_of('unused')}" in log
    assert "exceed the limits, and are of files in use" in log


def test_with_listed_namespaces_the_agent_has_no_rights_elsewhere(helm: Helm) -> None:
    manifests = helm.rendered({"nodeCache": {"enabled": True}, "watchNamespaces": [TEAM]})

    assert manifests.count("kind: ClusterRoleBinding") == 0
    assert f"- --namespace={TEAM}" in manifests.partition("kind: DaemonSet")[2].partition("---")[0]


def test_the_agents_pods_have_no_privileges(cached: ApiServer) -> None:
    daemon_set = get(cached, "daemonset", f"{FULL_NAME}-node-cache", f"--namespace={NAMESPACE}")
    pod = daemon_set["spec"]["template"]["spec"]
    [agent] = pod["containers"]

    for prepare, folder in zip(pod["initContainers"], ("/cache", "/prompts"), strict=True):
        assert prepare["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
        [mount] = prepare["volumeMounts"]
        assert mount["mountPath"] == folder
        assert f"--folder={folder}" in prepare["args"]
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert agent["securityContext"]["runAsUser"] == 65532
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {*pod}
    selected = get(cached, "service", FULL_NAME, f"--namespace={NAMESPACE}")["spec"]["selector"]
    labels = daemon_set["spec"]["template"]["metadata"]["labels"]
    assert not selected.items() <= labels.items()


@pytest.mark.parametrize(
    ("value", "invalid"),
    [
        ("path", "relative"),
        ("path", "/"),
        ("path", "/a/../b"),
        ("path", "/a/"),
        ("path", "/a'b"),
        ("promptsPath", "relative"),
        ("promptsPath", "/a/../b"),
        ("sizeLimit", "many"),
        ("sizeLimit", "100m"),
        ("minFreePercent", 91),
    ],
)
def test_an_invalid_value_is_rejected(helm: Helm, value: str, invalid: object) -> None:
    with pytest.raises(AssertionError, match="nodeCache"):
        helm.rendered({"nodeCache": {"enabled": True, value: invalid}})


def test_the_operator_gets_the_path_only_with_the_cache(helm: Helm) -> None:
    flag = f"- --node-cache-path={PATH}"

    assert flag in helm.rendered({"nodeCache": {"enabled": True}})
    assert "node-cache-path" not in helm.rendered({})
    assert "DaemonSet" not in helm.rendered({}).replace("Slotkeeper's DaemonSet", "")
