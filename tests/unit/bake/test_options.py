from pathlib import Path

import pytest

from slotkeeper.bake.options import BASE, Options, file_name, parse

IMAGE = "registry.example.com/team/qwen:1"
URL = "https://example.com/qwen.gguf"


def options(*argv: str, environ: dict[str, str] | None = None) -> Options:
    return parse(["--image", IMAGE, *argv], environ or {"XDG_CACHE_HOME": "/cache"})


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(argv, {})
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_files_are_downloaded_into_a_folder_of_their_urls() -> None:
    one = options("--model", URL, "--mmproj", f"{URL}?token=CANARY", "--sha256", "a" * 64)
    same = options("--model", URL, "--mmproj", f"{URL}?token=OTHER")
    other = options("--model", f"{URL}2")

    assert [file.path.name for file in one.download.files] == ["model.gguf", "mmproj.gguf"]
    assert one.folder.parent == Path("/cache/slotkeeper-bake")
    assert {file.path.parent for file in one.download.files} == {one.folder}
    assert one.folder == same.folder != other.folder
    assert one.download.files[1].sha256 == "a" * 64


def test_the_defaults_are_llama_cpps_image_and_the_users_cache() -> None:
    found = options("--model", URL, environ={"HOME": "/unused"})

    assert found.base == BASE
    assert found.folder.parent == Path.home() / ".cache/slotkeeper-bake"
    assert not found.push
    assert found.tool is None


@pytest.mark.parametrize(
    ("role", "url", "name"),
    [
        ("model", URL, "model.gguf"),
        ("model", "https://h/a-00001-of-00003.gguf?x", "model-00001-of-00003.gguf"),
        ("model.mmproj", URL, "mmproj.gguf"),
        ("model.adapters[1]", URL, "adapter-1.gguf"),
    ],
)
def test_the_name_of_a_file_is_that_of_its_field(role: str, url: str, name: str) -> None:
    assert file_name(role, url) == name


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://Example.com:8443/a.gguf", {"example.com"}),
        ("hf://org/repo:Q4_K_M", {"hub.example.com"}),
        ("oci://docker.io/team/model:1", {"registry-1.docker.io"}),
        ("oci://registry.example.com:5000/team/model:1", {"registry.example.com"}),
    ],
)
def test_the_token_is_for_the_hosts_of_the_urls(url: str, hosts: set[str]) -> None:
    environ = {"HF_ENDPOINT": "https://hub.example.com/x", "XDG_CACHE_HOME": "/cache"}

    found = options("--model", url, "--token-host", "Auth.docker.io", environ=environ)

    assert found.token_hosts == {*hosts, "auth.docker.io"}


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        (IMAGE, "registry.example.com/team/qwen"),
        ("localhost:5000/qwen", "localhost:5000/qwen"),
        ("localhost/qwen:1", "localhost/qwen"),
        ("registry:5000/a/b__c:v1.0", "registry:5000/a/b__c"),
    ],
)
def test_the_repository_is_the_image_without_its_tag(image: str, repository: str) -> None:
    found = parse(["--model", URL, "--image", image], {"XDG_CACHE_HOME": "/c"})

    assert found.repository == repository


@pytest.mark.parametrize(
    "image", ["qwen:1", "team/qwen:1", "example.com/Qwen", "example.com/a b", "-x", "a.b/c\nRUN x"]
)
def test_an_image_without_a_registry_is_invalid(
    capsys: pytest.CaptureFixture[str], image: str
) -> None:
    assert "docker.io/team/qwen:1" in error(capsys, "--model", URL, f"--image={image}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--model is required"),
        (
            ["--model", "./quick.gguf"],
            "./quick.gguf is not a URL that begins with http://, https://, hf",
        ),
        (["--model", "ftp://h/a.gguf"], "oci://; if it is a local file, COPY it"),
        (["--model", "hf://org"], "hf://org is not of the form hf://ORG/REPOSITORY"),
        (["--model", "s3://bucket"], "s3://BUCKET/KEY"),
        (["--model", "oci://registry"], "oci://REGISTRY/REPOSITORY:TAG"),
        (["--model", "https://"], "must be http://HOST/PATH or https://HOST/PATH"),
        (["--mmproj", URL], "--model is required"),
        (["--model", "pvc://claim/a.gguf"], "examples/model-in-image.yaml"),
        (["--model", "image:///a.gguf"], "examples/model-in-image.yaml"),
        (["--model", URL, "--base", "a\nRUN evil"], "--base is not the name of an image"),
        (["--model", URL, "--platform", "--all"], "expected one argument"),
        (["--model", URL, "--platform", "amd64"], "--platform must be OS/ARCHITECTURE"),
        (["--model", URL, "--tool", "kaniko"], "invalid choice"),
        (["--model", URL, "--sha256", "abc"], "expected 64 hex digits"),
        (["--model", "https://h/a-00001-of-00002.gguf", "--sha256", "a" * 64], "--parts-sha256"),
        (["--model", URL, "--to", "/etc/passwd"], "unrecognized arguments: --to"),
    ],
)
def test_an_invalid_command_line_states_what_is_wrong(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert message in error(capsys, "--image", IMAGE, *argv)


def test_the_help_names_the_schemes_that_can_be_baked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], {})

    text = " ".join(capsys.readouterr().out.split())
    assert "http://, https://, hf://, s3:// or oci:// URL of the model" in text
    assert "pvc://" not in text
