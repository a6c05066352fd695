"""Requests of Ollama's API: which get a response from here, and how the others are forwarded."""

from collections.abc import Callable, Iterator

from slotkeeper.gateway.catalog import Catalog
from slotkeeper.gateway.model_entries import UNKNOWN, ModelEntries
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.ollama import descriptions, requests
from slotkeeper.gateway.ollama.body import Body
from slotkeeper.gateway.ollama.endpoints import Endpoint
from slotkeeper.gateway.ollama.requests import Translated, model_of
from slotkeeper.gateway.targets import Named, Target, described_target
from slotkeeper.llamacpp.model_info import ModelInfo
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, Response, json_response

__all__ = ["find", "model_of", "read_response", "show_response", "translate", "upstream_request"]

_TRANSLATIONS: dict[Endpoint, Callable[[Body, str], Translated]] = {
    Endpoint.CHAT: requests.chat,
    Endpoint.GENERATE: requests.generate,
    Endpoint.EMBED: requests.embed,
    Endpoint.EMBEDDINGS: requests.embeddings,
}
_REPLACED_HEADERS = frozenset((b"content-type", b"accept-encoding"))


def read_response(
    endpoint: Endpoint, catalog: Catalog, entries: ModelEntries, key: str | None
) -> Response:
    """Return the response to a GET request; `key`: the name of its API key, if one is required."""
    if endpoint is Endpoint.VERSION:
        return json_response(200, {"version": descriptions.VERSION})
    models = _described(catalog, entries, key)
    if endpoint is Endpoint.TAGS:
        return json_response(200, descriptions.listed(models))
    return json_response(200, descriptions.running(models))


def show_response(model: Named, entries: ModelEntries) -> Response:
    """Return the response to /api/show."""
    target = described_target(model)
    return json_response(200, descriptions.shown(target, _info(target, entries)))


def find(catalog: Catalog, name: str | None, key: str | None) -> Named:
    """Return the model of this name, which may end in `:latest`; None: the default.

    Raises HttpError with 404 or 400.
    """
    if name is not None and name not in catalog.names(key):
        shorter = descriptions.without_latest(name)
        if shorter in catalog.names(key):
            name = shorter
    return catalog.find(name, key)


def translate(endpoint: Endpoint, body: Body, model: Named) -> Translated:
    """Return the request that is sent to the model's server. Raises HttpError with 400."""
    return _TRANSLATIONS[endpoint](body, model.name)


def upstream_request(exchange: Exchange, translated: Translated, body: Body) -> Request:
    """Put the translated body in place of the client's; return the request that is forwarded."""
    parts = body.encode(translated.tree)
    exchange.replace_body(parts)
    message = exchange.request
    headers = [header for header in message.headers if header[0].lower() not in _REPLACED_HEADERS]
    return Request(
        b"POST",
        translated.path,
        [*headers, (b"Content-Type", b"application/json")],
        http11=True,
        keep_alive=True,
        parts=parts,
        size=message.size,
    )


def _described(
    catalog: Catalog, entries: ModelEntries, key: str | None
) -> Iterator[tuple[str, Target, ModelInfo]]:
    for name, model in catalog.names(key).items():
        target = described_target(model)
        yield name, target, _info(target, entries)


def _info(target: Target, entries: ModelEntries) -> ModelInfo:
    return entries.info(target) if isinstance(target, Model) else UNKNOWN
