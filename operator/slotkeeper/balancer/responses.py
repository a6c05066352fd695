"""What the balancer answers itself, as one big llama-server would."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slotkeeper.api.demand_report import DemandReport
from slotkeeper.edge.routes import Route
from slotkeeper.edge.usage import Tokens
from slotkeeper.edge.wait_headers import waiting_headers
from slotkeeper.scheduling import DemandStatistics, Dispatcher
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Response, json_response

Json = dict[str, object]

PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Model:
    """What is served: its name, and since when (seconds since 1970)."""

    name: str
    created: int


def local_response(
    way: Route,
    dispatcher: Dispatcher[Any],
    model: Model,
    contexts: Mapping[str, int],
    tokens: Tokens,
) -> Response:
    """What is said of all replicas together on one of the routes OWN."""
    if way is Route.MODELS:
        return models(model)
    if way is Route.SLOTS:
        return slots(dispatcher, contexts)
    if way is Route.PROPS:
        return props(dispatcher, contexts, model)
    if way is Route.METRICS:
        return metrics(dispatcher, tokens)
    return health(dispatcher)


def health(dispatcher: Dispatcher[Any]) -> Response:
    """200 where a replica has slots, else llama-server's 503 while it loads."""
    if dispatcher.has_replica:
        return json_response(200, {"status": "ok"})
    error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
    return json_response(503, {"error": error})


def models(model: Model) -> Response:
    """The one model, as OpenAI lists it; also with no replica, since it is still served here."""
    entry = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "slotkeeper",
    }
    return json_response(200, {"object": "list", "data": [entry]})


def slots(dispatcher: Dispatcher[Any], contexts: Mapping[str, int]) -> Response:
    """All replicas' slots with ids of their own and without prompts.

    `contexts`: tokens of context in a slot, by replica, where known.
    """
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
    """The little of llama-server's /props that holds for all replicas together."""
    known = [context for context in contexts.values() if context]
    settings: Json = {"n_ctx": min(known)} if known else {}
    return json_response(
        200,
        {
            "total_slots": dispatcher.total_slots,
            "default_generation_settings": settings,
            "model_alias": model.name,
        },
    )


def metrics(dispatcher: Dispatcher[Any], tokens: Tokens) -> Response:
    """What llama-server's /metrics says and is known here exactly, under its names."""
    known = (
        ("counter", "prompt_tokens_total", "Tokens of prompts that were computed.", tokens.prompt),
        ("counter", "tokens_predicted_total", "Tokens that were generated.", tokens.generated),
        ("gauge", "requests_processing", "Slots with a request on them.", dispatcher.busy_slots),
        ("gauge", "requests_deferred", "Requests without a slot.", dispatcher.queued),
    )
    text = "".join(
        f"# HELP llamacpp:{name} {about}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n"
        for kind, name, about, value in known
    )
    return Response(200, text.encode(), PROMETHEUS)


def demand_report(
    dispatcher: Dispatcher[Any], demand: DemandStatistics, now: float, *, leader: bool
) -> DemandReport:
    """The report that autoscalers read.

    What a standby still has on replicas, the leader counts as well.
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
    """429: there is no place in the queue."""
    told = waiting_headers(0.0, None)
    return HttpError(429, "queue_full", message, retry_after=retry_after, headers=told)


def queue_timeout(dispatcher: Dispatcher[Any], now: float) -> HttpError:
    """503: the time in the queue is over, or it is of no use to wait in it."""
    obstacle = dispatcher.start_blocker
    if dispatcher.has_replica:
        code = "queue_timeout"
        message = "no slot came free in the time allowed"
    elif obstacle and obstacle.permanent:
        code = "server_unavailable"
        message = f"no replica can start: {obstacle.message}"
    else:
        code = "cold_start_timeout"
        message = "no replica became ready in the time allowed"
        message += f": {obstacle.message}" if obstacle else ""
    return HttpError(503, code, message, retry_after=dispatcher.retry_after(now))


def draining() -> HttpError:
    """503: this balancer ends."""
    return HttpError(503, "shutting_down", "this balancer is shutting down", retry_after=1)


def replica_failed(reason: str) -> HttpError:
    """502: replicas failed the request before they answered, time and again."""
    return HttpError(502, "replica_failed", f"the replica failed before it answered: {reason}")


def unauthorized(message: str) -> HttpError:
    """401: it must say an API key, and `message` why what it says is none."""
    return HttpError(401, "invalid_api_key", message, headers=[(b"WWW-Authenticate", b"Bearer")])
