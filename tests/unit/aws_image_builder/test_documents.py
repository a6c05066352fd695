"""The component documents, as Terraform or OpenTofu renders them, without a provider."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from step_scripts import FOLDER, STEPS

TOFU = shutil.which("tofu") or shutil.which("terraform")

pytestmark = pytest.mark.skipif(TOFU is None, reason="neither tofu nor terraform is installed")

DIGEST = "sha256:" + "a" * 64
INPUTS: dict[str, Any] = {
    "min_driver_version": "550.54.14",
    "images": [f"registry.example.com:5000/llama:1@{DIGEST}"],
    "download_image": f"ghcr.io/team/download:1@{DIGEST}",
    "models": [
        {"namespace": "chat", "url": "hf://org/repo/m.gguf", "sha256": "B" * 64},
        {"namespace": "code", "url": "https://h/c.gguf", "sha256": "c" * 64},
    ],
    "models_folder": "/var/lib/slotkeeper/models",
    "pull_timeout_seconds": 7200,
}


def render(folder: Path, **inputs: Any) -> subprocess.CompletedProcess[str]:
    """Evaluate the module of the documents; its output is on stdout."""
    given = {**INPUTS, **inputs}
    # Relative, so that the module is not copied away from the scripts.
    source = os.path.relpath(FOLDER / "documents", folder)
    root = {
        "module": {"documents": {"source": source, **given}},
        "output": {"documents": {"value": "${module.documents.documents}"}},
    }
    (folder / "main.tf.json").write_text(json.dumps(root))
    return tofu(
        folder,
        ("init", "-no-color", "-input=false"),
        ("apply", "-no-color", "-input=false", "-auto-approve"),
        ("output", "-no-color", "-json", "documents"),
    )


def tofu(folder: Path, *commands: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run commands in a folder, up to the first that fails; return the last one."""
    for command in commands:
        result = subprocess.run(
            [str(TOFU), *command],
            cwd=folder,
            env={**os.environ, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            break
    return result


def documents(folder: Path, **inputs: Any) -> dict[str, Any]:
    result = render(folder, **inputs)
    assert result.returncode == 0, result.stderr
    return {name: yaml.safe_load(text) for name, text in json.loads(result.stdout).items()}


def test_the_configuration_is_formatted() -> None:
    command = [str(TOFU), "fmt", "-check", "-diff", "-recursive", str(FOLDER)]
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull}

    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (0, "")


def test_each_document_runs_its_steps_in_each_phase(tmp_path: Path) -> None:
    rendered = documents(tmp_path)

    steps = {
        name: {phase["name"]: [step["name"] for step in phase["steps"]] for phase in each["phases"]}
        for name, each in rendered.items()
    }
    assert steps == {
        "gpu": {
            "build": ["check-driver", "configure-containerd"],
            "validate": ["check-driver"],
            "test": ["check-driver"],
        },
        "images": {
            "build": ["pull-images"],
            "validate": ["verify-images"],
            "test": ["verify-images"],
        },
        "models": {
            "build": ["fetch-models"],
            "validate": ["verify-models"],
            "test": ["verify-models"],
        },
    }
    used = {name for phases in steps.values() for each in phases.values() for name in each}
    assert used == {path.stem for path in STEPS.glob("*.sh")}


def test_a_document_has_the_keys_of_the_schema(tmp_path: Path) -> None:
    for name, document in documents(tmp_path).items():
        assert document.keys() == {"name", "description", "schemaVersion", "phases"}, name
        assert document["schemaVersion"] == 1.0
        for phase in document["phases"]:
            assert phase.keys() == {"name", "steps"}
            for step in phase["steps"]:
                keys = {"name", "action", "onFailure", "timeoutSeconds", "inputs"}
                assert step.keys() == keys
                assert (step["action"], step["onFailure"]) == ("ExecuteBash", "Abort")
                assert step["inputs"].keys() == {"commands"}


def test_a_step_is_its_script_with_its_environment(tmp_path: Path) -> None:
    rendered = documents(tmp_path)

    for document in rendered.values():
        for phase in document["phases"]:
            for step in phase["steps"]:
                *exports, script = step["inputs"]["commands"]
                assert script == (STEPS / f"{step['name']}.sh").read_text()
                # Image Builder replaces what is in double braces.
                assert "{{" not in script
                assert all(line.startswith("export ") for line in exports)
    [_, _, test] = rendered["models"]["phases"]
    command = ["bash", "-c", "\n".join(test["steps"][0]["inputs"]["commands"][:-1]) + "\nenv -0"]
    printed = subprocess.run(command, env={}, capture_output=True, text=True, check=True).stdout
    environment = dict(line.split("=", 1) for line in printed.split("\0") if "=" in line)
    assert environment["MODELS"] == (
        f"chat hf://org/repo/m.gguf {'b' * 64}\ncode https://h/c.gguf {'c' * 64}"
    )
    assert environment["DOWNLOAD_IMAGE"] == f"ghcr.io/team/download@{DIGEST}"
    assert environment["CHECKSUMS"] == "no"


def test_the_image_that_downloads_is_pulled_too(tmp_path: Path) -> None:
    [build, *_] = documents(tmp_path)["images"]["phases"]

    assert build["steps"][0]["inputs"]["commands"][0] == (
        f"export IMAGES='{INPUTS['images'][0]} {INPUTS['download_image']}'"
    )
    assert build["steps"][0]["timeoutSeconds"] == 7200


def test_without_models_there_is_no_document_for_them(tmp_path: Path) -> None:
    assert documents(tmp_path, models=[], download_image=None).keys() == {"gpu", "images"}


def model(**fields: str) -> list[dict[str, str]]:
    return [{"namespace": "chat", "url": "https://h/m.gguf", "sha256": "a" * 64, **fields}]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"images": ["registry.example.com/llama:1"]}, "a tag alone may be another image tomorrow"),
        ({"images": [f"llama:1@{DIGEST}"]}, "Each must be REGISTRY/REPOSITORY"),
        ({"images": [f"team/llama:1@{DIGEST}"]}, "Each must be REGISTRY/REPOSITORY"),
        ({"images": [f"a.b/c';id;'@{DIGEST}"]}, "Each must be REGISTRY/REPOSITORY"),
        ({"download_image": None}, "models requires download_image"),
        ({"models": model(url="s3://bucket/m.gguf")}, "url must begin with https://"),
        ({"models": model(url="https://h/m.gguf' x")}, "url must begin with https://"),
        ({"models": model(url="https://h/{{ x }}.gguf")}, "url must begin with https://"),
        ({"models": model(url="https://h/m?token=CANARY")}, "url must have no credentials"),
        ({"models": model(url="https://u:CANARY@h/m.gguf")}, "url must have no credentials"),
        (
            {"models": model(url="https://h/m?a=1&X-Amz-Signature=1")},
            "url must have no credentials",
        ),
        ({"models": model(url="https://h/m-00001-of-00002.gguf")}, "Split models are not"),
        ({"models": model(namespace="../a")}, "name of a Kubernetes namespace"),
        ({"models": model(sha256="abc")}, "64 hexadecimal digits"),
        ({"models_folder": "/a/../etc"}, "Must be an absolute path"),
        ({"min_driver_version": "550"}, "Must be a version such as"),
        ({"pull_timeout_seconds": 1}, "Must be 60 to 43200 seconds"),
        (
            {"images": [f"registry.example.com/{n}:1@{DIGEST}" for n in range(100)]},
            "longer than 16000 characters",
        ),
    ],
)
def test_an_invalid_value_is_rejected(tmp_path: Path, inputs: dict[str, Any], message: str) -> None:
    result = render(tmp_path, **inputs)

    assert result.returncode == 1
    assert message in words(result.stderr)


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def variables(folder: Path, **values: Any) -> subprocess.CompletedProcess[str]:
    """Evaluate the variables of the configuration, without its resources and its provider."""
    shutil.copy(FOLDER / "variables.tf", folder)
    (folder / "values.tfvars.json").write_text(json.dumps(values))
    files = (FOLDER / "terraform.tfvars.example", folder / "values.tfvars.json")
    flags = [f"-var-file={file}" for file in files]
    return tofu(folder, ["init", "-no-color"], ["plan", "-no-color", "-input=false", *flags])


