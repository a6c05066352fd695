"""The demand report for autoscalers, and the balancer's error responses."""

from collections.abc import Iterable
from typing import Any

from slotkeeper.api.demand_report import DemandReport
from slotkeeper.edge.wait_headers import wait_headers
from slotkeeper.scheduling import DemandStatistics, Dispatcher
from slotkeeper.wire.errors import HttpError


def demand_report(
    dispatcher: Dispatcher[Any],
    demand: DemandStatistics,
    unresponsive: Iterable[str],
    now: float,
    *,
    leader: bool,
    view_age: float = 0.0,
) -> DemandReport:
    """Return the report for autoscalers. `view_age`: of what is known of the cluster, in seconds.

    Not in a standby's report: the requests that it still has on replicas, which the leader counts.
    """
    busy = dispatcher.busy_slots - dispatcher.preemptible_busy_slots if leader else 0
    # More replicas would not help held requests, and none is added for preemptible ones.
    queued = dispatcher.queue.demand
    oldest = dispatcher.queue.oldest_demand
    preemptible = dispatcher.preemptible_busy_slots if leader else 0
    return DemandReport(
        leader=leader,
        total_slots=dispatcher.total_slots,
        busy_slots=busy,
        queued=queued,
        oldest_queued_seconds=now - oldest.arrived if oldest else 0.0,
        peak_demand=max(demand.peak(now), busy + queued + dispatcher.further_tasks),
        replicas=sum(1 for _ in dispatcher.ready_replicas()),
        busy_by_replica=dispatcher.busy_by_replica() if leader else {},
        mean_demand=demand.mean(now),
        arrivals_per_second=dispatcher.arrivals.rate(now),
        mean_service_seconds=dispatcher.service_times.mean_service_seconds(now),
        further_tasks=dispatcher.further_tasks,
        preemptible=preemptible + len(dispatcher.queue.preemptible),
        unresponsive=tuple(unresponsive),
        view_age_seconds=view_age,
    )


def queue_full(message: str, retry_after: float) -> HttpError:
    """429: the queue is full."""
    headers = wait_headers(0.0, None)
    return HttpError(429, "queue_full", message, retry_after=retry_after, headers=headers)


def too_many_slots(needed: int, limit: int) -> HttpError:
    """400: one request would take more slots than its API key may hold."""
    return HttpError(
        400,
        "too_many_slots",
        f"the request takes {needed} slots, but its API key may hold {limit} at the same time "
        "(apiKeys.maxRunningRequests): request fewer completions (n) or send fewer prompts at once",
    )


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


def preempted() -> HttpError:
    """503: a preemptible request made way for others."""
    message = "the preemptible request (X-Preemptible) made way for other requests"
    return HttpError(503, "preempted", message, retry_after=1)


def draining() -> HttpError:
    """503: the balancer shuts down."""
    return HttpError(503, "shutting_down", "this balancer is shutting down", retry_after=1)


def replica_failed(reason: str) -> HttpError:
    """502: several replicas failed before a response, or one failed in it."""
    return HttpError(502, "replica_failed", f"replica failed to respond: {reason}")


def replica_unresponsive(reason: str) -> HttpError:
    """504: a replica gives no sign of life, and no byte of the response."""
    return HttpError(504, "replica_unresponsive", f"replica does not respond: {reason}")


def access_rules_outdated() -> HttpError:
    """503: the access rules have changed, and this balancer is replaced by one that has them."""
    message = "this balancer does not have the access rules in force and is being replaced"
    return HttpError(503, "access_rules_outdated", message, retry_after=1)


def relay_not_verified() -> HttpError:
    """503: the header between balancers is not from a balancer of this server."""
    message = "the relayed request is from no balancer of this server"
    return HttpError(503, "relay_not_verified", message, retry_after=1)
