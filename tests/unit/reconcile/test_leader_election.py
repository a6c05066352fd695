"""Leader election among operators: one leads at a time."""

import asyncio
from typing import Any

import pytest
from typing_extensions import override

from fake_cluster import FakeCluster
from operator_harness import FakeTime
from slotkeeper.kube.cluster import ApiError, Manifest, Unreachable
from slotkeeper.kube.kinds import LEASES
from slotkeeper.reconcile.leader_election import (
    LEASE_NAME,
    LeadershipLostError,
    LeaseRef,
    OperatorLease,
)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def lease(cluster: FakeCluster, time: FakeTime, holder: str) -> OperatorLease:
    return OperatorLease(cluster, LeaseRef("system", holder), time.clock)


async def test_only_the_first_operator_acquires_the_lease(
    cluster: FakeCluster, time: FakeTime
) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")

    assert await first.try_acquire()
    assert not await second.try_acquire()
    assert cluster.by_name(LEASES)[LEASE_NAME]["spec"]["holderIdentity"] == "a"
    labels = cluster.by_name(LEASES)[LEASE_NAME]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/managed-by": "slotkeeper"}


async def test_a_renewed_lease_does_not_expire(cluster: FakeCluster, time: FakeTime) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()

    for _ in range(20):
        time.elapsed += 5
        await first.renew()
        assert not await second.try_acquire()


async def test_an_expired_lease_is_acquired_by_another_and_its_holder_cannot_renew_it(
    cluster: FakeCluster, time: FakeTime
) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    await second.try_acquire()

    time.elapsed += 31
    acquired = await second.try_acquire()

    assert acquired
    with pytest.raises(LeadershipLostError):
        await first.renew()


async def test_a_released_lease_is_free_at_once(cluster: FakeCluster, time: FakeTime) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()

    await first.release()

    assert await second.try_acquire()


async def test_a_lease_is_released_though_the_response_to_the_last_renewal_was_lost(
    cluster: FakeCluster, time: FakeTime
) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    cluster.edit(
        LEASES, "system", LEASE_NAME, lambda found: found["spec"].update(renewTime="later")
    )

    await first.release()

    assert await second.try_acquire()


async def test_a_lease_that_another_holds_is_not_released(
    cluster: FakeCluster, time: FakeTime
) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    await second.try_acquire()
    time.elapsed += 31
    await second.try_acquire()

    await first.release()

    assert cluster.by_name(LEASES)[LEASE_NAME]["spec"]["holderIdentity"] == "b"


async def test_a_holder_that_cannot_renew_stops_before_another_may_acquire_the_lease(
    cluster: FakeCluster, time: FakeTime
) -> None:
    holder = lease(cluster, time, "a")
    await holder.try_acquire()
    cluster.fail(Unreachable(0, "", "cut"))

    time.elapsed += 5
    await holder.renew()
    time.elapsed += 11

    with pytest.raises(LeadershipLostError):
        await holder.renew()


async def test_a_lease_is_valid_for_the_renew_deadline_and_again_after_a_renewal(
    cluster: FakeCluster, time: FakeTime
) -> None:
    first = lease(cluster, time, "a")
    await first.try_acquire()
    valid = [first.is_valid()]

    for seconds in (15, 1):
        time.elapsed += seconds
        valid.append(first.is_valid())
    await first.renew()

    assert [*valid, first.is_valid()] == [True, True, False, True]


async def test_a_holder_is_healthy_while_its_watch_shows_its_renewals(
    cluster: FakeCluster, time: FakeTime
) -> None:
    holder = lease(cluster, time, "a")
    await holder.try_acquire()
    time.elapsed += 59
    holder.on_watched_renewal(cluster.by_name(LEASES)[LEASE_NAME])

    time.elapsed += 60
    before = holder.problem()
    time.elapsed += 1

    assert before is None
    assert "watch stalled" in (holder.problem() or "")


async def test_a_standby_is_healthy(cluster: FakeCluster, time: FakeTime) -> None:
    await lease(cluster, time, "a").try_acquire()
    standby = lease(cluster, time, "b")
    await standby.try_acquire()

    time.elapsed += 1000

    assert standby.problem() is None


