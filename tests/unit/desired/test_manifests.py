import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaservers import IMAGES, UID, server
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired.manifests import manifests
from slotkeeper.desired.metadata import Manifest

Child = tuple[str, str]


def children(of: LlamaServer, replicas: int = 1) -> dict[Child, Manifest]:
    """Manifests by kind and name."""
    return {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for manifest in manifests(of, replicas, IMAGES)
    }


def llama_servers(of: LlamaServer, replicas: int = 1) -> Any:
    """The Deployment of the llama-servers."""
    return children(of, replicas)["Deployment", f"{of.name}-replicas"]


def balancer(of: LlamaServer) -> Any:
    """The Deployment of the balancer."""
    return children(of)["Deployment", f"{of.name}-balancer"]


def container(of: LlamaServer) -> Any:
    """The container llama-server."""
    (llama_server,) = llama_servers(of)["spec"]["template"]["spec"]["containers"]
    return llama_server


def node_terms(of: LlamaServer) -> Any:
    """The node selector terms of a replica's pod."""
    affinity = llama_servers(of)["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    return affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


def argument(of: LlamaServer, flag: str) -> str:
    """The value of a flag of llama-server."""
    arguments = container(of)["args"]
    value: str = arguments[arguments.index(flag) + 1]
    return value


def test_a_server_has_these_children() -> None:
    assert list(children(server("chat"))) == [
        ("ServiceAccount", "chat-balancer"),
        ("Role", "chat-balancer"),
        ("RoleBinding", "chat-balancer"),
        ("Lease", "chat-balancer"),
        ("Service", "chat"),
        ("Service", "chat-replicas"),
        ("NetworkPolicy", "chat-replicas"),
        ("PodDisruptionBudget", "chat-replicas"),
        ("PodDisruptionBudget", "chat-balancer"),
        ("Deployment", "chat-balancer"),
        ("Deployment", "chat-replicas"),
    ]


def test_each_child_is_owned_by_its_server() -> None:
    for manifest in manifests(server("chat"), 1, IMAGES):
        assert manifest["metadata"]["namespace"] == "default"
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "slotkeeper.dev/v1alpha1",
            "kind": "LlamaServer",
            "name": "chat",
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }


specs = st.fixed_dictionaries(
    {},
    optional={
        "slots": st.integers(1, 256),
        "contextPerSlot": st.integers(256, 8192),
        "gpu": st.fixed_dictionaries(
            {}, optional={"count": st.integers(0, 8), "computeArch": st.just("sm_80")}
        ),
        "resources": st.sampled_from([{}, {"limits": {"memory": "4Gi", "cpu": "1500m"}}]),
        "image": st.just("example.com/llama-server:1"),
        "kvCacheType": st.sampled_from(["f16", "q8_0"]),
        "chatTemplate": st.just("chatml"),
        "reasoning": st.just({"budgetTokens": 0}),
        "embeddings": st.sampled_from([{}, {"pooling": "rank"}]),
        "extraArgs": st.just(["--mirostat", "2"]),
    },
)
scalings = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 9),
        "autoscaling": st.integers(1, 9).map(lambda maximum: {"maxReplicas": maximum}),
    },
)


@given(specs, scalings, st.integers(0, 9), st.integers(0, 9))
def test_scaling_alone_restarts_no_pod(
    spec: dict[str, Any], scaling: dict[str, Any], one: int, other: int
) -> None:
    before = children(server(**spec), one)
    after = children(server(**spec, **scaling), other)

    before["Deployment", "chat-replicas"]["spec"]["replicas"] = other
    assert before == after


