from slotkeeper.api.conditions import Condition
from slotkeeper.api.status import LlamaServerStatus, ModelStatus, SlotsStatus


def test_a_status_is_a_tree_without_unknown_values() -> None:
    status = LlamaServerStatus(
        observed_generation=2,
        conditions=[
            Condition(
                type="Ready",
                status="True",
                reason="Serving",
                message="",
                last_transition_time="2026-11-22T10:00:00Z",
                observed_generation=2,
            )
        ],
        replicas=2,
        ready_replicas=1,
        selector="a=b",
        slots=SlotsStatus(total=4, busy=3),
        queued=5,
        url="http://chat.default.svc",
        model=ModelStatus(source="https://a/model.gguf", file="model.gguf", display="50%"),
    )

    assert status.tree() == {
        "observedGeneration": 2,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Serving",
                "message": "",
                "lastTransitionTime": "2026-11-22T10:00:00Z",
                "observedGeneration": 2,
            }
        ],
        "replicas": 2,
        "readyReplicas": 1,
        "replicasReady": "1/2",
        "selector": "a=b",
        "slots": {"total": 4, "busy": 3},
        "slotsInUse": "3/4",
        "queued": 5,
        "url": "http://chat.default.svc",
        "model": {"source": "https://a/model.gguf", "file": "model.gguf", "display": "50%"},
    }
