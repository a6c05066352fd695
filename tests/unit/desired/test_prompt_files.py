"""What makes a file of a prompt usable, and the containers that keep the files."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamaservers import DOWNLOADS, IMAGES, UID, server
from shell_program import program
from slotkeeper.desired import prompt_files, prompt_volume, replicas
from slotkeeper.desired.download_settings import NO_SETTINGS
from slotkeeper.desired.llama_container import DRAIN_AND_SAVE_SCRIPT
from slotkeeper.desired.metadata import Manifest

ON_CLAIM = {"claimName": "prompts"}
URL = "https://models.example.com/model.gguf"


def pod(**spec: Any) -> Manifest:
    deployment = replicas.deployment(server(**spec), 1, IMAGES, DOWNLOADS)
    found: Manifest = deployment["spec"]["template"]["spec"]
    return found


def container(found: Manifest, name: str) -> Manifest:
    containers = [*found.get("initContainers", []), *found["containers"]]
    [one] = [each for each in containers if each["name"] == name]
    return dict(one)


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def identity(**spec: Any) -> str:
    return prompt_files.identity(server(promptCache=ON_CLAIM, **spec), IMAGES)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"model": {"url": f"{URL}?v=2"}}, id="model"),
        pytest.param({"model": {"url": URL, "sha256": "a" * 64}}, id="checksum"),
        pytest.param({"model": {"url": URL, "mmproj": {"url": URL}}}, id="projector"),
        pytest.param({"image": "example.com/llama:2"}, id="build"),
        pytest.param({"contextPerSlot": 8192}, id="context"),
        pytest.param({"kvCacheType": "q8_0"}, id="type of the KV cache"),
        pytest.param({"flashAttention": "disabled"}, id="flash attention"),
        pytest.param({"chatTemplate": "chatml"}, id="chat template"),
        pytest.param({"chatTemplateKwargs": {"effort": "low"}}, id="variables of the template"),
        pytest.param({"reasoning": {"enabled": False}}, id="reasoning"),
        pytest.param({"extraArgs": ["--swa-full"]}, id="cache of sliding windows"),
        pytest.param({"extraArgs": ["--rope-scale", "2"]}, id="positions"),
        pytest.param(
            {"extraArgs": ["--log-colors", "--swa-full"]}, id="behind a flag without value"
        ),
        pytest.param({"podTemplate": {"env": [{"name": "GGML_A", "value": "1"}]}}, id="variable"),
    ],
)
def test_what_changes_the_state_of_a_slot_makes_old_files_unusable(changed: dict[str, Any]) -> None:
    assert identity(**changed) != identity()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"slots": 16}, id="slots"),
        pytest.param({"replicas": 3}, id="replicas"),
        pytest.param({"resources": {"limits": {"cpu": 8, "memory": "64Gi"}}}, id="resources"),
        pytest.param({"model": {"url": URL, "alias": "gemma"}}, id="alias"),
        pytest.param({"model": {"url": URL, "cache": {"claimName": "models"}}}, id="model's cache"),
        pytest.param({"listenAddress": "0.0.0.0"}, id="address"),
        pytest.param({"extraArgs": ["--threads", "4", "--mlock", "-lv", "3"]}, id="threads"),
        pytest.param({"extraArgs": ["--timeout", "30"]}, id="timeout"),
        pytest.param({"speculative": {"type": "ngram-mod", "maxTokens": 8}}, id="guessed tokens"),
        pytest.param({"contextCheckpoints": 8}, id="checkpoints, which are not in files"),
        pytest.param({"sampling": {"temperature": 0.5, "seed": 7, "minP": 0}}, id="sampling"),
        pytest.param({"balancer": {"maxQueuedRequests": 3}}, id="balancer"),
        pytest.param({"podTemplate": {"labels": {"team": "search"}}}, id="labels"),
    ],
)
def test_other_fields_leave_old_files_usable(changed: dict[str, Any]) -> None:
    assert identity(**changed) == identity()


def test_the_identity_is_a_name_that_the_agent_accepts() -> None:
    assert len(identity()) == 16
    assert set(identity()) <= set("0123456789abcdef")


def test_another_image_of_the_chart_makes_old_files_unusable() -> None:
    cached = server(promptCache=ON_CLAIM)
    newer = replace(IMAGES, by_vendor={"nvidia": "slotkeeper/llama-server:0.2.0-cuda"})

    assert prompt_files.identity(cached, newer) != prompt_files.identity(cached, IMAGES)


def test_llama_server_saves_where_the_agent_looks() -> None:
    found = pod(promptCache=ON_CLAIM)
    agent, llama = container(found, "prompt-files"), container(found, "llama-server")

    folder = value(agent["command"], "--folder")
    saved = value(llama["args"], "--slot-save-path")
    assert saved == f"{folder}/{value(agent['command'], '--identity')}/"
    assert agent["volumeMounts"][0] in llama["volumeMounts"]


def test_the_folder_is_created_before_anything_mounts_it() -> None:
    found = pod(promptCache=ON_CLAIM)
    prepare, agent = (container(found, name) for name in ("prepare-prompt-files", "prompt-files"))

    names = [each["name"] for each in found["initContainers"]]
    assert names == ["download", "prepare-prompt-files", "prompt-files"]
    [whole], [own, _] = prepare["volumeMounts"], agent["volumeMounts"]
    assert value(prepare["command"], "--folder") == f"{whole['mountPath']}/{own['subPath']}"
    assert "--prepare" in prepare["command"]
    assert "restartPolicy" not in prepare


def test_the_folder_on_a_claim_is_created_by_the_user_of_the_pod(tmp_path: Path) -> None:
    prepare = container(pod(promptCache=ON_CLAIM), "prepare-prompt-files")
    on_node = container(pod(promptCache={"node": True}), "prepare-prompt-files")
    assert on_node["command"][:2] == ["slotkeeper", "prompt-files"]

    program(tmp_path / "slotkeeper", 'echo "$@"')
    command = [each.replace("/prompt-files/", f"{tmp_path}/") for each in prepare["command"]]
    for _ in range(2):
        run = subprocess.run(
            command,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            check=True,
            timeout=10,
            capture_output=True,
            text=True,
        )

    folder = tmp_path / UID
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run.stdout.startswith(f"prompt-files --folder {folder} --identity ")


def test_the_agent_outlives_llama_server() -> None:
    agent = container(pod(promptCache=ON_CLAIM), "prompt-files")

    assert agent["restartPolicy"] == "Always"
    assert value(agent["command"], "--listen") == "[::]:9094"
    # It is ready as soon as it runs: without it a replica still serves.
    assert not agent.keys() & {"readinessProbe", "startupProbe", "livenessProbe"}


@pytest.mark.parametrize(
    ("model", "paths"),
    [
        ({"url": URL}, ["/models/model.gguf"]),
        (
            {"url": "https://models.example.com/m-00001-of-00002.gguf"},
            ["/models/model-00001-of-00002.gguf", "/models/model-00002-of-00002.gguf"],
        ),
        (
            {"url": "pvc://big/a.gguf", "mmproj": {"url": URL}},
            ["/model-claims/big/a.gguf", "/models/mmproj.gguf"],
        ),
        ({"url": "image:///a.gguf"}, []),
    ],
)
def test_the_agent_reads_the_files_of_the_model(model: dict[str, Any], paths: list[str]) -> None:
    agent = container(pod(model=model, promptCache=ON_CLAIM), "prompt-files")

    command = agent["command"]
    assert [value(command[at:], "--model") for at in _places(command, "--model")] == paths
    mounts = {each["mountPath"] for each in agent["volumeMounts"] if each.get("readOnly")}
    assert all(any(path.startswith(f"{mount}/") for mount in mounts) for path in paths)


def _places(command: list[str], flag: str) -> list[int]:
    return [at for at, each in enumerate(command) if each == flag]


def test_the_memory_of_the_agent_has_room_for_a_full_slot() -> None:
    limit = container(pod(promptCache=ON_CLAIM), "prompt-files")["resources"]["limits"]["memory"]
    large = pod(promptCache=ON_CLAIM, contextPerSlot=32768, kvCacheType="f32")

    assert limit == f"{128 + 512}Mi"
    assert container(large, "prompt-files")["resources"]["limits"]["memory"] == f"{128 + 8192}Mi"


@pytest.mark.parametrize(
    ("place", "source", "percent"),
    [
        (ON_CLAIM, {"persistentVolumeClaim": {"claimName": "prompts"}}, "5"),
        ({"emptyDir": True}, {"emptyDir": {}}, "15"),
        (
            {"node": True},
            {
                "hostPath": {
                    "path": f"/var/lib/slotkeeper/prompts/default/{UID}",
                    "type": "Directory",
                }
            },
            "15",
        ),
    ],
)
def test_the_files_are_where_the_server_says(
    place: dict[str, Any], source: Manifest, percent: str
) -> None:
    found = pod(promptCache=place)

    assert {"name": "prompt-files", **source} in found["volumes"]
    command = container(found, "prompt-files")["command"]
    assert value(command, "--min-free-percent") == percent


def test_a_claim_has_a_folder_for_each_server_of_any_name() -> None:
    mounts = [
        prompt_volume.mount(server(promptCache=place)) for place in (ON_CLAIM, {"node": True})
    ]

    assert mounts[0]["subPath"] == UID
    assert "subPath" not in mounts[1]


def test_the_node_must_be_allowed() -> None:
    on_node = server(promptCache={"node": True})

    assert prompt_volume.has_storage(on_node, DOWNLOADS)
    assert not prompt_volume.has_storage(on_node, NO_SETTINGS)
    assert prompt_volume.has_storage(server(promptCache=ON_CLAIM), NO_SETTINGS)
    assert prompt_volume.has_storage(server(), NO_SETTINGS)


def test_a_model_in_the_image_needs_no_download() -> None:
    found = pod(model={"url": "image:///a.gguf"}, promptCache={"emptyDir": True})

    names = [each["name"] for each in found["initContainers"]]
    assert names == ["prepare-prompt-files", "prompt-files"]


@pytest.mark.parametrize("place", ["emptyDir", "node"])
def test_files_in_an_empty_dir_count_as_storage_of_the_pod(place: str) -> None:
    found = pod(
        promptCache={place: True, "sizeLimit": "5Gi"},
        resources={"limits": {"ephemeral-storage": "1Gi"}},
    )

    limits = container(found, "prompt-files")["resources"]["limits"]
    assert limits.get("ephemeral-storage") == ("5Gi" if place == "emptyDir" else None)


def test_the_prompts_are_saved_within_the_grace_period() -> None:
    update = {"drainTimeoutSeconds": 100}

    assert pod(update=update)["terminationGracePeriodSeconds"] == 100
    assert pod(update=update, promptCache=ON_CLAIM)["terminationGracePeriodSeconds"] == 120


def drained(folder: Path, slots: str, status: int) -> list[str]:
    """Run the script with this response of /slots; return the URLs that it requested."""
    script = f'for url; do :; done\necho "$url" >>calls\nprintf "%s" \'{slots}\'\n'
    program(folder / "curl", f"{script}exit {status}")
    program(folder / "sleep", "")
    run = subprocess.run(
        ["/bin/sh", "-c", DRAIN_AND_SAVE_SCRIPT],
        cwd=folder,
        env={"PATH": str(folder)},
        check=False,
        timeout=10,
        stdout=subprocess.DEVNULL,
    )
    assert run.returncode == 0
    return (folder / "calls").read_text().splitlines()


SLOTS = "http://127.0.0.1:8080/slots"
SAVED = "http://127.0.0.1:9094/wait-done?seconds=15"


def test_prompts_are_saved_once_no_slot_is_busy(tmp_path: Path) -> None:
    assert drained(tmp_path, '[{"is_processing":false}]', 0) == [SLOTS, SAVED, SLOTS]


def test_a_failed_save_does_not_fail_the_hook(tmp_path: Path) -> None:
    assert drained(tmp_path, "", 7) == [SLOTS, SAVED, SLOTS]
