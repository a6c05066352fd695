"""Jobs with one pod that downloads files of a model, or reads their headers."""

import hashlib
import json

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.metadata import Manifest, metadata, pod_basics, pull_secrets
from slotkeeper.desired.names import Component

EXIT_FAILURE = 1
"""Exit code of a download that must not be retried."""


def download_job(
    server: LlamaServer, name: str, component: Component, pod: Manifest, **fields: int
) -> Manifest:
    """Return a Job with these fields of a pod, and these of a Job. Its spec is immutable: the
    annotation with its hash shows a change."""
    spec = {
        "completions": 1,
        "parallelism": 1,
        **fields,
        "podFailurePolicy": {"rules": _failure_rules()},
        "template": _template(server, component, pod),
    }
    found = metadata(server, name, component)
    found["annotations"] = {names.TEMPLATE_HASH_ANNOTATION: hash_of(spec)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": found, "spec": spec}


def _failure_rules() -> list[Manifest]:
    return [
        # Evicted, preempted, or on a node that is drained: no failure of the download.
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": names.DOWNLOAD_CONTAINER,
                "operator": "In",
                "values": [EXIT_FAILURE],
            },
        },
    ]


def _template(server: LlamaServer, component: Component, pod: Manifest) -> Manifest:
    own = server.spec.pod_template
    annotations = {"annotations": dict(own.annotations)} if own.annotations else {}
    return {
        "metadata": {
            "labels": {**own.labels, **names.labels(server, component)},
            **annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            **pod_basics(),
            # Each try is a pod of its own, whose exit code decides whether there is another one.
            "restartPolicy": "Never",
            **pull_secrets(server),
            **pod,
        },
    }


def hash_of(tree: object) -> str:
    """Return eight hex digits, the same for equal trees of JSON."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
