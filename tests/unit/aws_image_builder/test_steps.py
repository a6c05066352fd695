"""Each step with programs in place of a GPU node's: what it does, and what its errors say."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from step_scripts import STEPS, Node

DIGEST = "sha256:" + "a" * 64
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_no_finding() -> None:
    scripts = [str(path) for path in sorted(STEPS.glob("*.sh"))]

    result = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)

    assert len(scripts) == 6
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("path", sorted(STEPS.glob("*.sh")), ids=lambda path: path.stem)
def test_each_step_stops_at_the_first_error(path: Path) -> None:
    text = path.read_text()

    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text


# check-driver


def driver(node: Node, output: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
    node.install("nvidia-smi", f"cat <<'END'\n{output}\nEND\nexit {status}")
    return check_driver(node)


def check_driver(node: Node) -> "subprocess.CompletedProcess[str]":
    state = str(node.folder / "state")
    return node.run("check-driver", MIN_DRIVER_VERSION="550.54.14", STATE_FOLDER=state)


@pytest.mark.parametrize("version", ["550.54.14", "550.90.7", "580.95.05", "1000.1"])
def test_a_driver_that_is_new_enough_is_accepted(node: Node, version: str) -> None:
    result = driver(node, f"{version}\n{version}")

    assert result.returncode == 0, result.stderr
    assert result.stdout == f"check-driver: driver {version}, 2 GPU(s)\n"


@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        ("535.183.01", 0, "the driver is 535.183.01, but at least 550.54.14 is needed: set parent"),
        ("550.54.2", 0, "the driver is 550.54.2, but"),
        ("No devices were found", 6, "no GPU was found: set instance_types"),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
            9,
            "the kernel module nvidia is not loaded: set instance_types",
        ),
        ("Unable to determine the device handle", 15, "nvidia-smi failed: Unable to determine"),
        ("[N/A]", 0, "nvidia-smi reports no version of the driver: [N/A]"),
    ],
    ids=["old", "old patch", "no devices", "no module", "other", "no version"],
)
def test_a_driver_that_does_not_work_is_reported(
    node: Node, output: str, status: int, message: str
) -> None:
    result = driver(node, output, status)

    assert result.returncode == 1
    assert result.stderr.startswith(f"check-driver: {message}")


def test_a_missing_driver_is_reported(node: Node) -> None:
    result = check_driver(node)

    assert result.returncode == 1
    assert "nvidia-smi is not installed: set parent_image" in result.stderr


def test_a_driver_that_differs_from_its_kernel_module_is_loaded_by_one_reboot(node: Node) -> None:
    mismatch = "Failed to initialize NVML: Driver/library version mismatch"

    first = driver(node, mismatch, 18)
    still = driver(node, mismatch, 18)

    assert first.returncode == 194  # Image Builder's for a reboot
    assert still.returncode == 1
    assert "still differ after a reboot: install one version of both" in still.stderr

    assert driver(node, "580.95.05").returncode == 0
    # A mismatch of a later update is another one.
    assert driver(node, mismatch, 18).returncode == 194


# configure-containerd

DUMP = 'while [ $# -gt 0 ]; do [ "$1" = --config ] && cat "$2"; shift; done; exit 0'
CONFIGURE = """\
for each; do
  case "$each" in
    --config=*) echo 'BinaryName = "/usr/bin/nvidia-container-runtime"' >>"${each#*=}" ;;
  esac
