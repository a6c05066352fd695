"""The condition ModelReady of models that are not downloaded: on a claim, or in the image."""

import json

from fake_cluster import FakeCluster
from operator_harness import (
    Operator,
    apply_server,
    condition,
    deploy,
    pod_of,
    roll_out,
    server_status,
    set_pod_status,
    update_spec,
)
from pod_statuses import RUNNING, download, download_error, unschedulable
from slotkeeper.kube.kinds import DEPLOYMENTS

ON_CLAIM = {"url": "pvc://models/llama/model.gguf"}
IN_IMAGE = {"url": "image:///weights/model.gguf"}


async def test_a_model_on_a_claim_is_ready_once_it_is_verified(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, model=ON_CLAIM)
    found = condition(cluster, "ModelReady")

    assert (found["status"], found["reason"]) == ("True", "Provided")
    assert found["message"] == "model found on its claim"
    assert server_status(cluster)["model"]["source"] == ON_CLAIM["url"]

    set_pod_status(cluster, download(state=RUNNING))
    await operator.reconcile()
    assert condition(cluster, "ModelReady")["message"] == "verifying the model"


async def test_a_model_on_a_missing_claim_is_not_downloaded(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, model=ON_CLAIM)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    missing = 'persistentvolumeclaim "models" not found'
    set_pod_status(cluster, unschedulable(missing))

    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert found["message"] == "no replica has started to find the model on its claim"
    found = condition(cluster, "Ready")
    assert found["reason"] == "Unschedulable"
    assert missing in found["message"]


async def test_a_missing_file_on_a_claim_is_reported(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, model=ON_CLAIM)
    message = "pvc://models/llama/model.gguf does not exist"
    set_pod_status(cluster, download(state=download_error("ModelNotFound", message)))

    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert (found["reason"], found["message"]) == ("ModelNotFound", message)


async def test_a_model_in_the_image_is_ready(cluster: FakeCluster, operator: Operator) -> None:
    apply_server(cluster, model=IN_IMAGE)
    await operator.reconcile()

    found = condition(cluster, "ModelReady")
    assert (found["status"], found["reason"]) == ("True", "Provided")
    assert found["message"] == "the model is in llama-server's image"
    assert server_status(cluster)["model"] == {
        "source": "image:///weights/model.gguf",
        "file": "model.gguf",
        "display": "model.gguf",
    }


async def test_a_model_in_the_image_is_loaded_as_soon_as_its_container_runs(
    cluster: FakeCluster, operator: Operator
) -> None:
    apply_server(cluster, model=IN_IMAGE)
    await operator.reconcile()
    roll_out(cluster, ready=False)
    llama_server = {"name": "llama-server", "image": "a", "ready": False, "state": RUNNING}
    set_pod_status(cluster, {"containerStatuses": [llama_server]})

    await operator.reconcile()

    assert condition(cluster, "ReplicasReady")["reason"] == "LoadingModel"


async def test_a_report_of_an_earlier_download_is_not_that_of_the_image(
    cluster: FakeCluster, operator: Operator
) -> None:
    await deploy(cluster, operator, model=ON_CLAIM)
    pod = pod_of(cluster.by_name(DEPLOYMENTS)["chat-replicas"])
    terminated = pod["status"]["initContainerStatuses"][0]["state"]["terminated"]
    terminated["message"] = json.dumps({"sizeBytes": 7})
    cluster.put(pod)
    await operator.reconcile()
    assert server_status(cluster)["model"]["sizeBytes"] == 7

    update_spec(cluster, model=IN_IMAGE)
    await operator.reconcile()

    assert "sizeBytes" not in server_status(cluster)["model"]
