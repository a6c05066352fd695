"""The proxy: clients on one side, the servers of their models on the other."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from slotkeeper.edge import access, request_body
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.edge.body_admission import BodyAdmission
from slotkeeper.edge.cors import CorsPolicy
from slotkeeper.edge.drain import wait_idle
from slotkeeper.edge.error_format import OLLAMA_PREFIX
from slotkeeper.edge.outcome import Outcome
from slotkeeper.edge.routes import Route, route
from slotkeeper.edge.uploads import is_upload
from slotkeeper.flags import Address
from slotkeeper.gateway import batches, local_responses, routing
from slotkeeper.gateway.backends.registry import Backends, public_backends
from slotkeeper.gateway.body_reader import BodyReader
from slotkeeper.gateway.catalog import Catalog
from slotkeeper.gateway.config import GatewayConfig
from slotkeeper.gateway.limits import KeyLimiter
from slotkeeper.gateway.metrics import Metrics
from slotkeeper.gateway.model_entries import ModelEntries
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.ollama import api as ollama
from slotkeeper.gateway.ollama import body as ollama_body
from slotkeeper.gateway.ollama.body import Body
from slotkeeper.gateway.ollama.endpoints import Endpoint, endpoint_of
from slotkeeper.gateway.ollama.output import OllamaOutput
from slotkeeper.gateway.page.handler import Page
from slotkeeper.gateway.page.state import page_state
from slotkeeper.gateway.page.token_rates import TokenRates
from slotkeeper.gateway.page_models import page_models
from slotkeeper.gateway.planning import conversation_point, make_plan, waking
from slotkeeper.gateway.request import GatewayRequest
from slotkeeper.gateway.request_log import RequestLog
from slotkeeper.gateway.shadow import PREEMPTIBLE, Measured, Shadows
from slotkeeper.gateway.target_config import Trigger
from slotkeeper.gateway.targets import Named, Target
from slotkeeper.gateway.translation import Translation
from slotkeeper.gateway.upstreams import Upstreams
from slotkeeper.gateway.usage_log import UsageLog
from slotkeeper.gateway.wake import Waker
from slotkeeper.wire.client import Pool
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Header, Request, encode_request_head
from slotkeeper.wire.tasks import Tasks

_log = logging.getLogger(__name__)

# Origin is not forwarded: the gateway decides which pages may read a response.
# Any request may be sent with a lower priority than its API key has.
_FORWARDED = access.FORWARDED - {b"origin"} | {access.PREEMPTIBLE}
_FORWARDED_WITHOUT_KEYS = _FORWARDED | access.SECRETS | {b"x-priority"}


class Gateway:
    """Handles every request of the clients' port. Everything happens in the event loop.

    `address` returns host and port of a server, by its name. `keys`: the accepted API keys; None:
    no key is required, and those of clients are forwarded. `name`: of the LlamaGateway, as
    NAMESPACE/NAME, which the page shows. `wall` returns the time in seconds since 1970. `backends`
    are the external ones; None: without secrets, at public addresses only.
    """

    def __init__(
        self,
        address: Callable[[str], Address],
        log: AccessLog,
        keys: ApiKeys | None = None,
        *,
        name: str,
        wall: Callable[[], float],
        backends: Backends | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self.spawn = self._tasks.spawn
        self.now: Callable[[], float] = self._loop.time
        """The event loop's clock, in seconds."""
        self.cors = CorsPolicy()
        self.draining = False
        self.active: set[GatewayRequest] = set()
        """Requests that are forwarded."""
        self.backends = backends or public_backends(self.now)
        self.metrics = Metrics(
            self._current_models,
            self._running,
            self.backends,
            lambda: () if keys is None else keys.names,
        )
        self.upstreams = Upstreams(address)
        self._waker = Waker(
            self.upstreams.pool, self.spawn, lambda: self.config.timeouts.first_byte
        )
        self._shadows = Shadows(
            self.upstreams.pool,
            self._status,
            self.spawn,
            self.now,
            self.metrics.shadowed,
        )
        self.entries = ModelEntries(self.upstreams.fetch, self.spawn)
        self.status: Callable[[str], Mapping[str, Any] | None] = lambda _: None
        """Returns the status of a LlamaServer, as it was read, by the server's name."""
        self._name = name
        self._wall = wall
        self._keys = keys
        self._config: GatewayConfig | None = None
        self._models: Mapping[str, Model] = {}
        self._has_models = False
        self._catalog = Catalog({}, GatewayConfig())
        self._limiter = KeyLimiter(GatewayConfig())
        self.usage_log = UsageLog(
            AccessLog(None, self._loop.call_later, wall), secrets.token_hex(8)
        )
        """Writes to nothing until its `log` is set, and only if the configuration enables it."""
        self._request_log = RequestLog(self.metrics, log, self.usage_log)
        self.body_admission = BodyAdmission(
            self._check_body, self._request_log.rejected_incomplete, self.cors, self._is_upload
        )
        self.batches = batches.Batches(
            name.rpartition("/")[2], address, self.cors, self._tasks, self._on_batches_finished
        )
        self._page = Page(lambda request: self._key(request) or "", self._page_state, self.now)
        self._token_rates = TokenRates()
        self._bodies = BodyReader(self.spawn, self._reject, self._update_idle)
        self._idle = asyncio.Event()
        self._idle.set()

    # Configuration.

    @property
    def synced(self) -> bool:
        """Whether the configuration and the models have been set."""
        return self._config is not None and self._has_models

    @property
    def config(self) -> GatewayConfig:
        """The current configuration."""
        return self._config or GatewayConfig()

    def set_config(self, config: GatewayConfig) -> None:
        """Apply a configuration, to new requests."""
        self._config = config
        self.cors.allowed_origins = config.allowed_origins
        self._limiter.config = config
        self.usage_log.enabled = config.usage_log
        self.upstreams.set_connect_seconds(config.timeouts.connect)
        self.backends.set(config.backends, config.timeouts.connect)
        self.spawn(self.backends.secrets.set(config.backends))
        self._set_catalog()

    def set_ready_pods(self, ready: int | None) -> None:
        """Set the number of ready gateway pods, which share limits; None where it is not known."""
        self._limiter.pods.set_ready(ready, self.now())

    def set_models(self, models: Mapping[str, Model]) -> None:
        """Set the models by name."""
        self._has_models = True
        if models == self._models:
            return
        self._models = models
        self._set_catalog()
        self._token_rates.keep(models.keys())
        self.upstreams.keep(models.values())
        self.entries.update(models.values())

    def _set_catalog(self) -> None:
        self._catalog = Catalog(self._models, self.config)
        self._shadows.set(self._catalog.shadows)

    # Clients.

    def handle(self, exchange: Exchange) -> None:
        """Forward a complete request, or respond to it."""
        path = exchange.request.path
        if self._page.respond(exchange, path):
            return
        if path.startswith(OLLAMA_PREFIX):
            self._handle_ollama(exchange)
        elif batches.is_batches_path(path):
            self._handle_batches(exchange)
        else:
            self._handle_others(exchange)

    def _handle_others(self, exchange: Exchange) -> None:
        key = None
        message = exchange.request
        try:
            prefixed = routing.prefixed_path(message.path)
            if prefixed:
                routing.with_path(message, prefixed.path)
            handled_as = route(message.method, message.path)
            if handled_as is Route.PREFLIGHT:
                self.cors.respond(exchange, self.cors.preflight(message))
                return
            if handled_as is Route.HEALTH and prefixed is None:
                health = local_responses.health(synced=self.synced, draining=self.draining)
                self.cors.respond(exchange, health)
                return
            key = self._key(message)
            self._check_serving()
            if prefixed is None and handled_as in {Route.MODELS, Route.MODEL}:
                self._respond_with_models(exchange, handled_as, key)
                return
            if message.size:
                request_body.check_encoding(message)
            name = prefixed.model if prefixed else routing.model_in_header(message)
            if name is None and not routing.is_quick(message):
                self._bodies.read(
                    exchange,
                    key,
                    lambda: routing.model_in_body(message),
                    lambda name: self._forward(exchange, name, key),
                )
                return
            self._forward(exchange, name or routing.model_in_small_body(message), key)
        except HttpError as error:
            self._reject(exchange, error, key)

    def _key(self, request: Request) -> str | None:
        return None if self._keys is None else access.key_owner(self._keys, request)

    def _handle_batches(self, exchange: Exchange) -> None:
        message = exchange.request
        if message.method == b"OPTIONS":
            self.batches.preflight(exchange)
            return
        key = None
        try:
            key = self._key(message)
            self._check_serving()
            if not self.config.batches:
                raise batches.disabled()
            self.batches.forward(exchange, key)
            self._update_idle()
        except HttpError as error:
            self._reject(exchange, error, key)

    def _check_body(self, request: Request) -> None:
        key = self._key(request)
        if self._is_upload(request):
            self._check_serving()
            self.batches.check_upload(key)

    def _is_upload(self, request: Request) -> bool:
        return self.config.batches and is_upload(request)

    def _on_batches_finished(
        self, exchange: Exchange, key: str | None, outcome: Outcome, seconds: float
    ) -> None:
        self._request_log.finished_batches(exchange, key, outcome, seconds)
        self._update_idle()

    def _check_serving(self) -> None:
        if self.draining:
            raise local_responses.shutting_down()
        if not self.synced:
            raise local_responses.not_synced()

    def _respond_with_models(self, exchange: Exchange, kind: Route, key: str | None) -> None:
        if kind is Route.MODELS:
            response = local_responses.models(self._catalog, self.entries, self.backends.pause, key)
        else:
            path = exchange.request.path
            response = local_responses.one_model(
                self._catalog, self.entries, self.backends.pause, path, key
            )
        self.cors.respond(exchange, response)

    def _page_state(self, key: str) -> object:
        if not self.synced:
            raise local_responses.not_synced()
        now = self.now()
        models = page_models(
            self._catalog.names(key or None),
            self.status,
            lambda model: self._token_rates.rate(model, now=now),
        )
        return page_state(models, gateway=self._name, now=datetime.fromtimestamp(self._wall(), UTC))

    def _handle_ollama(self, exchange: Exchange) -> None:
        key = None
        message = exchange.request
        try:
            endpoint = endpoint_of(message.method, message.path)
            if endpoint is Endpoint.PREFLIGHT:
                self.cors.respond(exchange, self.cors.preflight(message))
                return
            key = self._key(message)
            self._check_serving()
            if message.method != b"POST":
                response = ollama.read_response(endpoint, self._catalog, self.entries, key)
                self.cors.respond(exchange, response)
                return
            request_body.check_encoding(message)
            if message.size <= request_body.SMALL:
                self._forward_ollama(exchange, endpoint, key, ollama_body.read_small(message.body))
                return
            self._bodies.read(
                exchange,
                key,
                lambda: ollama_body.read(message.body),
                lambda body: self._forward_ollama(exchange, endpoint, key, body),
            )
        except HttpError as error:
            self._reject(exchange, error, key)

    def _forward(self, exchange: Exchange, name: str | None, key: str | None) -> None:
        """Forward a request to the model of this name. Raises HttpError."""
        self._send(exchange, name, self._catalog.find(name, key), key)

    def _forward_ollama(
        self, exchange: Exchange, endpoint: Endpoint, key: str | None, body: Body
    ) -> None:
        """Translate and forward a request of Ollama's API. Raises HttpError."""
        name = routing.model_in_header(exchange.request) or ollama.model_of(body)
        named = ollama.find(self._catalog, name, key)
        if endpoint is Endpoint.SHOW:
            self.cors.respond(exchange, ollama.show_response(named, self.entries))
            return
        translated = ollama.translate(endpoint, body, named)
        output = OllamaOutput(exchange, translated, name or named.name, self.now, self._wall)
        message = ollama.upstream_request(exchange, translated, body)
        self._send(exchange, name, named, key, Translation(message, output))

    def _send(
        self,
        exchange: Exchange,
        name: str | None,
        named: Named,
        key: str | None,
        translation: Translation | None = None,
    ) -> None:
        """Send a request to the first target of its plan, unless its API key is at a limit.

        `name`: by which it requests `named`. Raises HttpError.
        """
        message = translation.message if translation else exchange.request
        preemptible = access.preemptible(message)
        plan = make_plan(
            named,
            # A batch waits rather than use what costs more.
            {} if preemptible else self._catalog.fallbacks,
            lambda: conversation_point(message),
            self.backends.pause,
        )
        if key is not None:
            # An invalid one is rejected before the request counts in the limits.
            self._priority(message, key)
            rejection = self._limiter.start(key, self.now(), preemptible=preemptible)
            if rejection:
                self._reject(exchange, rejection.error, key, rejection.limit)
                return
        for target, trigger in plan.skipped:
            self.metrics.fell_back(target.name, plan.targets[0].name, trigger)
        if model := waking(plan):
            self._waker.wake(model, message, lambda sent: self._encode_head(sent, key))
        request = GatewayRequest(self, exchange, plan, key, self.config.timeouts, translation)
        request.requested = name
        request.shadow = self._shadows.start(
            plan.targets[0].name,
            message,
            lambda sent: self._encode_head(sent, key, [PREEMPTIBLE]),
        )
        self.active.add(request)
        self._update_idle()
        request.start()

    def _encode_head(
        self, message: Request, key: str | None, added: Iterable[Header] = ()
    ) -> bytes:
        if key is None:
            return encode_request_head(message, _FORWARDED_WITHOUT_KEYS, added)
        # Balancers let those with different values take turns. The key itself is not for them.
        headers = [*added, (b"Authorization", b"Bearer gateway-%s" % _digest(key))]
        if priority := self._priority(message, key):
            headers.append((b"X-Priority", b"%d" % priority))
        return encode_request_head(message, _FORWARDED, headers)

    def _priority(self, message: Request, key: str) -> int:
        return access.priority(message, self.config.max_priorities.get(key, 0))

    def _reject(
        self, exchange: Exchange, error: HttpError, key: str | None, reason: str = ""
    ) -> None:
        self.cors.respond_with_error(exchange, error)
        self._request_log.rejected(exchange, error, key, reason)

    # RequestHost.

    @property
    def read_lock(self) -> asyncio.Lock:
        """Held while there is a copy of a large body."""
        return self._bodies.lock

    def server_attempt(self, request: GatewayRequest, model: Model) -> tuple[Pool, bytes]:
        """Return the connections to the server of a model, and the head of the request."""
        head = self._encode_head(request.message, request.key)
        return self.upstreams.pool(model), head

    def on_retry(self, request: GatewayRequest) -> None:
        """Count a retry."""
        self.metrics.retried(request.model.name)

    def on_fallback(self, request: GatewayRequest, target: Target, trigger: Trigger) -> None:
        """Count a fallback."""
        self.metrics.fell_back(request.model.name, target.name, trigger)

    def on_released(self, request: GatewayRequest) -> None:
        """Forget a request."""
        self.active.discard(request)
        if request.key is not None:
            self._limiter.finish(request.key)
        self._update_idle()

    def on_finished(self, request: GatewayRequest, outcome: Outcome) -> None:
        """Record a finished request."""
        now = self.now()
        tokens = None
        if outcome is Outcome.COMPLETED:
            tokens = request.stats.edges.tokens(request.message.path)
            if tokens:
                self._token_rates.record(request.model.name, tokens.generated, now=now)
        if request.key is not None:
            path, status = request.message.path, request.exchange.status
            used = sum(tokens or (request.stats.unreported_tokens(path, status),))
            self._limiter.add_tokens(request.key, used, now)
        if request.shadow:
            same = request.model.name == request.shadow.model and outcome is Outcome.COMPLETED
            seconds = now - request.stats.arrived_at
            generated = tokens.generated if tokens else 0
            measured = Measured(request.exchange.status, seconds, generated) if same else None
            self._shadows.original_ended(request.shadow, measured)
        self._request_log.finished(request, outcome, tokens, now)

    # Shutdown.

    async def drain(self, seconds: float) -> int:
        """Accept no new requests; wait for the others. Return the number of those that remain."""
        self.draining = True
        await wait_idle(self._idle, seconds)
        return len(self.active) + len(self.batches.active) + self._bodies.reading

    async def close(self) -> None:
        """Abort all requests and tasks, and close all connections to servers."""
        for request in list(self.active):
            request.abort()
        self.batches.abort()
        await self._tasks.join(cancel=True)
        self.upstreams.keep(())
        await self.backends.close()
        self._request_log.flush()

    def _current_models(self) -> Collection[Model]:
        return self._models.values()

    def _status(self, server: str) -> Mapping[str, Any] | None:
        return self.status(server)

    def _running(self) -> Iterator[str]:
        return (request.model.name for request in self.active)

    def _update_idle(self) -> None:
        if not (self.active or self.batches.active or self._bodies.reading):
            self._idle.set()
        else:
            self._idle.clear()


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=8).hexdigest().encode()
