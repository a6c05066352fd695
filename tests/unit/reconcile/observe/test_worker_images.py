"""A leader that fails beside workers of another image: the message says so."""

import pytest

from pod_statuses import CRASH_LOOP, LLAMA_SERVER_IMAGE, RUNNING, terminated
from slotkeeper.api.gpu import Gpu
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.observe.pod_problems import pods_problem

OLD = f"{LLAMA_SERVER_IMAGE}@sha256:{'0' * 64}"
NEW = f"{LLAMA_SERVER_IMAGE}@sha256:{'1' * 64}"
REFUSED = terminated("0.00.010.000 E RPC server version mismatch: 7.0.0")


def pod(name: str, container: str, index: int, image_id: str, **status: object) -> Manifest:
    found = {"name": container, "image": LLAMA_SERVER_IMAGE, "imageID": image_id, **status}
    labels = {"apps.kubernetes.io/pod-index": str(index)}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {"containerStatuses": [found]},
    }


def leader(image_id: str, index: int = 0) -> Manifest:
    state = {"ready": False, "state": CRASH_LOOP, "lastState": REFUSED}
    return pod(f"chat-replicas-{index}", "llama-server", index, image_id, **state)


def worker(image_id: str, index: int = 0) -> Manifest:
    state = {"ready": True, "state": RUNNING}
    return pod(f"chat-worker-0-{index}", "rpc-server", index, image_id, **state)


def message(*pods: Manifest) -> str:
    problem = pods_problem(pods, Gpu(), None, "")
    assert problem is not None
    assert problem.reason is Reason.CRASH_LOOP_BACK_OFF
    return problem.message


def test_a_leader_that_fails_beside_another_build_names_the_pods_and_the_remedy() -> None:
    text = message(worker(OLD), leader(NEW))

    assert "RPC server version mismatch" in text
    assert (
        f"pods chat-worker-0-0 and chat-replicas-0 run different images by the name "
        f"{LLAMA_SERVER_IMAGE}: name it by its digest" in text
    )


@pytest.mark.parametrize(
    "worker_image",
    [
        pytest.param(NEW, id="the same"),
        pytest.param(NEW.partition("@")[2], id="by its digest alone"),
        pytest.param("", id="not started"),
    ],
)
def test_without_another_build_the_message_is_that_of_the_crash(worker_image: str) -> None:
    assert "different images" not in message(worker(worker_image), leader(NEW))


def test_workers_of_other_groups_may_still_have_the_old_image() -> None:
    assert "different images" not in message(worker(OLD, index=1), worker(NEW), leader(NEW))
