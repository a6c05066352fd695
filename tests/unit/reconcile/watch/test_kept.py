"""Of a ReplicaSet only what shows the creation of its pods is kept."""

import json
from typing import Any

from slotkeeper.kube.cluster import Manifest
from slotkeeper.kube.kinds import REPLICA_SETS
from slotkeeper.reconcile.watch.kept import TEMPLATE_DIGEST, kept, template_digest

TEMPLATE: Manifest = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [{"name": "c", "image": "i", "command": ["x" * 100_000]}]},
}


def replica_set(template: Manifest = TEMPLATE, **status: Any) -> Manifest:
    labels = {**template["metadata"]["labels"], "pod-template-hash": "5d7f"}
    own = {**template, "metadata": {**template["metadata"], "labels": labels}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "a-5d7f", "namespace": "default", "uid": "u"},
        "spec": {"replicas": 2, "selector": {}, "template": own},
        "status": status,
    }


def test_a_replica_set_is_kept_without_its_template_and_other_conditions() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    conditions = [failure, {"type": "Other"}]
    found = kept(REPLICA_SETS, replica_set(replicas=1, readyReplicas=1, conditions=conditions))

    assert found.manifest["spec"] == {"replicas": 2, TEMPLATE_DIGEST: template_digest(TEMPLATE)}
    assert found.manifest["status"] == {"replicas": 1, "conditions": [failure]}
    assert len(found.body) < 500


def test_replicas_that_become_ready_change_nothing_that_is_kept() -> None:
    before, after = (
        kept(REPLICA_SETS, replica_set(replicas=2, readyReplicas=ready)) for ready in (0, 2)
    )

    assert before == after


def test_templates_differ_by_their_contents_and_not_by_the_order_of_keys() -> None:
    reordered = json.loads(json.dumps(TEMPLATE, sort_keys=True))
    changed = {**TEMPLATE, "spec": {"containers": []}}

    assert template_digest(reordered) == template_digest(TEMPLATE)
    assert template_digest(changed) != template_digest(TEMPLATE)
    assert template_digest({}) != template_digest(TEMPLATE)
