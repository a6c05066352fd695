"""The demand of one server over time: the last report, and what decisions need of the past. Pure.

Times are seconds on one clock, which `now` reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from slotkeeper.api.demand_report import (
    DemandReport,
    PrimeReport,
    PromptCacheReport,
    SpeculationReport,
)
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.reconcile.demand.poll_schedule import PollSchedule
from slotkeeper.scaling.decide import ScalingInput
from slotkeeper.scaling.history import Change, History
from slotkeeper.scaling.policy import Policy
from slotkeeper.scaling.sample import PEAK_WINDOW_SECONDS, Sample

WARM_UP_SECONDS = 10.0
"""How long a balancer's first report may take before metrics count as unavailable."""

IDLE_MAX_AGE_SECONDS = 60.0
"""Age up to which a report is current for a server without autoscaling: a thousand take turns."""

MIN_UNREACHABLE_SECONDS = 30.0
"""For how long the files of prompts must be unreachable until that is believed: those of a replica
that has just become ready are, until the balancer has asked for them."""

CHANGES_SECONDS = 1800.0
"""How long a change of replicas is kept: no policy of behavior has a longer period."""


@dataclass(frozen=True)
class ServerDemand:
    """The demand of a server at one moment, as its balancers reported it together."""

    sample: Sample
    busy_by_replica: Mapping[str, int] | None = None
    """Busy slots by replica (HOST:PORT), without idle replicas; None where it is not reported."""
    unresponsive: tuple[str, ...] = ()
    """Replicas (HOST:PORT) that run and process nothing, as their balancer found."""
    view_age_seconds: float = 0.0
    """Age of the oldest view of the cluster that a balancer has."""
    prompt_cache: PromptCacheReport | None = None
    """The files of prompts, as the leader reports them."""
    prime: PrimeReport | None = None
    """Priming of new replicas, likewise."""
    builds: tuple[str, ...] = ()
    """Builds of llama-server, as the leader reports them."""
    speculation: SpeculationReport | None = None
    """Speculative decoding, as the leader reports it."""

    @property
    def without_speculation(self) -> tuple[str, ...]:
        """Replicas (HOST:PORT) that should decode speculatively, and do not."""
        return self.speculation.inactive if self.speculation else ()


@dataclass
class TrackedDemand:
    """What is kept of one server's demand. Balancers that do not respond leave a gap, never a 0."""

    since: float
    """When tracking began."""
    addresses: tuple[str, ...] = ()
    """HOST:PORT of its ready balancers' metrics ports."""
    schedule: PollSchedule = field(default_factory=PollSchedule)
    policy: Policy | None = None
    """None without autoscaling: then no history is kept."""
    last: ServerDemand | None = None
    history: History = field(default_factory=History)
    """The replicas that each poll required."""
    leaderless_since: float | None = None
    """Since when all balancers respond, and none reports to be the leader."""
    no_slots_since: float | None = None
    """Since when reports show no slots."""
    prompts_unreachable_since: float | None = None
    """Since when reports show that the files of prompts are unreachable."""
    changes: tuple[Change, ...] = ()

    def track(self, addresses: Sequence[str], policy: Policy | None) -> None:
        """Poll these balancers from now on, under this policy."""
        if self.addresses != tuple(addresses):
            self.addresses = tuple(addresses)
            self.schedule = PollSchedule()
        self.policy = policy
        self.schedule.urgent = policy is not None
        if policy is None:
            self.history = History()
            self.changes = ()

    def update(self, demand: ServerDemand) -> None:
        """Record what a poll found."""
        self.last = replace(demand, prompt_cache=self._believed(demand))
        self.leaderless_since = None
        if demand.sample.total_slots or (demand.prime and demand.prime.replicas):
            self.no_slots_since = None
        elif self.no_slots_since is None:
            self.no_slots_since = demand.sample.at
        if self.policy:
            self.history = self.history.record(
                demand.sample.at,
                self.policy.required_replicas(demand.sample),
                keep=self.policy.history_seconds,
            )

    def _believed(self, demand: ServerDemand) -> PromptCacheReport | None:
        """The report of the files of prompts; the last one while they are briefly unreachable."""
        report, now = demand.prompt_cache, demand.sample.at
        if report is None or report.reason is not Reason.UNREACHABLE:
            self.prompts_unreachable_since = None
            return report
        if self.prompts_unreachable_since is None:
            self.prompts_unreachable_since = now
        if now - self.prompts_unreachable_since >= MIN_UNREACHABLE_SECONDS:
            return report
        return self.last.prompt_cache if self.last else None

    def leaderless(self, responses: int, now: float) -> None:
        """Record a poll without the leader's report; `responses`: of other balancers."""
        if responses < len(self.addresses):
            # One that does not respond may be the leader.
            self.leaderless_since = None
        elif self.leaderless_since is None:
            self.leaderless_since = now

    def scaled(self, replicas: int, now: float) -> None:
        """Record a change of the number of replicas, negative for fewer."""
        if replicas:
            recent = (change for change in self.changes if change.at > now - CHANGES_SECONDS)
            self.changes = (*recent, Change(now, replicas))

    def scaling_input(self) -> ScalingInput:
        """What a scaling decision is based on."""
        return ScalingInput(self.last.sample if self.last else None, self.history, self.changes)

    def latest(self, now: float) -> ServerDemand | None:
        """The last report, unless it is too old to be current."""
        if self.last is None:
            return None
        maximum = PEAK_WINDOW_SECONDS if self.schedule.urgent else IDLE_MAX_AGE_SECONDS
        return self.last if now - self.last.sample.at <= maximum else None

    def is_warming_up(self, now: float) -> bool:
        """Whether it is too early to report that metrics are unavailable."""
        return self.last is None and now < self.warm_up_ends

    @property
    def warm_up_ends(self) -> float:
        """When missing metrics are reported."""
        return self.since + WARM_UP_SECONDS


def merge(reports: Sequence[DemandReport], now: float) -> ServerDemand | None:
    """The server's demand from the reports of all its balancers; None without the leader's.

    A standby reports only the requests that it holds itself. Without the leader's report the sum
    would be too low; without a standby's it lacks at most a moment's requests.
    """
    leader = next((report for report in reports if report.leader), None)
    if leader is None:
        return None
    sample = Sample(
        at=now,
        # What a standby relays, the leader counts as its own.
        busy_slots=sum(report.busy_slots for report in reports),
        queued=sum(report.queued for report in reports),
        oldest_queued_seconds=max(report.oldest_queued_seconds for report in reports),
        peak_demand=sum(report.peak_demand for report in reports),
        # A standby has no slots to dispatch to.
        total_slots=max(report.total_slots for report in reports),
        mean_demand=leader.mean_demand,
        mean_service_seconds=leader.mean_service_seconds,
        further_tasks=sum(report.further_tasks for report in reports),
        preemptible=sum(report.preemptible for report in reports),
    )
    age = max(report.view_age_seconds for report in reports)
    return ServerDemand(
        sample,
        leader.busy_by_replica,
        leader.unresponsive,
        age,
        leader.prompt_cache,
        leader.prime,
        leader.builds,
        leader.speculation,
    )
