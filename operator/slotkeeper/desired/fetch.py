"""The init container of a replica: it downloads and checks the model."""

from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import names
from slotkeeper.desired.images import Images
from slotkeeper.desired.metadata import Manifest, container_security_context

MODELS_FOLDER = "/models"
MODEL_PATH = f"{MODELS_FOLDER}/model.gguf"


def container(server: LlamaServer, images: Images) -> Manifest:
    """Ends well when the model is downloaded and checked, or else says why in its last words."""
    model = server.spec.model
    sha256 = ["--sha256", model.sha256.lower()] if model.sha256 else []
    return {
        "name": names.MODEL_CONTAINER,
        "image": images.model,
        "imagePullPolicy": images.pull_policy,
        "command": ["slotkeeper", "fetch", "--url", model.url, *sha256, "--to", MODEL_PATH],
        # Not a pod's worth of cost: a pod asks for the greater of its init container and the rest.
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": container_security_context(),
        # It writes there itself why a download failed, for the server's conditions.
        "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": "models", "mountPath": MODELS_FOLDER}],
    }