@given(specs, specs)
def test_no_change_of_the_replicas_but_of_their_memory_restarts_the_balancer(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    spec = {"prefixAffinity": {"cachedPrompts": 8}}
    one["resources"] = other["resources"] = {"limits": {"memory": "4Gi"}}
    assert balancer(server(**one, balancer=spec)) == balancer(server(**other, balancer=spec))


@given(specs)
def test_each_call_returns_equal_trees_and_shares_none(spec: dict[str, Any]) -> None:
    fuzzed = server(**spec)
    first = manifests(fuzzed, 1, IMAGES)
    expected = copy.deepcopy(first)

    for manifest in first:
        clear(manifest)

    assert manifests(fuzzed, 1, IMAGES) == expected


def clear(tree: Any) -> None:
    """Empty a tree and all trees in it."""
    for part in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(part, dict | list):
            clear(part)
    tree.clear()


def test_selectors_contain_only_immutable_labels() -> None:
    for (kind, _), manifest in children(server("chat")).items():
        if kind == "Deployment":
            selector = manifest["spec"]["selector"]["matchLabels"]
        elif kind == "Service":
            selector = manifest["spec"]["selector"]
        else:
            continue
        assert set(selector) == {"slotkeeper.dev/server", "slotkeeper.dev/component"}


def test_the_deployment_has_the_desired_number_of_replicas() -> None:
    assert llama_servers(server(replicas=1), 5)["spec"]["replicas"] == 5


def test_a_rollout_needs_no_spare_gpu() -> None:
    strategy = llama_servers(server(gpu={"count": 1}))["spec"]["strategy"]

    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_rollout_on_the_cpu_never_serves_with_fewer() -> None:
    strategy = llama_servers(server(gpu={"count": 0}))["spec"]["strategy"]

    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_gpus_are_added_to_requests_and_limits() -> None:
    resources = container(
        server(
            gpu={"count": 2, "resourceName": "amd.com/gpu"},
            resources={"requests": {"cpu": 2}, "limits": {"memory": "8Gi"}},
        )
    )["resources"]

    assert resources == {
        "requests": {"cpu": "2", "amd.com/gpu": "2"},
        "limits": {"memory": "8Gi", "amd.com/gpu": "2"},
    }


def test_a_cpu_server_requests_no_gpu() -> None:
    cpu = server(gpu={"count": 0})

    assert container(cpu)["resources"] == {}
    assert argument(cpu, "--n-gpu-layers") == "0"


def test_a_gpu_server_puts_all_layers_on_its_gpus() -> None:
    assert argument(server(), "--n-gpu-layers") == "999"


def test_a_compute_arch_selects_nodes() -> None:
    (term,) = node_terms(server(gpu={"computeArch": "sm_120"}))

    assert term["matchExpressions"] == [
        {"key": "nvidia.com/gpu.compute.major", "operator": "In", "values": ["12"]},
        {"key": "nvidia.com/gpu.compute.minor", "operator": "In", "values": ["0"]},
    ]


@pytest.mark.parametrize(
    ("gpu", "label", "above"),
    [
        pytest.param({"minMemory": "15Gi"}, "nvidia.com/gpu.memory", "15359", id="matches a T4"),
        pytest.param(
            {"minMemory": "16G"}, "nvidia.com/gpu.memory", "15258", id="rounded up to MiB"
        ),
        pytest.param(
            {"minMemory": "20000Mi", "resourceName": "nvidia.com/mig-3g.20gb"},
            "nvidia.com/mig-3g.20gb.memory",
            "19999",
            id="of a MIG slice",
        ),
    ],
)
def test_the_minimum_gpu_memory_selects_nodes(gpu: dict[str, Any], label: str, above: str) -> None:
    (term,) = node_terms(server(gpu=gpu))

    assert term["matchExpressions"] == [{"key": label, "operator": "Gt", "values": [above]}]


def test_a_node_must_have_both_the_compute_arch_and_the_memory() -> None:
    (term,) = node_terms(server(gpu={"computeArch": 8.9, "minMemory": "20Gi"}))

    assert [each["key"].rpartition(".")[2] for each in term["matchExpressions"]] == [
        "major",
        "minor",
        "memory",
    ]


def test_without_gpu_requirements_any_node_matches() -> None:
    assert "affinity" not in llama_servers(server())["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("resources", "mib"),
    [
        pytest.param({}, 512, id="default without resources"),
        pytest.param({"limits": {"memory": "1Gi"}}, 256, id="a quarter of the limit"),
        pytest.param({"limits": {"memory": "64Gi"}}, 2048, id="at most 2 GiB"),
        pytest.param({"requests": {"memory": "4G"}}, 953, id="a quarter of the request"),
        pytest.param(
            {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            512,
            id="the limit takes precedence",
        ),
        pytest.param({"limits": {"memory": "1Mi"}}, 0, id="0 for a tiny limit"),
    ],
)
def test_the_prompt_cache_follows_the_memory(resources: dict[str, Any], mib: int) -> None:
    assert argument(server(resources=resources), "--cache-ram") == str(mib)


@pytest.mark.parametrize(("cpu", "threads"), [("1500m", "2"), (4, "4"), ("100m", "1"), (0, "1")])
def test_threads_follow_the_cpu_limit(cpu: int | str, threads: str) -> None:
    assert argument(server(resources={"limits": {"cpu": cpu}}), "--threads") == threads


def test_without_a_cpu_limit_no_threads_are_set() -> None:
    assert "--threads" not in container(server(resources={"requests": {"cpu": 2}}))["args"]


def test_a_checksum_is_passed_in_lower_case() -> None:
    model = {"url": "http://models.example.com/a.gguf", "sha256": "AB" * 32}
    pod = llama_servers(server(model=model))["spec"]["template"]["spec"]

    assert pod["initContainers"][0]["command"] == [
        *("slotkeeper", "download", "--progress-port", "9091", "--address-guard", "default"),
        *("--max-file-bytes", str(100 * 1024**3)),
        *("--model", "http://models.example.com/a.gguf"),
        *("--sha256", "ab" * 32, "--to", "/models/model.gguf"),
    ]


def test_spec_image_replaces_only_the_image_of_llama_server() -> None:
    custom = server(image="example.com/llama-server:1")
    pod = llama_servers(custom)["spec"]["template"]["spec"]

    assert container(custom)["image"] == "example.com/llama-server:1"
    assert pod["initContainers"][0]["image"] == IMAGES.download
    assert container(server(gpu={"count": 0}))["image"] == IMAGES.llama_server


def test_all_images_have_the_operators_pull_policy() -> None:
    for manifest in manifests(server(), 1, replace(IMAGES, pull_policy="Never")):
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            for each in (*pod.get("initContainers", []), *pod["containers"]):
                assert each["imagePullPolicy"] == "Never"


def test_replicas_have_no_service_account_token() -> None:
    pod = llama_servers(server())["spec"]["template"]["spec"]

    assert pod["automountServiceAccountToken"] is False


def test_the_balancer_may_only_read_endpoint_slices_and_its_role_and_hold_its_lease() -> None:
    assert children(server("chat"))["Role", "chat-balancer"]["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["chat-balancer"],
            "verbs": ["get", "list", "watch", "patch"],
        },
        {
            "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["roles"],
            "resourceNames": ["chat-balancer"],
            "verbs": ["get", "list", "watch"],
        },
    ]


def test_clients_reach_the_balancer_and_the_balancer_the_replicas() -> None:
    chat = children(server("chat"))
    clients, replicas = chat["Service", "chat"], chat["Service", "chat-replicas"]
    pods = {
        kind: chat["Deployment", f"chat-{kind}"]["spec"]["template"]["metadata"]["labels"]
        for kind in ("balancer", "replicas")
    }

    assert clients["spec"]["selector"].items() <= pods["balancer"].items()
    assert replicas["spec"]["selector"].items() <= pods["replicas"].items()
    assert not clients["spec"]["selector"].items() <= pods["replicas"].items()


def test_other_scalers_reach_the_balancers_metrics_by_the_servers_name() -> None:
    chat = children(server("chat"))
    [container] = chat["Deployment", "chat-balancer"]["spec"]["template"]["spec"]["containers"]
    container_ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    ports = {port["port"]: port["targetPort"] for port in chat["Service", "chat"]["spec"]["ports"]}

    assert {port: container_ports[target] for port, target in ports.items()} == {
        80: 8080,
        9090: 9090,
    }


def test_a_servers_selectors_select_no_pod_of_another() -> None:
    one, other = server("chat"), server("chat-2")
    labels = llama_servers(other)["spec"]["template"]["metadata"]["labels"]

    assert not llama_servers(one)["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_claims_replace_the_extended_resource() -> None:
    shared = {"name": "gpu", "resourceClaimName": "shared", "request": "one"}
    spec: dict[str, Any] = {
        "gpu": {"resourceClaims": [shared]},
        "resources": {"limits": {"memory": "8Gi"}},
    }

    pod = llama_servers(server(**spec))["spec"]["template"]["spec"]

    assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimName": "shared"}]
    assert container(server(**spec))["resources"] == {
        "limits": {"memory": "8Gi"},
        "claims": [{"name": "gpu", "request": "one"}],
    }
    assert "resourceClaims" not in llama_servers(server())["spec"]["template"]["spec"]