async def test_a_renewal_that_was_accepted_without_a_response_is_no_loss(
    cluster: FakeCluster, time: FakeTime
) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    cluster.raise_after_write = {2: Unreachable(0, "", "cut"), 4: Unreachable(0, "", "cut")}

    for _ in range(20):
        time.elapsed += 5
        await first.renew()
        assert first.is_valid()
        assert not await second.try_acquire()


async def test_an_own_renewal_that_took_effect_late_is_no_loss(time: FakeTime) -> None:
    cluster = LateCluster()
    holder = lease(cluster, time, "a")
    await holder.try_acquire()
    cluster.delay = True
    time.elapsed += 5
    await holder.renew()

    # The API server had read it before the connection was closed.
    time.elapsed += 5
    await cluster.finish()
    await holder.renew()

    assert holder.is_valid()
    assert cluster.by_name(LEASES)[LEASE_NAME]["spec"]["holderIdentity"] == "a"


class LateCluster(FakeCluster):
    """Applies one manifest only after its client has given up."""

    delay = False
    _late: Manifest | None = None

    @override
    async def apply(self, manifest: Manifest) -> Manifest:
        if self.delay:
            self.delay = False
            self._late = manifest
            raise TimeoutError
        return await super().apply(manifest)

    async def finish(self) -> None:
        assert self._late
        await super().apply(self._late)


async def test_a_lease_that_another_released_is_lost(cluster: FakeCluster, time: FakeTime) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    await second.try_acquire()
    time.elapsed += 31
    await second.try_acquire()
    await second.release()

    with pytest.raises(LeadershipLostError):
        await first.renew()


async def test_a_renewal_counts_from_its_request(time: FakeTime) -> None:
    cluster = SlowCluster(time)
    holder = lease(cluster, time, "a")
    await holder.try_acquire()

    cluster.seconds = 4
    await holder.renew()
    time.elapsed += 11
    valid = holder.is_valid()
    time.elapsed += 1

    assert (valid, holder.is_valid()) == (True, False)


class SlowCluster(FakeCluster):
    """Its responses take some seconds."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__()
        self._time = time
        self.seconds = 0.0

    @override
    async def apply(self, manifest: Manifest) -> Manifest:
        written = await super().apply(manifest)
        self._time.elapsed += self.seconds
        return written


@pytest.mark.parametrize("backed_up", [True, False])
async def test_a_lease_that_goes_back_in_time_ends_the_operator(
    cluster: FakeCluster, time: FakeTime, *, backed_up: bool
) -> None:
    backup = cluster.copy()
    holder = lease(cluster, time, "a")
    await holder.try_acquire()
    if backed_up:
        backup = cluster.copy()
    time.elapsed += 5
    await holder.renew()

    cluster.restore(backup)

    with pytest.raises(LeadershipLostError, match="restored from a backup"):
        await holder.renew()


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ApiError(403, "Forbidden", "leases is forbidden"), "leases is forbidden"),
        (ApiError(404, "NotFound", 'namespaces "system" not found'), '"system" not found'),
        (ApiError(500, "InternalError", "etcd"), None),
        (ApiError(429, "TooManyRequests", "wait"), None),
        (Unreachable(0, "", "refused"), None),
    ],
)
async def test_an_operator_whose_requests_for_the_lease_are_rejected_is_unhealthy(
    error: ApiError, problem: str | None
) -> None:
    cluster = RejectingCluster(error)
    waiting = lease(cluster, FakeTime(), "a")
    acquiring = asyncio.ensure_future(waiting.acquire())
    await asyncio.sleep(0)
    before = waiting.problem()
    acquiring.cancel()

    cluster.error = None
    await waiting.acquire()

    assert (problem or "") in (before or "")
    assert (before is None) == (problem is None)
    assert waiting.problem() is None


class RejectingCluster(FakeCluster):
    """Rejects reads with an error."""

    def __init__(self, error: ApiError | None) -> None:
        super().__init__()
        self.error = error

    @override
    async def get(self, *arguments: Any) -> Manifest | None:
        if self.error:
            raise self.error
        return await super().get(*arguments)
