"""The Job that removes a server's folder of prompts from a claim, once the server is deleted.

The folder is not an object that the garbage collector deletes, and nothing of the server is left
to remove it. So the Job is created with the server, suspended, and has no owner: it outlives the
server, and shows the operator at any later time, also after a restart, that there is a folder to
remove. The operator resumes it when neither the server nor a pod of it exists, or deletes it if the
claim does not exist either. A finalizer would do the same, but would keep servers and namespaces
from being deleted without the operator.
"""

import hashlib
import json

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names, prompt_volume, resources
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import (
    Manifest,
    container_security_context,
    metadata,
    pod_basics,
    pull_secrets,
)
from slotkeeper.desired.names import Component
from slotkeeper.desired.placement import prefetch_placement

TRIES = 7
"""Pods that may fail, with pauses of eleven minutes together."""

DEADLINE_SECONDS = 3600
"""From when it is resumed: if the claim is deleted then, its pod never starts."""

KEPT_SECONDS = 3600
"""How long it can be looked at after it has ended."""


def is_used(server: LlamaServer) -> bool:
    """Whether the server has a folder on a claim."""
    cache = server.spec.prompt_cache
    return cache is not None and cache.claim_name is not None


def job(server: LlamaServer, images: Images) -> Manifest:
    """Return the suspended Job of a server with a folder on a claim.

    Its template is immutable, and thus part of its name.
    """
    spec = {
        "suspend": True,
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": TRIES - 1,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": _template(server, images),
    }
    text = json.dumps([server.uid, spec], sort_keys=True, separators=(",", ":"))
    content = hashlib.sha256(text.encode()).hexdigest()[:8]
    found = metadata(server, names.prompt_cleanup(server, content), Component.PROMPTS)
    found["labels"][names.PROMPT_FOLDER_LABEL] = server.uid
    del found["ownerReferences"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": found, "spec": spec}


def _template(server: LlamaServer, images: Images) -> Manifest:
    return {
        "metadata": {"labels": names.labels(server, Component.PROMPTS)},
        "spec": {
            "automountServiceAccountToken": False,
            **pod_basics(),
            "restartPolicy": "Never",
            **pull_secrets(server),
            # Where replicas may go, so that it reaches the volume.
            **prefetch_placement(server),
            "containers": [
                {
                    "name": names.PROMPT_CLEANUP_CONTAINER,
                    "image": images.download,
                    "imagePullPolicy": images.pull_policy,
                    "command": ["rm", "-rf", "--", prompt_volume.created_folder(server)],
                    "resources": resources.of_sidecar(resources.SMALL_LIMIT_MIB),
                    "securityContext": container_security_context(),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [prompt_volume.whole_mount()],
                }
            ],
            "volumes": prompt_volume.claims(server),
        },
    }
