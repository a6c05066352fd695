"""What must be equal for a replica to use a prompt file."""

import hashlib
import json

from slotkeeper.llamacpp.model_info import parse_model_info


def compatibility(identity: str, models: bytes, props: bytes, context: int) -> str | None:
    """Return a hash of all that decides the content of a file; None if a part is not known.

    `identity`: of the model and of llama-server's flags, as the agent has it. `models` and `props`:
    bodies of /v1/models and /props, which tell what is really running. `context`: tokens of a slot.
    """
    info = parse_model_info(models, props)
    meta = info.model.get("meta")
    parameters = meta.get("n_params") if isinstance(meta, dict) else None
    size = meta.get("size") if isinstance(meta, dict) else None
    parts = [identity, info.props.get("build_info"), parameters, size, context]
    if not all(isinstance(part, str | int) and part for part in parts):
        return None
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
