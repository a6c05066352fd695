"""The routes that the balancer responds to itself, from what it has read of all replicas."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from slotkeeper.balancer import responses
from slotkeeper.balancer.local_responses import LocalResponses
from slotkeeper.balancer.metrics import Metrics
from slotkeeper.balancer.upstream.aggregate import Aggregate
from slotkeeper.balancer.upstream.replicas import ReplicaSet
from slotkeeper.edge import cors
from slotkeeper.edge.routes import Route
from slotkeeper.wire.exchange import Exchange
from slotkeeper.wire.message import Request, Response


@dataclass(slots=True)
class LocalRoutes:
    """Responds on the routes LOCAL, for all replicas together."""

    responses: LocalResponses
    replicas: ReplicaSet
    aggregate: Aggregate
    metrics: Metrics
    spawn: Callable[[Coroutine[Any, Any, None]], None]

    def response(self, route: Route, message: Request, *, draining: bool) -> Response:
        """Return the response. Raises HttpError."""
        if route is Route.METRICS:
            return self.responses.metrics(self.aggregate.last_metrics, self.metrics.tokens)
        if route is Route.HEALTH and draining:
            raise responses.draining()
        return self.responses.respond(route, message, self.aggregate.model, self.replicas.contexts)

    def respond(self, exchange: Exchange, route: Route, *, draining: bool) -> None:
        """Respond to an exchange; on METRICS after the replicas have been polled.

        Raises HttpError.
        """
        if route is Route.METRICS:
            self.spawn(self._respond_with_metrics(exchange))
        else:
            cors.ANY_ORIGIN.respond(
                exchange, self.response(route, exchange.request, draining=draining)
            )

    async def _respond_with_metrics(self, exchange: Exchange) -> None:
        await self.aggregate.update_metrics()
        # No effect if the client has disconnected.
        cors.ANY_ORIGIN.respond(
            exchange, self.response(Route.METRICS, exchange.request, draining=False)
        )
