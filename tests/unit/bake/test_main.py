"""`slotkeeper bake` with real downloads, and programs that record how they are called."""

import json
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_tools import FakeTools
from gguf_files import split_gguf
from model_host import GGUF, SHA256, ModelHost, by_name, content, model_host, redirect, status
from oci_registry import CERTIFICATE
from slotkeeper.api.server import LlamaServer
from slotkeeper.bake.main import main

IMAGE = "registry.example.com/team/qwen:1"
DIGEST = "sha256:" + "d" * 64


def bake(host: ModelHost, tmp_path: Path, *argv: str) -> int:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    return main(["--model", f"{host.url}/model.gguf", "--image", IMAGE, *cache, *argv])


def cached(tmp_path: Path, name: str = "model.gguf") -> Path:
    [path] = (tmp_path / "cache").glob(f"*/{name}")
    return path


def test_the_printed_fields_are_those_of_a_valid_server(
    tools: FakeTools, host: ModelHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.install("docker")
    host.respond_with(content())
    others = ("--mmproj", f"{host.url}/mmproj", "--adapter", f"{host.url}/lora")

    code = bake(host, tmp_path, "--push", *others)

    assert code == 0
    fields = yaml.safe_load(capsys.readouterr().out)
    assert fields == {
        "spec": {
            "image": f"registry.example.com/team/qwen@{DIGEST}",
            "model": {
                "url": "image:///models/model.gguf",
                "sha256": None,
                "partsSha256": None,
                "mmproj": {"url": "image:///models/mmproj.gguf", "sha256": None},
                "adapters": [{"url": "image:///models/adapter-0.gguf"}],
            },
        }
    }
    metadata = {"name": "qwen", "namespace": "default", "uid": "1", "generation": 1}
    parsed = LlamaServer.parse({"metadata": metadata, **fields})
    assert parsed.spec.image == fields["spec"]["image"]


@pytest.mark.parametrize(
    "before",
    [
        {"url": "https://example.com/a.gguf"},
        {"url": "https://example.com/a.gguf", "sha256": SHA256},
        {
            "url": "https://example.com/a-00001-of-00002.gguf",
            "partsSha256": [SHA256, SHA256],
            "mmproj": {"url": "https://example.com/b.gguf", "sha256": SHA256},
            "adapters": [{"url": "https://example.com/c.gguf", "sha256": SHA256}],
        },
    ],
    ids=["without sha256", "sha256", "partsSha256"],
)
def test_the_printed_patch_fits_a_server_with_or_without_sha256(
    tools: FakeTools,
    host: ModelHost,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: dict[str, Any],
) -> None:
    tools.install("docker")
    host.respond_with(content())
    bake(host, tmp_path, "--mmproj", f"{host.url}/mmproj", "--adapter", f"{host.url}/lora")

    patch = yaml.safe_load(capsys.readouterr().out)

    metadata = {"name": "qwen", "namespace": "default", "uid": "1", "generation": 1}
    merged = merge({"spec": {"model": before, "slots": 8}}, patch)
    parsed = LlamaServer.parse({"metadata": metadata, **merged})
    assert parsed.spec.slots == 8
    assert merged["spec"]["model"] == {
        "url": "image:///models/model.gguf",
        "mmproj": {"url": "image:///models/mmproj.gguf"},
        "adapters": [{"url": "image:///models/adapter-0.gguf"}],
    }


def merge(tree: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A JSON merge patch, applied as RFC 7386 has it."""
    merged = {
        name: merge(tree.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in patch.items()
    }
    return {name: value for name, value in (tree | merged).items() if value is not None}


def test_all_files_are_in_one_layer(tools: FakeTools, host: ModelHost, tmp_path: Path) -> None:
    tools.install("podman")
    host.respond_with(content())

    assert bake(host, tmp_path, "--base", "llama:cuda", "--mmproj", f"{host.url}/mmproj") == 0

    assert tools.containerfile.startswith(
        "FROM llama:cuda\nCOPY --chmod=0444 model.gguf mmproj.gguf /models/\nLABEL "
    )
    assert tools.call("build")[-1] == str(cached(tmp_path).parent)
    assert cached(tmp_path).read_bytes() == GGUF
    assert not [call for call in tools.calls if call[1] == "push"]


def test_the_first_installed_program_is_used(
    tools: FakeTools, host: ModelHost, tmp_path: Path
) -> None:
    tools.install("docker", "podman")
    host.respond_with(content())

    assert bake(host, tmp_path) == 0

    assert {call[0] for call in tools.calls} == {"podman"}


def test_docker_gets_files_with_a_fixed_time(
    tools: FakeTools, host: ModelHost, tmp_path: Path
) -> None:
    tools.install("docker")
    host.respond_with(content(), status(404))

    assert bake(host, tmp_path) == 0
    assert cached(tmp_path).stat().st_mtime == 0

    # The file is still the verified one: nothing is downloaded again.
    assert bake(host, tmp_path, "--sha256", SHA256) == 0
    assert len(host.requests) == 1


def test_a_local_base_image_is_not_pulled(
    tools: FakeTools, host: ModelHost, tmp_path: Path
) -> None:
    tools.install("buildah")
    host.respond_with(content())

    assert bake(host, tmp_path) == 0
    assert [call[1] for call in tools.calls] == ["info", "inspect", "build"]

    assert bake(host, tmp_path, "--platform", "linux/arm64") == 0
    assert tools.call("pull")[2:4] == ["--platform", "linux/arm64"]


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        ({"info": "no daemon"}, "buildah info failed with exit status 125: first line / no daemon"),
        (
            {"inspect": "unknown", "pull": "not found"},
            "125: first line / not found; name an image of llama-server with --base, or log in",
        ),
        ({"build": "no space"}, "buildah build failed with exit status 125: first line / no space"),
        (
            {"push": "unauthorized"},
            "unauthorized; the image is built: log in to the registry with `buildah login`, and",
        ),
    ],
    ids=["info", "pull", "build", "push"],
)
def test_a_failure_states_what_to_do(
    tools: FakeTools,
    host: ModelHost,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    failures: dict[str, str | None],
    message: str,
) -> None:
    tools.install("buildah")
    tools.fail(**failures)
    host.respond_with(content())

    assert bake(host, tmp_path, "--push") == 1

    assert message in caplog.text
    assert "Traceback" not in caplog.text


def test_nothing_is_downloaded_without_a_base_image(
    tools: FakeTools, host: ModelHost, tmp_path: Path
) -> None:
    tools.install("buildah")
    tools.fail(inspect="unknown", pull="not found")

    assert bake(host, tmp_path) == 1

    assert host.requests == []


@pytest.mark.usefixtures("tools")
def test_without_a_program_the_error_names_all(
    host: ModelHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert bake(host, tmp_path) == 1
    assert bake(host, tmp_path, "--tool", "docker") == 1

    assert "no buildah or podman or docker on the PATH: install one of them" in caplog.text
    assert "no docker on the PATH" in caplog.text


@pytest.mark.parametrize(("code", "exit_status"), [(404, 1), (503, 75)])
def test_a_download_that_fails_has_the_exit_status_of_the_downloader(
    tools: FakeTools, host: ModelHost, tmp_path: Path, code: int, exit_status: int
) -> None:
    tools.install("buildah")
    host.respond_with(status(code))

    assert bake(host, tmp_path, "--tries", "1") == exit_status

    assert not [call for call in tools.calls if call[1] == "build"]


def test_an_error_names_the_flags_instead_of_the_fields(
    tools: FakeTools, host: ModelHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools.install("buildah")
    host.respond_with(status(401), content())

    assert bake(host, tmp_path) == 1
    assert "a token; the flags for this are --token-file and --token-host" in caplog.text

    assert bake(host, tmp_path, "--max-file-bytes", "10") == 1
    assert "; the flag for this is --max-file-bytes" in caplog.text


@pytest.mark.parametrize("command", ["pull", "push"])
def test_a_registry_without_tls_needs_no_login(
    tools: FakeTools,
    host: ModelHost,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    command: str,
) -> None:
    tools.install("buildah")
    http = "pinging: http: server gave HTTP response to HTTPS client"
    tools.fail(**{command: http})
    host.respond_with(content())

    assert bake(host, tmp_path, "--push", "--platform", "linux/amd64") == 1

    assert "allow the registry without TLS (`insecure = true` in /etc/containers" in caplog.text
    assert "login" not in caplog.text


def test_a_store_without_an_access_key_names_the_flag(
    tools: FakeTools, host: ModelHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools.install("buildah")
    host.respond_with(status(403))
    store = ("--s3-endpoint", host.url.removesuffix("/model.gguf"))

    assert (
        main(
            [
                "--model",
                "s3://models/k.gguf",
                "--image",
                IMAGE,
                "--cache-dir",
                str(tmp_path),
                *store,
            ]
        )
        == 1
    )

    assert "with an access key; the flag for this is --s3-credentials" in caplog.text


def test_too_little_space_is_reported_before_the_download(
    tools: FakeTools,
    host: ModelHost,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tools.install("buildah")
    tools.stored_in(json.dumps({"store": {"GraphRoot": str(tmp_path)}}))
    host.respond_with(content())
    free = len(GGUF) * 4 - 4
    monkeypatch.setattr("slotkeeper.bake.main.free_bytes", lambda _: free)

    assert bake(host, tmp_path) == 1

    assert f"{len(GGUF)} bytes more are needed" in caplog.text
    assert f"buildah needs 3 times the size of the files while it builds in {tmp_path}" in (
        caplog.text
    )
    assert "only 1/4 of the free bytes counts" in caplog.text
    assert not [call for call in tools.calls if call[1] == "build"]


def test_too_little_space_of_the_program_is_reported_before_the_build(
    tools: FakeTools,
    host: ModelHost,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tools.install("docker")
    tools.stored_in(str(tmp_path))
    host.respond_with(content())
    assert bake(host, tmp_path) == 0
    monkeypatch.setattr("slotkeeper.bake.main.free_bytes", lambda _: 2 * len(GGUF) - 1)

    assert bake(host, tmp_path) == 1

    assert f"{2 * len(GGUF)} bytes, but {2 * len(GGUF) - 1} are free" in caplog.text
    assert "remove images with `docker rmi`" in caplog.text


@pytest.mark.parametrize(("number", "exit_status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_build_ends_its_program_and_keeps_the_files(
    tools: FakeTools, host: ModelHost, tmp_path: Path, number: int, exit_status: int
) -> None:
    tools.install("buildah")
    tools.fail(build=None)
    host.respond_with(content())
    argv = ("--model", f"{host.url}/model.gguf", "--image", IMAGE)
    # A shell's background job ignores SIGINT, and a child of it would inherit that.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "slotkeeper", "bake", *argv, "--cache-dir", tmp_path / "cache"],
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, inherited)
    deadline = time.monotonic() + 30
    while not (tools.folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)

    process.send_signal(number)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == exit_status
    assert "interrupted; run the same command again to continue: downloaded files are in" in errors
    assert "Traceback" not in errors
    assert cached(tmp_path).read_bytes() == GGUF


def test_no_credential_reaches_the_image_or_the_log(
    tools: FakeTools, host: ModelHost, tmp_path: Path
) -> None:
    tools.install("docker")
    host.respond_with(status(503), content())
    url = host.url.replace("//", "//user:CANARY@") + "/model.gguf?signature=CANARY#CANARY"

    process = subprocess.run(
        [
            *(sys.executable, "-m", "slotkeeper", "bake", "--model", url, "--image", IMAGE),
            *("--cache-dir", str(tmp_path / "cache"), "--push", "--log-level", "debug"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert f'slotkeeper.dev/model-url="{host.url}/model.gguf"' in tools.containerfile
    shown = [process.stdout, process.stderr, tools.containerfile, json.dumps(tools.calls)]
    assert [text for text in shown if "CANARY" in text] == []


def test_a_token_is_read_from_its_file_and_sent_to_the_hosts_of_the_urls_only_by_https(
    tools: FakeTools, host: ModelHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools.install("docker")
    host.respond_with(content())
    token = tmp_path / "token"
    token.write_text("CANARY\n")

    assert bake(host, tmp_path, "--token-file", str(token)) == 1

    assert "ModelTokenNotAllowed" in caplog.text
    assert "by http://" in caplog.text
    assert "CANARY" not in caplog.text
    assert host.requests == []


def test_a_token_that_a_host_sends_back_is_not_logged(tools: FakeTools, tmp_path: Path) -> None:
    tools.install("docker")
    token = tmp_path / "token"
    token.write_text("CANARY-of-the-token\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with model_host(context) as host:
        host.respond_with(redirect("/CANARY-of-the-token/model.gguf"), status(404))
        url = f"{host.url}/model.gguf"
        argv = ["--model", url, "--image", IMAGE, "--cache-dir", str(tmp_path / "cache")]
        process = subprocess.run(
            [
                *(sys.executable, "-m", "slotkeeper", "bake", *argv),
                *("--token-file", str(token), "--ca-file", str(CERTIFICATE)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

        assert host.requests[0]["Authorization"] == "Bearer CANARY-of-the-token"
    assert process.returncode == 1
    assert "redirected to https://127.0.0.1" in process.stderr
    assert "CANARY" not in process.stdout + process.stderr


def test_a_split_model_is_baked_whole(
    tools: FakeTools, host: ModelHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.install("buildah")
    parts = split_gguf({"a": 8}, {"b": 8})
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    host.respond_with(
        by_name({name: content(part) for name, part in zip(names, parts, strict=True)})
    )
    cache = ("--cache-dir", str(tmp_path / "cache"))

    assert main(["--model", f"{host.url}/{names[0]}", "--image", IMAGE, *cache]) == 0

    assert "COPY --chmod=0444 model-00001-of-00002.gguf model-00002-of-00002.gguf /models/" in (
        tools.containerfile
    )
    assert "url: image:///models/model-00001-of-00002.gguf\n" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_is_an_error(
    tools: FakeTools, host: ModelHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools.install("buildah")
    (tmp_path / "cache").write_text("a file")

    assert bake(host, tmp_path) == 1

    assert "Not a directory" in caplog.text or "File exists" in caplog.text


def test_the_help_explains_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    text = capsys.readouterr().out
    assert all(f"\n  {code} " in text for code in (0, 1, 2, 75, 130, 143))
