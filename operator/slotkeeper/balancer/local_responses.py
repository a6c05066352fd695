"""Responses of the balancer's own: those of one large llama-server."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from slotkeeper.edge.routes import MODEL_PATH, Route
from slotkeeper.edge.usage import Tokens
from slotkeeper.llamacpp.metrics import Series
from slotkeeper.llamacpp.model_info import ModelInfo
from slotkeeper.scheduling import Dispatcher
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import PROMETHEUS, Request, Response, json_response

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Model:
    """The served model: its name, and since when (seconds since 1970)."""

    name: str
    created: int


@dataclass(slots=True)
class LocalResponses:
    """The responses on the routes LOCAL, for all replicas together."""

    dispatcher: Dispatcher[Any]
    model: Model

    def respond(
        self, route: Route, request: Request, info: ModelInfo, contexts: Mapping[str, int]
    ) -> Response:
        """Return the response; that of METRICS is `metrics`.

        `info`: of the replicas' model; `contexts`: tokens of context in a slot, by replica, 0 where
        unknown. Raises HttpError.
        """
        if route is Route.MODELS:
            return self.models(info)
        if route is Route.MODEL:
            return self.one_model(request.path, info)
        if route is Route.SLOTS:
            return self.slots(contexts, request.target)
        if route is Route.PROPS:
            return self.props(contexts, info)
        return self.health()

    def health(self) -> Response:
        """Return 200 if a request would be served, also after a replica has started for it.

        A load balancer in front would otherwise send none to a server that is scaled to zero, and
        nothing would start it.
        """
        if self.dispatcher.has_replica:
            return json_response(200, {"status": "ok"})
        blocker = self.dispatcher.start_blocker
        if blocker and blocker.permanent:
            raise HttpError(503, "server_unavailable", f"no replica can start: {blocker.message}")
        return json_response(200, {"status": "ok", "ready_replicas": 0})

    def models(self, info: ModelInfo) -> Response:
        """Return OpenAI's list with the one model, also while there is no replica to serve it."""
        name = self.model.name
        listed: Json = {"object": "list", "data": [self._entry(info)]}
        if info.capabilities:
            # Ollama's format, where llama-server lists what the model is capable of.
            entry = {"name": name, "model": name, "capabilities": info.capabilities}
            listed["models"] = [{"type": "model", **entry}]
        return json_response(200, listed)

    def one_model(self, path: bytes, info: ModelInfo) -> Response:
        """Return OpenAI's entry of the model that `path` names. Raises HttpError with 404."""
        name = unquote_to_bytes(path.removeprefix(MODEL_PATH)).decode(errors="replace")
        if name != self.model.name:
            raise HttpError(
                404,
                "model_not_found",
                f"no such model; this server has {self.model.name!r}",
            )
        return json_response(200, self._entry(info))

    def slots(self, contexts: Mapping[str, int], target: bytes = b"") -> Response:
        """Return the slots of all replicas, numbered consecutively and without prompts.

        With `fail_on_no_slot` raises HttpError with status 503 if none of them is free.
        """
        listed: list[Json] = []
        replicas = self.dispatcher.replicas.values()
        has_free = any(replica.ready and replica.free for replica in replicas)
        if not has_free and _has_parameter(target, b"fail_on_no_slot"):
            raise HttpError(503, "no_slot", "no slot available")
        for replica in replicas:
            count = max(replica.slots, replica.busy) if replica.ready else replica.busy
            for number in range(count):
                slot: Json = {"id": len(listed), "is_processing": number < replica.busy}
                if context := contexts.get(replica.name):
                    slot["n_ctx"] = context
                listed.append(slot)
        return json_response(200, listed)

    def props(self, contexts: Mapping[str, int], info: ModelInfo) -> Response:
        """Return the part of llama-server's /props that applies to all replicas together."""
        sizes = [context for context in contexts.values() if context]
        settings: Json = {"n_ctx": min(sizes)} if sizes else {}
        if info.generation_params:
            settings["params"] = info.generation_params
        return json_response(
            200,
            {
                **info.props,
                "total_slots": self.dispatcher.total_slots,
                "default_generation_settings": settings,
                "model_alias": self.model.name,
                "endpoint_slots": True,
                "endpoint_props": False,
                "endpoint_metrics": True,
            },
        )

    def metrics(self, summed: Mapping[str, Series], tokens: Tokens) -> Response:
        """Return llama-server's metrics, each summed over all replicas.

        Requests are those counted here, exactly. `tokens` of responses stand in for those of
        replicas without metrics.
        """
        dispatcher = self.dispatcher
        exact = {
            "requests_processing": Series("gauge", "Busy slots.", dispatcher.busy_slots),
            "requests_deferred": Series("gauge", "Queued requests.", dispatcher.queued),
        }
        counted = {
            "prompt_tokens_total": Series("counter", "Prompt tokens computed.", tokens.prompt),
            "tokens_predicted_total": Series("counter", "Tokens generated.", tokens.generated),
        }
        series = {
            **{f"llamacpp:{name}": each for name, each in counted.items()},
            **summed,
            **{f"llamacpp:{name}": each for name, each in exact.items()},
        }
        text = "".join(
            f"# HELP {name} {help_}\n# TYPE {name} {kind}\n{name} {value:.15g}\n"
            for name, (kind, help_, value) in series.items()
        )
        # As in llama-server's response: since when the counters count.
        started = (b"Process-Start-Time-Unix", b"%d" % self.model.created)
        return Response(200, text.encode(), PROMETHEUS, [started])

    def _entry(self, info: ModelInfo) -> Json:
        return {
            "id": self.model.name,
            "object": "model",
            "created": self.model.created,
            "owned_by": "slotkeeper",
            **info.model,
        }


def _has_parameter(target: bytes, name: bytes) -> bool:
    """Whether the query has a parameter with a value, whatever that is, as in llama-server."""
    query = target.partition(b"?")[2]
    return any(
        key == name and value
        for key, _, value in (pair.partition(b"=") for pair in query.split(b"&"))
    )
