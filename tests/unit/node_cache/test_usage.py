import pytest

from cached_models import NODE_PATH, name_of, pod
from llamaservers import DOWNLOADS, IMAGES, server
from slotkeeper.desired import prefetch
from slotkeeper.kube.cluster import UNREADABLE
from slotkeeper.node_cache.policy import Entry
from slotkeeper.node_cache.usage import required_folder, usage


def entry(model: str, namespace: str = "team") -> Entry:
    return Entry(namespace, name_of(model), (), 0)


def test_a_model_in_an_argument_of_a_pod_is_in_use() -> None:
    found = usage([pod("a", "lora")], NODE_PATH)

    assert found.includes(entry("a"))
    assert found.includes(entry("lora"))
    assert not found.includes(entry("b"))
    assert not found.includes(entry("a", "other"))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_uses_nothing(phase: str) -> None:
    assert not usage([pod("a", phase=phase)], NODE_PATH).includes(entry("a"))


def test_a_prefetch_uses_its_model_until_it_has_ended() -> None:
    model = {"url": "https://example.com/a", "cache": {"node": True}, "prefetch": True}
    of = server("chat", model=model)
    template = prefetch.job(of, IMAGES, DOWNLOADS)["spec"]["template"]
    metadata = {"namespace": of.namespace, "name": "chat-prefetch"}
    running, ended = (
        {"metadata": metadata, "spec": template["spec"], "status": {"phase": phase}}
        for phase in ("Running", "Succeeded")
    )
    model_entry = entry("https://example.com/a", of.namespace)

    assert usage([running], NODE_PATH).includes(model_entry)
    assert required_folder(running, NODE_PATH) == of.namespace
    # Else the models of all servers at zero would be in use for ever, since their Jobs stay.
    assert not usage([ended], NODE_PATH).includes(model_entry)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown"])
def test_any_other_pod_does(phase: str) -> None:
    assert usage([pod("a", phase=phase)], NODE_PATH).includes(entry("a"))


def test_a_pod_without_a_status_does() -> None:
    bound = pod("a")
    del bound["status"]

    assert usage([bound], NODE_PATH).includes(entry("a"))


@pytest.mark.parametrize(
    "path", [f"{NODE_PATH}/", f"/{NODE_PATH}", "/var//lib/slotkeeper/./models"]
)
def test_another_spelling_of_the_path_is_the_same_folder(path: str) -> None:
    assert usage([pod("a", path=path)], NODE_PATH).includes(entry("a"))


def test_a_pod_that_mounts_the_folder_of_another_namespace_uses_that() -> None:
    found = usage([pod("a", namespace="intruder", folder="team")], NODE_PATH)

    assert found.includes(entry("a"))
    assert not found.includes(entry("a", "intruder"))


def test_a_pod_that_names_no_file_may_use_all_of_the_folder() -> None:
    found = usage([pod()], NODE_PATH)

    assert found.includes(entry("a"))
    assert not found.includes(entry("a", "other"))


def test_a_pod_without_the_folder_uses_nothing() -> None:
    other = pod("a", path="/elsewhere")

    assert not usage([other], NODE_PATH).includes(entry("a"))
    assert required_folder(other, NODE_PATH) is None


def test_a_pod_that_cannot_be_read_may_use_all_of_the_folder() -> None:
    outline = {"metadata": {"namespace": "team", "name": "huge"}, UNREADABLE: "too large"}

    assert usage([outline], NODE_PATH).includes(entry("a"))
    assert required_folder(outline, NODE_PATH) is None


def test_only_a_pod_of_the_namespace_gets_its_folder_created() -> None:
    assert required_folder(pod("a"), NODE_PATH) == "team"
    assert required_folder(pod("a", namespace="intruder", folder="team"), NODE_PATH) is None
    assert required_folder(pod("a", namespace="..", folder=".."), NODE_PATH) is None
