"""The folders of prompts on a node: one for each server, until it is deleted."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from slotkeeper.kube.cluster import UNREADABLE, Kind, Listing, Manifest, Unreachable
from slotkeeper.node_cache.metrics import Metrics
from slotkeeper.node_cache.prompts import PromptFolders, PromptsRoot, required
from slotkeeper.node_folder import Limits

PATH = "/var/lib/slotkeeper/prompts"
UID = "6f1e0c1c-5a0e-4b5e-9a5c-0d2f6c1a7b3e"


class FakeServers:
    """The servers of the API server, by namespace."""

    def __init__(self, **uids: str) -> None:
        self.uids = uids
        self.lists: list[str | None] = []
        self.error: Exception | None = None

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Listing:
        assert (kind.plural, kind.metadata_only, labels) == ("llamaservers", True, None)
        self.lists.append(namespace)
        if self.error:
            raise self.error
        items = [
            {"metadata": {"namespace": each, "uid": uid, "name": "chat"}}
            for each, uid in self.uids.items()
            if namespace in {None, each}
        ]
        return Listing(items, "1")


class Harness:
    """The folders of a node whose API server has these servers, by namespace."""

    def __init__(self, root: Path, opened: PromptsRoot, *namespaces: str, **uids: str) -> None:
        self.root = root
        self.servers = FakeServers(**uids)
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry, Limits(1, 0))
        self.prompts = PromptFolders(opened, self.servers, PATH, namespaces or [None], metrics)

    def write(self, namespace: str, uid: str) -> Path:
        file = self.root / namespace / uid / "7d216e747caf5ac7" / ("a" * 32)
        file.parent.mkdir(parents=True)
        file.write_bytes(b"secret")
        return file

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"slotkeeper_node_cache_{name}")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[PromptsRoot]:
    with PromptsRoot(tmp_path) as root:
        yield root


def pod(path: str, namespace: str = "team") -> Manifest:
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "prompt-files", "hostPath": {"path": path}},
    ]
    return {"metadata": {"namespace": namespace, "name": "p"}, "spec": {"volumes": volumes}}


async def test_the_folder_of_a_pod_is_created_for_its_user_only(
    tmp_path: Path, opened: PromptsRoot
) -> None:
    harness = Harness(tmp_path, opened)

    for _ in range(2):
        await harness.prompts.create_for([pod(f"{PATH}/team/{UID}"), pod("/data")])

    folder = tmp_path / "team" / UID
    assert (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert opened.folders() == [("team", UID)]


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        f"{PATH}/team",
        f"{PATH}/others/{UID}",
        f"{PATH}/team/..",
        f"{PATH}/team/../others/{UID}",
        f"{PATH}/team/{UID}/deep",
        f"{PATH}/team/.hidden",
    ],
)
def test_a_pod_gets_only_a_folder_of_its_namespace(path: str) -> None:
    assert required(pod(path), PATH) == []


def test_an_unreadable_pod_gets_none() -> None:
    assert required({**pod(f"{PATH}/team/{UID}"), UNREADABLE: "too large"}, PATH) == []


async def test_a_folder_that_cannot_be_created_is_an_error_that_is_counted(
    tmp_path: Path, opened: PromptsRoot
) -> None:
    (tmp_path / "team").write_text("")
    harness = Harness(tmp_path, opened)

    await harness.prompts.create_for([pod(f"{PATH}/team/{UID}")])

    assert harness.metric("errors_total") == 1


async def test_the_prompts_of_a_deleted_server_are_removed(
    tmp_path: Path, opened: PromptsRoot
) -> None:
    harness = Harness(tmp_path, opened, team=UID)
    kept = harness.write("team", UID)
    # One of the same name before, one with the uid of a server of another namespace.
    removed = [harness.write("team", "0000-1"), harness.write("others", UID)]

    await harness.prompts.sweep()

    assert kept.exists()
    assert not any(file.parent.parent.exists() for file in removed)
    assert harness.metric("removed_prompt_folders_total") == 2
    assert harness.metric("prompt_folders") == 3


async def test_a_file_in_place_of_a_folder_is_removed_too(
    tmp_path: Path, opened: PromptsRoot
) -> None:
    harness = Harness(tmp_path, opened)
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / UID).write_bytes(b"")

    await harness.prompts.sweep()

    assert opened.folders() == []


async def test_without_folders_no_server_is_listed(tmp_path: Path, opened: PromptsRoot) -> None:
    harness = Harness(tmp_path, opened)
    (tmp_path / "team").mkdir()

    await harness.prompts.sweep()

    assert harness.servers.lists == []


async def test_nothing_is_removed_while_servers_cannot_be_listed(
    tmp_path: Path, opened: PromptsRoot
) -> None:
    harness = Harness(tmp_path, opened)
    file = harness.write("team", UID)
    harness.servers.error = Unreachable(0, "", "connection refused")

    with pytest.raises(Unreachable):
        await harness.prompts.sweep()

    assert file.exists()


async def test_of_other_namespaces_nothing_is_known_and_nothing_removed(
    tmp_path: Path, opened: PromptsRoot
) -> None:
    harness = Harness(tmp_path, opened, "team")
    file, other = harness.write("team", UID), harness.write("others", UID)

    await harness.prompts.sweep()

    assert not file.exists()
    assert other.exists()
    assert harness.servers.lists == ["team"]


async def test_no_link_is_followed(tmp_path: Path, opened: PromptsRoot) -> None:
    root, outside = tmp_path, tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / UID).mkdir()
    (outside / UID / "file").write_text("")
    (root / "linked").symlink_to(outside)
    (root / "team").mkdir()
    (root / "team" / "0000-2").symlink_to(outside)
    (root / "team" / "0000-1").mkdir()
    (root / "team" / "0000-1" / "link").symlink_to(outside / UID)
    harness = Harness(root, opened)

    await harness.prompts.sweep()

    assert (outside / UID / "file").exists()
    assert not (root / "team" / "0000-1").exists()


async def test_a_folder_that_cannot_be_removed_is_tried_again(
    tmp_path: Path, opened: PromptsRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path, opened)
    file = harness.write("team", UID)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(39, "Directory not empty")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fail)
        await harness.prompts.sweep()
    assert (file.exists(), harness.metric("errors_total")) == (True, 1)

    await harness.prompts.sweep()
    assert not file.exists()
