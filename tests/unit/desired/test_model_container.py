"""Effect of `spec.model` on a replica's init container and on its llama-server."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubernetes_expansion import expanded
from llamaservers import IMAGES, server
from slotkeeper.desired import balancer, model_container, replicas, rpc_group
from slotkeeper.desired.metadata import Manifest
from slotkeeper.download.options import Options, parse
from slotkeeper.download.sources.s3 import ENTRIES

URL = "https://models.example.com/model.gguf"
SHA256 = "AB" * 32

ALL = {
    "url": URL,
    "sha256": SHA256,
    "tokenSecretRef": {"name": "huggingface", "key": "HF_TOKEN"},
    "alias": "org/model:7b",
    "mmproj": {"url": f"{URL}?mmproj", "sha256": "cd" * 32},
    "adapters": [{"url": f"{URL}?0"}, {"url": f"{URL}?1", "scale": 0.5}],
    "cache": {"claimName": "models"},
}


def pod(**model: Any) -> Any:
    """The pod of a replica with these fields of `spec.model`."""
    deployment = replicas.deployment(server(model={"url": URL} | model), 1, IMAGES)
    return deployment["spec"]["template"]["spec"]


def volumes(**model: Any) -> dict[str, Manifest]:
    return {volume["name"]: volume for volume in pod(**model)["volumes"]}


def download_options(**model: Any) -> Options:
    """The parsed command of the init container, after Kubernetes has expanded variables."""
    slotkeeper, verb, *argv = pod(**model)["initContainers"][0]["command"]
    assert (slotkeeper, verb) == ("slotkeeper", "download")
    return parse([expanded(argument, {"HOME": "/"}) for argument in argv])


def argument(flag: str, **model: Any) -> str | None:
    """The value of a flag of llama-server; None without the flag."""
    args = pod(**model)["containers"][0]["args"]
    return args[args.index(flag) + 1] if flag in args else None


def test_all_files_are_downloaded_to_the_paths_of_llama_server() -> None:
    files = download_options(**ALL).files
    model, mmproj, *adapters = (str(file.path) for file in files)

    assert [file.url for file in files] == [URL, f"{URL}?mmproj", f"{URL}?0", f"{URL}?1"]
    assert [file.sha256 for file in files] == ["ab" * 32, "cd" * 32, None, None]
    assert argument("--model", **ALL) == model
    assert argument("--mmproj", **ALL) == mmproj
    assert argument("--lora-scaled", **ALL) == f"{adapters[0]}:1,{adapters[1]}:0.5"


def test_a_model_alone_has_neither_projector_nor_adapters() -> None:
    assert [str(file.path) for file in download_options().files] == ["/models/model.gguf"]
    assert argument("--mmproj") is None
    assert argument("--lora-scaled") is None


def test_a_url_is_not_expanded_as_a_variable() -> None:
    url = f"{URL}?a=$(HOME)&b=$$"

    assert download_options(url=url).files[0].url == url


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param({}, {}, True, id="same URL"),
        pytest.param({}, {"url": f"{URL}?v=2"}, False, id="different URLs"),
        pytest.param({"sha256": SHA256}, {"sha256": SHA256.lower()}, True, id="same content"),
        pytest.param(
            {"sha256": SHA256},
            {"sha256": SHA256, "url": f"{URL}?v=2"},
            True,
            id="same content from another URL",
        ),
        pytest.param({"sha256": SHA256}, {}, False, id="with and without a checksum"),
        pytest.param({"sha256": SHA256}, {"sha256": "cd" * 32}, False, id="different content"),
    ],
)
def test_servers_that_share_a_claim_share_the_files_that_are_the_same(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    cache = {"cache": {"claimName": "models"}}

    paths = [str(download_options(**model, **cache).files[0].path) for model in (one, other)]

    assert (paths[0] == paths[1]) is same
    assert all(path.startswith("/models/") for path in paths)


SPLIT = "https://models.example.com/model-00001-of-00003.gguf"
PARTS = ["AB" * 32, "cd" * 32, "ef" * 32]


@pytest.mark.parametrize("cache", [{"claimName": "models"}, {"node": True}])
def test_the_model_and_the_projector_of_an_artifact_are_two_files(cache: dict[str, Any]) -> None:
    url = "oci://ghcr.io/team/vision:v1"
    model, mmproj = download_options(url=url, mmproj={"url": url}, cache=cache).files

    assert model.path != mmproj.path


@pytest.mark.parametrize(
    ("url", "one", "other"),
    [
        (
            "hf://team/model:Q4_K_M",
            {"download": {"hubEndpoint": "https://one.example.com"}},
            {"download": {"hubEndpoint": "https://two.example.com"}},
        ),
        (
            "s3://models/model.gguf",
            {"s3": {"endpoint": "https://one.example.com"}},
            {"s3": {"endpoint": "https://two.example.com"}},
        ),
    ],
)
def test_servers_that_share_a_claim_do_not_share_files_of_different_hosts(
    url: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    cache = {"claimName": "models"}
    paths = {
        download_options(url=url, cache=cache, **each).files[0].path for each in (one, other, {})
    }

    assert len(paths) == 3


def test_llama_server_finds_the_other_files_of_a_split_model_by_the_name_of_the_first() -> None:
    [file] = download_options(url=f"{SPLIT}?download=true", partsSha256=PARTS).files

    assert str(file.path) == argument("--model", url=SPLIT) == "/models/model-00001-of-00003.gguf"
    assert file.parts_sha256 == ("ab" * 32, "cd" * 32, "ef" * 32)


def test_servers_that_share_a_claim_share_the_same_split_model() -> None:
    cache = {"cache": {"claimName": "models"}}
    mirror = SPLIT.replace("models", "mirror")

    def path(**model: Any) -> str:
        return str(download_options(**model, **cache).files[0].path)

    assert path(url=SPLIT, partsSha256=PARTS) == path(url=mirror, partsSha256=PARTS)
    assert path(url=SPLIT) == path(url=SPLIT) != path(url=mirror)
    assert path(url=SPLIT, partsSha256=PARTS) != path(url=SPLIT, partsSha256=[*PARTS[:2], PARTS[0]])
    assert path(url=SPLIT).endswith("-00001-of-00003.gguf")


def mounts(container: Manifest) -> dict[str, Any]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def test_files_on_claims_are_read_where_they_are() -> None:
    model = {
        "url": "pvc://models/llama/m-00001-of-00002.gguf",
        "mmproj": {"url": "pvc://team.a/mmproj.gguf"},
        "adapters": [{"url": "pvc://models/lora.gguf", "scale": 0.5}],
    }
    replica = pod(**model)

    assert argument("--model", **model) == "/model-claims/models/llama/m-00001-of-00002.gguf"
    assert argument("--mmproj", **model) == "/model-claims/team.a/mmproj.gguf"
    assert argument("--lora-scaled", **model) == "/model-claims/models/lora.gguf:0.5"
    assert [str(file.path) for file in download_options(**model).files] == [
        "/model-claims/models/llama/m-00001-of-00002.gguf",
        "/model-claims/team.a/mmproj.gguf",
        "/model-claims/models/lora.gguf",
    ]
    assert volumes(**model) == {
        "model-claim-0": {
            "name": "model-claim-0",
            "persistentVolumeClaim": {"claimName": "models", "readOnly": True},
        },
        "model-claim-1": {
            "name": "model-claim-1",
            "persistentVolumeClaim": {"claimName": "team.a", "readOnly": True},
        },
        "tmp": {"name": "tmp", "emptyDir": {}},
    }
    for container in (replica["initContainers"][0], replica["containers"][0]):
        claims = mounts(container)
        claims.pop("/tmp", None)
        assert list(claims) == ["/model-claims/models", "/model-claims/team.a"]
        assert all(mount["readOnly"] is True for mount in claims.values())


def test_a_claim_with_the_model_and_the_cache_is_one_volume() -> None:
    model = {
        "url": "pvc://models/model.gguf",
        "adapters": [{"url": URL}],
        "cache": {"claimName": "models"},
    }
    replica = pod(**model)

    assert set(volumes(**model)) == {"models", "tmp"}
    assert "readOnly" not in volumes(**model)["models"]["persistentVolumeClaim"]
    assert mounts(replica["initContainers"][0]) == {
        "/models": {"name": "models", "mountPath": "/models"},
        "/model-claims/models": {
            "name": "models",
            "mountPath": "/model-claims/models",
            "readOnly": True,
        },
    }


def test_a_model_in_the_image_needs_no_init_container() -> None:
    model = {
        "url": "image:///weights/model.gguf",
        "mmproj": {"url": "image:///weights/mmproj.gguf"},
        "tokenSecretRef": {"name": "unused"},
    }
    replica = pod(**model)

    assert argument("--model", **model) == "/weights/model.gguf"
    assert argument("--mmproj", **model) == "/weights/mmproj.gguf"
    assert "initContainers" not in replica
    assert set(volumes(**model)) == {"tmp"}
    assert list(mounts(replica["containers"][0])) == ["/tmp"]


def test_other_files_of_a_model_in_the_image_are_downloaded() -> None:
    model = {"url": "image:///model.gguf", "adapters": [{"url": URL}]}

    [adapter] = download_options(**model).files

    assert (adapter.role, adapter.url) == ("model.adapters[0]", URL)
    assert argument("--model", **model) == "/model.gguf"
    assert argument("--lora-scaled", **model) == f"{adapter.path}:1"


def test_replicas_with_workers_need_no_download_of_a_model_in_the_image() -> None:
    group = server(model={"url": "image:///model.gguf"}, workers={"count": 1})
    assert group.spec.workers is not None

    made = rpc_group.manifests(group, group.spec.workers, replicas.deployment(group, 1, IMAGES))

    leaders = made[-1]["spec"]["template"]["spec"]
    assert [each["name"] for each in leaders["initContainers"]] == ["wait-for-workers"]


def test_the_hub_of_a_model_is_in_the_environment_of_the_download() -> None:
    model = {"url": "hf://org/repo/m-00001-of-00002.gguf@main"}
    mirror = {"download": {"hubEndpoint": "https://hub.example.com"}}

    assert pod(**model, **mirror)["initContainers"][0]["env"] == [
        {"name": "HF_ENDPOINT", "value": "https://hub.example.com"}
    ]
    assert "env" not in pod(**model)["initContainers"][0]
    assert argument("--model", **model) == "/models/model-00001-of-00002.gguf"


DRAFT = {"url": f"{URL}?draft", "sha256": "ef" * 32}


def drafted(speculative: dict[str, Any], **model: Any) -> tuple[Any, Options]:
    """The pod of a replica with speculative decoding, and its parsed download."""
    drafting = server(model={"url": URL} | model, speculative=speculative)
    replica = replicas.deployment(drafting, 1, IMAGES)["spec"]["template"]["spec"]
    return replica, parse(replica["initContainers"][0]["command"][2:])


def test_a_draft_is_downloaded_with_the_model() -> None:
    replica, options = drafted({"draft": DRAFT})
    _, draft = options.files

    assert (draft.url, draft.sha256, draft.role) == (DRAFT["url"], "ef" * 32, "speculative.draft")
    args = replica["containers"][0]["args"]
    assert args[args.index("--spec-draft-model") + 1] == str(draft.path) == "/models/draft.gguf"


@pytest.mark.parametrize(("kind", "same"), [("draft-simple", True), ("draft-eagle3", False)])
def test_only_a_draft_that_is_a_model_needs_the_models_vocabulary(kind: str, same: bool) -> None:
    _, options = drafted({"type": kind, "draft": DRAFT})

    assert options.files[1].same_vocabulary is same


def test_a_draft_has_the_sources_and_the_storage_of_the_model() -> None:
    on_claim = {"url": "pvc://drafts/qwen/draft.gguf"}
    replica, options = drafted({"draft": on_claim}, cache={"claimName": "models"})

    assert str(options.files[1].path) == "/model-claims/drafts/qwen/draft.gguf"
    assert {"/models", "/model-claims/drafts"} <= set(mounts(replica["containers"][0]))
    _, shared = drafted({"draft": DRAFT}, cache={"claimName": "models"})
    assert shared.files[1].path.name == f"sha256-{'ef' * 32}.gguf"


def test_a_draft_in_the_image_is_not_downloaded() -> None:
    replica, options = drafted({"draft": {"url": "image:///draft.gguf"}})

    assert [file.role for file in options.files] == ["model"]
    assert "/draft.gguf" in replica["containers"][0]["args"]


def test_another_draft_is_another_download() -> None:
    one, other = (
        server(model={"url": URL}, speculative={"draft": {"url": f"{URL}?{name}"}}).spec
        for name in ("one", "other")
    )

    assert model_container.content(one) != model_container.content(other)
    assert model_container.sources(one) != model_container.sources(other)


S3_URL = "s3://models/team/model.gguf"


def test_an_access_key_is_mounted_into_the_init_container_only() -> None:
    model = {"url": S3_URL, "s3": {"secretRef": {"name": "model-store"}, "region": "eu-west-1"}}
    replica, options = pod(**model), download_options(**model)

    assert (options.s3_endpoint, options.s3_region) == (None, "eu-west-1")
    assert options.s3_virtual_hosts is True
    assert options.s3_credentials == Path("/etc/slotkeeper/model-s3")
    assert volumes(**model)["model-s3"]["secret"] == {
        "secretName": "model-store",
        "items": [{"key": entry, "path": entry} for entry in ENTRIES],
        "defaultMode": 0o440,
        "optional": False,
    }
    assert options.s3_session_token == Path("/etc/slotkeeper/model-s3-session/AWS_SESSION_TOKEN")
    assert volumes(**model)["model-s3-session"]["secret"] == {
        "secretName": "model-store",
        "items": [{"key": "AWS_SESSION_TOKEN", "path": "AWS_SESSION_TOKEN"}],
        "defaultMode": 0o440,
        "optional": True,
    }
    assert "/etc/slotkeeper/model-s3" in mounts(replica["initContainers"][0])
    assert "/etc/slotkeeper/model-s3" not in mounts(replica["containers"][0])


def test_registries_of_the_cluster_may_be_accessed_by_http() -> None:
    url = "oci://registry.ai.svc/gemma:4b"

    assert download_options(url=url, oci={"plainHttp": True}).plain_http_registries
    assert not download_options(url=url).plain_http_registries


def test_a_split_model_in_a_registry_has_its_number_of_files_in_the_url() -> None:
    model = {"url": "oci://ghcr.io/team/gemma:4b/m/gemma-00001-of-00003.gguf"}

    assert argument("--model", **model) == "/models/model-00001-of-00003.gguf"


def test_an_object_store_of_ones_own_has_the_bucket_in_the_path() -> None:
    endpoint = "https://minio.example.com:9000"

    options = download_options(url=S3_URL, s3={"endpoint": endpoint})

    assert (options.s3_endpoint, options.s3_virtual_hosts) == (endpoint, False)
    assert options.s3_credentials is None
    assert download_options(url=S3_URL, s3={"endpoint": endpoint, "pathStyle": False}) == (
        replace(options, s3_virtual_hosts=True)
    )
    assert download_options(url=S3_URL, s3={"pathStyle": True}).s3_virtual_hosts is False


def test_files_are_stored_in_the_configured_volume() -> None:
    assert volumes()["models"] == {"name": "models", "emptyDir": {}}
    assert volumes(cache={"sizeLimit": "40Gi"})["models"]["emptyDir"] == {"sizeLimit": "40Gi"}
    assert volumes(cache={"sizeLimit": 2**30})["models"]["emptyDir"] == {"sizeLimit": str(2**30)}
    assert volumes(**ALL)["models"] == {
        "name": "models",
        "persistentVolumeClaim": {"claimName": "models"},
    }


def test_only_the_init_container_sees_the_token() -> None:
    replica = pod(**ALL)
    download, llama_server = replica["initContainers"][0], replica["containers"][0]

    assert (
        download_options(**ALL).token_file
        == Path(model_container.TOKEN_FOLDER) / model_container.TOKEN_FILE
    )
    assert {
        "name": "model-token",
        "mountPath": model_container.TOKEN_FOLDER,
        "readOnly": True,
    } in download["volumeMounts"]
    assert "model-token" not in {mount["name"] for mount in llama_server["volumeMounts"]}
    assert "env" not in download
    assert volumes(**ALL)["model-token"]["secret"] == {
        "secretName": "huggingface",
        "items": [{"key": "HF_TOKEN", "path": "token"}, {"key": "hosts", "path": "hosts"}],
        "defaultMode": 0o440,
        "optional": False,
    }


def test_no_secret_without_a_list_of_hosts_is_mounted() -> None:
    secret = volumes(tokenSecretRef={"name": "database", "key": "password"})["model-token"][
        "secret"
    ]

    assert {"key": "hosts", "path": "hosts"} in secret["items"]
    assert secret["optional"] is False
    assert download_options(**ALL).token_hosts_file == Path(model_container.TOKEN_FOLDER, "hosts")


def test_http_with_a_token_is_allowed_by_the_field_only() -> None:
    url = "http://models.default.svc/model.gguf"
    secret = {"name": "huggingface", "allowHttp": True}

    assert download_options(url=url, tokenSecretRef=secret).allow_http_token is True
    assert download_options(**ALL).allow_http_token is False


def test_the_maximum_size_of_a_file_is_passed_on() -> None:
    assert download_options().max_file_bytes == 100 * 1024**3
    assert download_options(download={"maxFileSize": "1.5Gi"}).max_file_bytes == 1536 * 1024**2


@pytest.mark.parametrize(("verify", "always"), [("Changed", False), ("Always", True)])
def test_files_are_always_verified_if_the_field_is_set(verify: str, always: bool) -> None:
    assert download_options(cache={"verify": verify}).always_verify is always


def test_proxies_are_for_hosts_beyond_the_cluster() -> None:
    download = {
        "httpProxy": "http://proxy.example.com:3128",
        "httpsProxy": "http://[fd00::1]:3129",
        "noProxy": [".example.com", "10.0.0.1"],
    }

    assert pod(download=download)["initContainers"][0]["env"] == [
        {"name": "HTTP_PROXY", "value": "http://proxy.example.com:3128"},
        {"name": "HTTPS_PROXY", "value": "http://[fd00::1]:3129"},
        {"name": "NO_PROXY", "value": "localhost,.svc,.svc.cluster.local,.example.com,10.0.0.1"},
    ]
    assert "env" not in pod(download={"noProxy": ["10.0.0.1"]})["initContainers"][0]


def test_private_authorities_are_mounted_into_the_init_container_only() -> None:
    reference = {"caConfigMapRef": {"name": "company-ca", "key": "bundle.pem"}}
    replica = pod(download=reference)

    assert download_options(download=reference).ca_file == Path("/etc/slotkeeper/model-ca/ca.crt")
    assert download_options(download=reference).ca_config_map == "company-ca/bundle.pem"
    assert download_options().ca_file is None
    assert volumes(download=reference)["model-ca"]["configMap"] == {
        "name": "company-ca",
        "items": [{"key": "bundle.pem", "path": "ca.crt"}],
        "defaultMode": 0o644,
        # The download reports what is missing.
        "optional": True,
    }
    assert "model-ca" in {mount["name"] for mount in replica["initContainers"][0]["volumeMounts"]}
    assert "model-ca" not in {mount["name"] for mount in replica["containers"][0]["volumeMounts"]}


def test_without_a_secret_there_is_no_token() -> None:
    assert download_options().token_file is None
    assert set(volumes()) == {"models", "tmp"}
    assert (
        volumes(tokenSecretRef={"name": "a"})["model-token"]["secret"]["items"][0]["key"] == "token"
    )


def test_workers_see_neither_models_nor_token() -> None:
    group = server(model=ALL, workers={"count": 1})
    assert group.spec.workers is not None

    made = rpc_group.manifests(group, group.spec.workers, replicas.deployment(group, 1, IMAGES))

    [worker] = [
        each
        for each in made
        if each["kind"] == "StatefulSet" and each["metadata"]["name"] == "chat-worker-0"
    ]
    assert worker["spec"]["template"]["spec"]["volumes"] == [{"name": "tmp", "emptyDir": {}}]


@pytest.mark.parametrize(("model", "name"), [({}, "chat"), ({"alias": "org/a:7b"}, "org/a:7b")])
def test_the_model_has_one_name_in_replicas_and_balancer(model: dict[str, str], name: str) -> None:
    deployment = balancer.deployment(server(model={"url": URL, **model}), IMAGES)
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]

    assert argument("--alias", **model) == name
    assert command[command.index("--model") + 1] == name