def test_the_example_is_valid(tmp_path: Path) -> None:
    result = variables(tmp_path, schedule="cron(0 3 ? * sun *)", launch_account_ids=["1" * 12])

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "Node"}, "at most 40 lower-case letters"),
        ({"region": "Frankfurt"}, "Must be the name of a region"),
        ({"parent_image": "ssm:/aws/service/eks"}, "Must be the ID of an AMI"),
        ({"image_version": "1.x.x"}, "Must be MAJOR.MINOR.PATCH"),
        ({"additional_component_arns": ["gpu"]}, "the ARN of an Image Builder component"),
        ({"instance_types": ["m5.large"]}, "a family with NVIDIA GPUs"),
        ({"instance_types": []}, "a family with NVIDIA GPUs"),
        ({"volume_size": 8}, "a whole number from 30 to 16384"),
        ({"ecr_repository_arns": ["arn:aws:ecr:eu-central-1:1:repository/*"]}, "without wildcards"),
        ({"launch_account_ids": ["all"]}, "the ID of an account, 12 digits"),
        ({"schedule": "cron(0 0 * * *)"}, "a cron expression with six fields"),
    ],
)
def test_an_invalid_variable_is_rejected(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    result = variables(tmp_path, **values)

    assert result.returncode == 1
    assert message in words(result.stderr)
