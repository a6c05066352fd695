"""Responses of the gateway's own: its models and its health."""

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from slotkeeper.api.model_state import ModelState
from slotkeeper.edge.routes import MODEL_PATH
from slotkeeper.gateway.catalog import Catalog
from slotkeeper.gateway.model_entries import ModelEntries
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.targets import Named, Weighted
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Response, json_response

Json = dict[str, object]

# In the words of llama-server's router.
_STATUS: dict[ModelState, Json] = {
    "Ready": {"value": "loaded"},
    "Waking": {"value": "loading"},
    "AtZero": {"value": "unloaded"},
    "Failed": {"value": "unloaded", "failed": True},
}


def models(
    catalog: Catalog, entries: ModelEntries, pause: Callable[[str], float], key: str | None
) -> Response:
    """Return OpenAI's list of the models and aliases that an API key may use.

    `pause` returns for how long an external backend gets no requests; 0: it does.
    """
    names = catalog.names(key)
    listed: Json = {
        "object": "list",
        "data": [_entry(name, target, entries, pause) for name, target in names.items()],
    }
    described = [
        # Ollama's format, where llama-server lists what a model is capable of.
        {"type": "model", "name": name, "model": name, "capabilities": capabilities}
        for name, model in names.items()
        if isinstance(model, Model) and (capabilities := entries.info(model).capabilities)
    ]
    if described:
        listed["models"] = described
    return json_response(200, listed)


def one_model(
    catalog: Catalog,
    entries: ModelEntries,
    pause: Callable[[str], float],
    path: bytes,
    key: str | None,
) -> Response:
    """Return OpenAI's entry of the model that `path` names. Raises HttpError with 404."""
    name = unquote_to_bytes(path.removeprefix(MODEL_PATH)).decode(errors="replace")
    return json_response(200, _entry(name, catalog.find(name, key), entries, pause))


def health(*, synced: bool, draining: bool) -> Response:
    """Return 200 while requests are accepted. Raises HttpError with 503."""
    if draining:
        raise shutting_down()
    if not synced:
        raise not_synced()
    return json_response(200, {"status": "ok"})


def shutting_down() -> HttpError:
    """503: this gateway shuts down."""
    return HttpError(503, "shutting_down", "this gateway is shutting down", retry_after=1)


def not_synced() -> HttpError:
    """503: the configuration or the servers have not been read yet."""
    return HttpError(
        503,
        "not_synced",
        "this gateway has not read its LlamaGateway and LlamaServers yet",
        retry_after=1,
    )


def _entry(name: str, named: Named, entries: ModelEntries, pause: Callable[[str], float]) -> Json:
    # Of several models, what is likely to serve the next request.
    target = named.most_likely if isinstance(named, Weighted) else named
    entry: Json = {"id": name, "object": "model"}
    if isinstance(target, Model):
        entry |= {"created": target.created, "owned_by": "slotkeeper"}
        return {**entry, "status": _STATUS[target.state], **entries.info(target).model}
    state: ModelState = "Failed" if pause(target.server) else "Ready"
    return {**entry, "created": 0, "owned_by": target.server, "status": _STATUS[state]}
