"""Responses of the balancer's own, those of one large llama-server, and its error responses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slotkeeper.api.demand_report import DemandReport
from slotkeeper.edge.routes import Route
from slotkeeper.edge.usage import Tokens
from slotkeeper.edge.wait_headers import wait_headers
from slotkeeper.scheduling import DemandStatistics, Dispatcher
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Response, json_response

Json = dict[str, object]

PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Model:
    """The served model: its name, and since when (seconds since 1970)."""

    name: str
    created: int


def local_response(
    route: Route,
    dispatcher: Dispatcher[Any],
    model: Model,
    contexts: Mapping[str, int],
    tokens: Tokens,
) -> Response:
    """Return the response on one of the routes LOCAL, for all replicas together.

    `contexts`: tokens of context in a slot, by replica; 0 where unknown.
    """
    if route is Route.MODELS:
        return models(model)
    if route is Route.SLOTS:
        return slots(dispatcher, contexts)
    if route is Route.PROPS:
        return props(dispatcher, contexts, model)
    if route is Route.METRICS:
        return metrics(dispatcher, tokens)
    return health(dispatcher)


def health(dispatcher: Dispatcher[Any]) -> Response:
    """Return 200 if a replica has slots, else the 503 of a llama-server that loads its model."""
    if dispatcher.has_replica:
        return json_response(200, {"status": "ok"})
    error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
    return json_response(503, {"error": error})


def models(model: Model) -> Response:
    """Return OpenAI's list with the one model, also while there is no replica to serve it."""
    entry = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "slotkeeper",
    }
    return json_response(200, {"object": "list", "data": [entry]})


def slots(dispatcher: Dispatcher[Any], contexts: Mapping[str, int]) -> Response:
    """Return the slots of all replicas, numbered consecutively and without prompts."""
    listed: list[Json] = []
    for replica in dispatcher.replicas.values():
        count = max(replica.slots, replica.busy) if replica.ready else replica.busy
        for number in range(count):
            slot: Json = {"id": len(listed), "is_processing": number < replica.busy}
            if context := contexts.get(replica.name):
                slot["n_ctx"] = context
            listed.append(slot)
    return json_response(200, listed)


def props(dispatcher: Dispatcher[Any], contexts: Mapping[str, int], model: Model) -> Response:
    """Return the part of llama-server's /props that applies to all replicas together."""
    sizes = [context for context in contexts.values() if context]
    settings: Json = {"n_ctx": min(sizes)} if sizes else {}
    return json_response(
        200,
        {
            "total_slots": dispatcher.total_slots,
            "default_generation_settings": settings,
            "model_alias": model.name,
        },
    )


def metrics(dispatcher: Dispatcher[Any], tokens: Tokens) -> Response:
    """Return those of llama-server's /metrics that are exact here, under its names."""
    samples = (
        ("counter", "prompt_tokens_total", "Prompt tokens computed.", tokens.prompt),
        ("counter", "tokens_predicted_total", "Tokens generated.", tokens.generated),
        ("gauge", "requests_processing", "Busy slots.", dispatcher.busy_slots),
        ("gauge", "requests_deferred", "Queued requests.", dispatcher.queued),
    )
    text = "".join(
        f"# HELP llamacpp:{name} {help_}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n"
        for kind, name, help_, value in samples
    )
    return Response(200, text.encode(), PROMETHEUS)


def demand_report(
    dispatcher: Dispatcher[Any], demand: DemandStatistics, now: float, *, leader: bool
) -> DemandReport:
    """Return the report for autoscalers.

    Not in a standby's report: the requests that it still has on replicas, which the leader counts.
    """
    busy = dispatcher.busy_slots if leader else 0
    return DemandReport(
        leader=leader,
        total_slots=dispatcher.total_slots,
        busy_slots=busy,
        queued=dispatcher.queued,
        oldest_queued_seconds=dispatcher.oldest_queued_seconds(now),
        peak_demand=max(demand.peak(now), busy + dispatcher.queued),
        replicas=sum(1 for _ in dispatcher.ready_replicas()),
        busy_by_replica=dispatcher.busy_by_replica() if leader else {},
        mean_demand=demand.mean(now),
        arrivals_per_second=dispatcher.arrivals.rate(now),
        mean_service_seconds=dispatcher.service_times.mean_service_seconds(now),
    )


def queue_full(message: str, retry_after: float) -> HttpError:
    """429: the queue is full."""
    headers = wait_headers(0.0, None)
    return HttpError(429, "queue_full", message, retry_after=retry_after, headers=headers)


def queue_timeout(dispatcher: Dispatcher[Any], now: float) -> HttpError:
    """503: the request was queued too long, or no replica can start."""
    blocker = dispatcher.start_blocker
    if dispatcher.has_replica:
        code = "queue_timeout"
        message = "no slot became free within the queue timeout"
    elif blocker and blocker.permanent:
        code = "server_unavailable"
        message = f"no replica can start: {blocker.message}"
    else:
        code = "cold_start_timeout"
        message = "no replica became ready within the cold start timeout"
        message += f": {blocker.message}" if blocker else ""
    return HttpError(503, code, message, retry_after=dispatcher.retry_after(now))


def draining() -> HttpError:
    """503: the balancer shuts down."""
    return HttpError(503, "shutting_down", "this balancer is shutting down", retry_after=1)


def replica_failed(reason: str) -> HttpError:
    """502: several replicas failed before a response, or one failed in it."""
    return HttpError(502, "replica_failed", f"replica failed to respond: {reason}")


def unauthorized(message: str) -> HttpError:
    """401: no valid API key; `message`: why."""
    return HttpError(401, "invalid_api_key", message, headers=[(b"WWW-Authenticate", b"Bearer")])
