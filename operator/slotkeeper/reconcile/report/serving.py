"""Whether balancers serve, as they report it: ready pods alone do not show it. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.reconcile.clock import Moment
from slotkeeper.reconcile.demand.tracker import TrackedDemand
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.pods import condition, is_ready
from slotkeeper.reconcile.observe.problem import Problem

MAX_VIEW_AGE = 120.0
"""Seconds. A balancer's watch that works is confirmed each minute, and a dead one is noticed after
70 seconds."""

MIN_DURATION = 15.0
"""Seconds for which reports must show a problem: a handover takes four, and a replica that has just
become ready is in use in one."""

REASONS = frozenset({Reason.NO_LEADER, Reason.NO_SLOTS, Reason.STALE_ENDPOINTS})


@dataclass(frozen=True)
class PodReadiness:
    """What the reports are compared with."""

    replica_since: datetime | None
    """Since when a replica's pod is ready; None if none is."""
    all_balancers: bool
    """Whether every balancer's pod is ready: only those are polled."""


@dataclass(frozen=True)
class Serving:
    """What the balancers' reports show."""

    problem: Problem | None = None
    known: bool = True
    """False while the reports are missing, or too few to exclude a problem."""


def pod_readiness(observed: Observed) -> PodReadiness:
    """What the pods' status shows."""
    ready = filter(is_ready, observed.replica_pods)
    times = [time for pod in ready if (time := condition(pod, "Ready").get("lastTransitionTime"))]
    return PodReadiness(
        min(map(datetime.fromisoformat, times), default=None),
        all(map(is_ready, observed.balancer_pods)),
    )


def serving(pods: PodReadiness, demand: TrackedDemand, moment: Moment) -> Serving:
    """Compare the balancers' last reports with the pods.

    | the reports show | for | problem |
    |---|---|---|
    | no leader, of all balancers | MIN_DURATION | NoLeader |
    | a view of the cluster older than MAX_VIEW_AGE | | StaleEndpoints |
    | no slots, beside a ready replica | MIN_DURATION | NoSlots |
    """
    now = moment.monotonic
    if demand.leaderless_since is not None:
        lasting = pods.all_balancers and now - demand.leaderless_since >= MIN_DURATION
        return Serving(_NO_LEADER) if lasting else _UNKNOWN
    latest = demand.latest(now)
    if latest is None:
        return _UNKNOWN
    if latest.view_age_seconds > MAX_VIEW_AGE:
        return Serving(_stale(latest.view_age_seconds))
    if pods.replica_since is None or demand.no_slots_since is None:
        return Serving()
    reported = moment.wall - timedelta(seconds=now - latest.sample.at)
    ready_for = (reported - pods.replica_since).total_seconds()
    lasting = min(ready_for, latest.sample.at - demand.no_slots_since) >= MIN_DURATION
    return Serving(_NO_SLOTS) if lasting else _UNKNOWN


_UNKNOWN = Serving(known=False)

_NO_LEADER = Problem(
    Reason.NO_LEADER,
    "no balancer is the leader, so that none dispatches requests; check their logs, and that they "
    "reach the API server and each other's port 9090",
)

_NO_SLOTS = Problem(
    Reason.NO_SLOTS,
    "replicas are ready, but the balancer has no slots: it cannot read /slots of any replica; "
    "check its log, and that it reaches port 8080 of the replicas",
)


def _stale(seconds: float) -> Problem:
    return Problem(
        Reason.STALE_ENDPOINTS,
        f"a balancer's view of the replicas is {round(seconds / 60)} min old: it does not reach "
        "the API server, or its ServiceAccount, Role or RoleBinding is not valid",
    )
