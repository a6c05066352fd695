"""The chart's `llamaServerPolicy`, on a real API server: limits for LlamaServers."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from helm import NAMESPACE, SECOND_RELEASE, Helm
from llamaservers import raw_server
from operator_process import create, eventually, namespace_of

TEAM, EXEMPT = "limited-team", "exempt-team"
LIMITS = {
    "allowedImages": ["ghcr.io/ggml-org", "registry.example.com/llama", "registry.example.org"],
    "allowedModelHosts": ["huggingface.co", "*.models.example.com"],
    "allowedVolumes": ["configMap", "persistentVolumeClaim"],
    "allowedEnvSources": ["configMapKeyRef"],
    "allowedPodLabels": ["team"],
}
URL = "https://huggingface.co/a/b.gguf"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def helm(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    create(api, *map(namespace_of, (NAMESPACE, TEAM, EXEMPT)))
    return Helm(api, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def limited(helm: Helm) -> Iterator[ApiServer]:
    """An API server with limits for LlamaServers in effect, except in the namespace EXEMPT."""
    exempt = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [EXEMPT]}
    create(helm.api, llama("old", image="evil"))
    helm.install(
        "limited",
        *SECOND_RELEASE,
        values={
            "operatorPolicy": {"enabled": False},
            "llamaServerPolicy": {**LIMITS, "namespaceSelector": {"matchExpressions": [exempt]}},
        },
    )
    eventually(lambda: "allows only" in post(helm.api, llama(image="evil")))
    yield helm.api
    helm.run("uninstall", "limited", "--namespace", NAMESPACE)
    # The API server applies a deleted policy for a moment more, also to the next file's servers.
    eventually(lambda: not post(helm.api, llama(image="evil")))
    helm.api.kubectl("delete", "llama", "old", f"--namespace={TEAM}")


def llama(name: str = "new", namespace: str = TEAM, **spec: Any) -> Json:
    server = raw_server(name, **{"model": {"url": URL}, **spec})
    return {**server, "metadata": {"name": name, "namespace": namespace}}


def template(**fields: Any) -> Json:
    return {"podTemplate": fields}


def volume(**source: Any) -> Json:
    return template(volumes=[{"name": "v", **source}])


def post(api: ApiServer, server: Json) -> str:
    """Create a LlamaServer without storing it; return the error, "" without one."""
    namespace = server["metadata"]["namespace"]
    path = f"/apis/slotkeeper.dev/v1alpha1/namespaces/{namespace}/llamaservers"
    response = api.post(path, server, dry_run=True)
    return "" if response.is_success else str(response.json()["message"])


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"image": "ghcr.io/ggml-org/llama.cpp:server"},
        {"image": "registry.example.com/llama@sha256:" + "0" * 64},
        {"model": {"url": "http://eu.models.example.com:8080/a.gguf"}},
        {"model": {"url": "https://HuggingFace.co/a.gguf"}},
        {"image": "registry.example.org/llama:server"},
        {"model": {"url": URL, "download": {"httpsProxy": "http://proxy.models.example.com:3128"}}},
        {"model": {"url": "pvc://models/a.gguf", "mmproj": {"url": "image:///a.gguf"}}},
        {"model": {"url": "hf://org/repo:Q4_K_M"}},
        {"speculative": {"type": "ngram-mod"}},
        {"speculative": {"draft": {"url": "https://eu.models.example.com/draft.gguf"}}},
        {"model": {"url": "oci://eu.models.example.com:5000/models/gemma:4b"}},
        {
            "model": {
                "url": "s3://models/b",
                "s3": {"endpoint": "https://s3.models.example.com:9000"},
            }
        },
        {
            "model": {
                "url": "hf://org/repo/a.gguf",
                "download": {"hubEndpoint": "https://hub.models.example.com"},
            }
        },
        volume(configMap={"name": "c"}),
        volume(persistentVolumeClaim={"claimName": "c"}),
        template(env=[{"name": "A", "value": "b"}]),
        template(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
        template(labels={"team": "a"}),
    ],
    ids=str,
)
def test_what_an_administrator_allows_is_accepted(limited: ApiServer, spec: Json) -> None:
    assert post(limited, llama(**spec)) == ""


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ({"image": "docker.io/ggml-org/llama.cpp"}, "spec.image", "allowedImages"),
        ({"image": "ghcr.io/ggml-org-evil/llama.cpp"}, "spec.image", "allowedImages"),
        ({"image": "registry.example.org:5000/evil/llama"}, "spec.image", "allowedImages"),
        ({"model": {"url": "https://example.com/a.gguf"}}, "spec.model", "allowedModelHosts"),
        (
            {"model": {"url": "https://huggingface.co.example.com/a.gguf"}},
            "spec.model",
            "allowedModelHosts",
        ),
        ({"model": {"url": "https://models.example.com/a"}}, "spec.model", "allowedModelHosts"),
        (
            {"model": {"url": "https://evil.example\\.models.example.com/a"}},
            "spec.model",
            "allowedModelHosts",
        ),
        (
            {"model": {"url": URL, "mmproj": {"url": "http://10.0.0.1/a.gguf"}}},
            "spec.model",
            "allowedModelHosts",
        ),
        (
            {"model": {"url": URL, "adapters": [{"url": "http://169.254.169.254/a"}]}},
            "spec.model",
            "allowedModelHosts",
        ),
        (
            {"speculative": {"draft": {"url": "http://169.254.169.254/a"}}},
            "spec.speculative",
            "allowedModelHosts",
        ),
        (
            {"model": {"url": URL, "download": {"httpsProxy": "http://10.0.0.1:3128"}}},
            "spec.model",
            "allowedModelHosts",
        ),
        (
            {"model": {"url": URL, "download": {"httpProxy": "http://10.0.0.1:3128"}}},
            "spec.model",
            "allowedModelHosts",
        ),
        (
            {
                "model": {
                    "url": "hf://huggingface.co/a/a.gguf",
                    "download": {"hubEndpoint": "https://hub.example.com"},
                }
            },
            "spec.model",
            "allowedModelHosts",
        ),
        ({"model": {"url": "s3://huggingface.co/a"}}, "spec.model", "allowedModelHosts"),
        ({"model": {"url": "oci://ghcr.io/a:v1"}}, "spec.model", "allowedModelHosts"),
        (
            {"model": {"url": "s3://models/b", "s3": {"endpoint": "https://minio.example.com"}}},
            "spec.model",
            "allowedModelHosts",
        ),
        (volume(hostPath={"path": "/"}), "spec.podTemplate.volumes", "allowedVolumes"),
        (volume(secret={"secretName": "s"}), "spec.podTemplate.volumes", "allowedVolumes"),
        (
            volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
            "spec.podTemplate.volumes",
            "allowedVolumes",
        ),
        (
            template(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
            "spec.podTemplate.env",
            "allowedEnvSources",
        ),
        (template(labels={"app": "api"}), "spec.podTemplate.labels", "allowedPodLabels"),
    ],
    ids=str,
)
def test_what_an_administrator_does_not_allow_is_rejected(
    limited: ApiServer, spec: Json, field: str, value: str
) -> None:
    error = post(limited, llama(**spec))

    assert field in error
    assert "the administrator of Slotkeeper allows only these" in error
    assert f"(chart value llamaServerPolicy.{value})" in error
    assert post(limited, llama(namespace=EXEMPT, **spec)) == ""


def test_existing_servers_can_be_changed_except_for_their_spec(limited: ApiServer) -> None:
    def patch(patch: str) -> str:
        return limited.kubectl(
            *("patch", "llama", "old", f"--namespace={TEAM}", "--type=merge", f"--patch={patch}")
        ).stderr

    assert patch('{"metadata": {"labels": {"a": "b"}}}') == ""
    assert "spec.image" in patch('{"spec": {"slots": 3}}')
    assert patch('{"spec": {"slots": 3, "image": null}}') == ""


def test_by_default_nothing_more_is_forbidden(helm: Helm) -> None:
    rendered = list(yaml.safe_load_all(helm.rendered()))

    policies = [each for each in rendered if each["kind"] == "ValidatingAdmissionPolicy"]
    assert [policy["metadata"]["name"] for policy in policies] == [
        f"slotkeeper-operator.{NAMESPACE}"
    ]


def test_an_empty_list_allows_nothing(helm: Helm) -> None:
    rendered = helm.rendered({"llamaServerPolicy": {"allowedVolumes": []}})

    assert "allows only these types of volumes: none" in rendered