done
"""


def configure(node: Node) -> "subprocess.CompletedProcess[str]":
    return node.run("configure-containerd", CONTAINERD_CONFIG=str(node.folder / "config.toml"))


def test_the_runtime_is_configured_once(node: Node) -> None:
    node.install("containerd", DUMP)
    node.install("nvidia-ctk", CONFIGURE)
    node.install("systemctl")

    first, second = configure(node), configure(node)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "configured already" in second.stdout
    config = node.folder / "config.toml"
    assert config.read_text().count("nvidia-container-runtime") == 1
    assert [call for call in node.calls if not call.startswith("containerd")] == [
        f"nvidia-ctk runtime configure --runtime=containerd --config={config} --set-as-default",
        "systemctl restart containerd",
    ]


def test_the_configuration_is_left_to_nodeadm(node: Node) -> None:
    for program in ("containerd", "nvidia-ctk", "nodeadm"):
        node.install(program)

    result = configure(node)

    assert result.returncode == 0
    assert "nodeadm configures containerd when the node boots" in result.stdout
    assert node.calls == []


def test_a_missing_toolkit_is_reported(node: Node) -> None:
    node.install("containerd", DUMP)

    result = configure(node)

    assert result.returncode == 1
    assert "nvidia-ctk is not installed: set parent_image" in result.stderr


def test_a_toolkit_without_effect_is_reported(node: Node) -> None:
    node.install("containerd", DUMP)
    node.install("nvidia-ctk")

    result = configure(node)

    assert result.returncode == 1
    assert "nvidia-ctk has not added its runtime to" in result.stderr
    assert not [call for call in node.calls if call.startswith("systemctl")]


# pull-images

CTR = """\
case "$*" in
  "images check"*) grep -qxF "${@: -1}" {folder}/complete 2>/dev/null && echo found ;;
  "images pull"*)
    cp -r "$4/." {folder}/hosts
    stat --format=%a "$4"/*/hosts.toml >{folder}/mode
    {pull}
    echo "name==${@: -1}" >>{folder}/complete
    ;;
esac
exit 0
"""


def install_ctr(node: Node, pull: str = ":") -> None:
    (node.folder / "hosts").mkdir(exist_ok=True)
    for name in ("cp",):
        if not (node.bin / name).exists():
            node.link(f"/bin/{name}")
    node.install("ctr", CTR.replace("{folder}", str(node.folder)).replace("{pull}", pull))
    node.install("systemctl", "[ $1 = start ]")


def pull(node: Node, *images: str) -> "subprocess.CompletedProcess[str]":
    run = node.folder / "run"
    run.mkdir(exist_ok=True)
    hosts = node.folder / "certs.d"
    (hosts / "any").mkdir(parents=True, exist_ok=True)
    (hosts / "any/hosts.toml").touch()
    return node.run(
        "pull-images",
        IMAGES=" ".join(images),
        RUN_FOLDER=str(run),
        HOSTS_FOLDER=str(hosts),
        RETRY_SECONDS="0",
    )


def test_an_image_is_pulled_by_its_digest_tagged_and_pinned(node: Node) -> None:
    install_ctr(node)
    image = "registry.example.com:5000/team/llama"

    result = pull(node, f"{image}:1@{DIGEST}")

    assert result.returncode == 0, result.stderr
    assert node.calls == [
        "systemctl is-active --quiet containerd",
        "systemctl start containerd",
        f"ctr images check --quiet name=={image}@{DIGEST}",
        f"ctr images pull --hosts-dir {node.folder}/certs.d {image}@{DIGEST}",
        f"ctr images tag --force {image}@{DIGEST} {image}:1",
        f"ctr images label {image}@{DIGEST} io.cri-containerd.pinned=pinned",
        f"ctr images label {image}:1 io.cri-containerd.pinned=pinned",
    ]


def test_an_image_that_is_there_is_not_pulled_again(node: Node) -> None:
    install_ctr(node)
    image = f"registry.example.com:5000/llama@{DIGEST}"

    first, second = pull(node, image), pull(node, image)

    assert first.returncode == second.returncode == 0
    assert f"already there: {image}" in second.stdout
    assert len([call for call in node.calls if "images pull" in call]) == 1
    assert not [call for call in node.calls if "images tag" in call]


def test_the_password_of_ecr_is_in_no_argument_and_in_no_file_of_the_image(node: Node) -> None:
    install_ctr(node)
    node.install("aws", "echo CANARY")

    result = pull(node, f"{REGISTRY}/models/qwen:1@{DIGEST}", f"{REGISTRY}/other@{DIGEST}")

    assert result.returncode == 0, result.stderr
    hosts = (node.folder / f"hosts/{REGISTRY}/hosts.toml").read_text()
    assert 'Authorization = "Basic QVdTOkNBTkFSWQ=="' in hosts  # AWS:CANARY
    assert f'[host."https://{REGISTRY}".header]' in hosts
    assert (node.folder / "mode").read_text() == "600\n"
    assert [call for call in node.calls if call.startswith("aws")] == [
        "aws ecr get-login-password --region eu-central-1"
    ]
    assert list((node.folder / "run").iterdir()) == []
    shown = [*node.calls, result.stdout, result.stderr]
    assert [text for text in shown if "CANARY" in text or "QVdTOkNB" in text] == []


def test_a_registry_that_rejects_the_role_is_reported(node: Node) -> None:
    install_ctr(node)
    node.install("aws", "echo AccessDenied >&2; exit 254")

    result = pull(node, f"{REGISTRY}/models/qwen@{DIGEST}")

    assert result.returncode == 1
    assert f"cannot log in to {REGISTRY}: add its repositories to ecr_repository_arns" in (
        result.stderr
    )
    assert list((node.folder / "run").iterdir()) == []


def test_a_pull_is_tried_three_times(node: Node) -> None:
    install_ctr(node, "echo no such host >&2; exit 1")

    result = pull(node, f"registry.example.com/llama@{DIGEST}")

    assert result.returncode == 1
    assert len([call for call in node.calls if "images pull" in call]) == 3
    assert f"cannot pull registry.example.com/llama@{DIGEST}: check the name" in result.stderr


# fetch-models

MODEL = b"GGUF" + bytes(64)
SHA256 = hashlib.sha256(MODEL).hexdigest()
DOWNLOAD = f"registry.example.com/slotkeeper/download@{DIGEST}"
RUN_DOWNLOAD = """\
case "$1 $2" in
  "images check") [ -e {folder}/no-image ] || echo found ;;
  "run --rm")
    cat >/dev/null
    source=${5#*src=}
    [ -z "{status}" ] || exit {status}
    printf %s "" >"${source%%,*}/${@: -1}" 2>/dev/null || :
    ;;
esac
exit 0
"""


def fetch(node: Node, *models: str, status: str = "") -> "subprocess.CompletedProcess[str]":
    script = RUN_DOWNLOAD.replace("{folder}", str(node.folder)).replace("{status}", status)
    node.install("ctr", script)
    node.install("systemctl")
    return node.run(
        "fetch-models",
        MODELS="\n".join(models),
        DOWNLOAD_IMAGE=DOWNLOAD,
        MODELS_FOLDER=str(node.folder / "models"),
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="sets the owner of folders")
def test_models_are_downloaded_into_the_folders_of_their_namespaces(node: Node) -> None:
    url = "hf://org/repo/model.gguf"

    result = fetch(node, f"chat {url} {SHA256}", f"code https://h/c.gguf {'b' * 64}")

    assert result.returncode == 0, result.stderr
    folder = node.folder / "models/chat"
    runs = [call for call in node.calls if call.startswith("ctr run")]
    assert len(runs) == 2
    assert f"--mount type=bind,src={folder},dst=/models,options=rbind:rw {DOWNLOAD} " in runs[0]
    assert runs[0].endswith(
        f"slotkeeper download --model {url} --sha256 {SHA256} --to /models/sha256-{SHA256}.gguf"
    )
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (65532, 0o700)
    assert fetch(node, f"chat {url} {SHA256}").returncode == 0


def test_without_models_nothing_is_started(node: Node) -> None:
    result = fetch(node, "")

    assert (result.returncode, result.stdout) == (0, "fetch-models: no models\n")
    assert node.calls == []


@pytest.mark.skipif(os.geteuid() != 0, reason="sets the owner of folders")
def test_a_failed_download_is_reported(node: Node) -> None:
    result = fetch(node, f"chat https://h/m.gguf {SHA256}", status="75")

    assert result.returncode == 1
    assert "cannot download https://h/m.gguf, exit status 75: see the lines above" in result.stderr


def test_models_need_the_image_that_downloads_them(node: Node) -> None:
    node.folder.joinpath("no-image").touch()

    result = fetch(node, f"chat https://h/m.gguf {SHA256}")

    assert result.returncode == 1
    assert f"the image {DOWNLOAD} is missing: run pull-images first" in result.stderr


# verify-models


def verify_models(node: Node, **environment: str) -> "subprocess.CompletedProcess[str]":
    folder = str(node.folder / "models")
    model = f"chat https://h/m.gguf {SHA256}"
    return node.run("verify-models", MODELS=model, MODELS_FOLDER=folder, **environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="sets the owner of files")
def test_models_are_verified(node: Node) -> None:
    folder = node.folder / "models/chat"
    folder.mkdir(parents=True)
    file = folder / f"sha256-{SHA256}.gguf"

    assert f"missing: {file}" in verify_models(node).stderr

    file.write_bytes(MODEL)
    file.with_name(f"{file.name}.json").write_text("{}")
    assert f"not owned by user 65532: {file}" in verify_models(node).stderr

    os.chown(file, 65532, 65532)
    assert verify_models(node).stdout == "verify-models: all models are there\n"

    file.write_bytes(MODEL + b"x")
    changed = verify_models(node)
    assert changed.returncode == 1
    assert f"the content has another SHA-256: {file}" in changed.stderr
    assert verify_models(node, CHECKSUMS="no").returncode == 0
    assert node.run("verify-models", MODELS="").returncode == 0
