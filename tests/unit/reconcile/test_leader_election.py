"""Leader election among operators: one leads at a time."""

import pytest

from fake_cluster import FakeCluster
from operator_harness import FakeTime
from slotkeeper.kube.cluster import Unreachable
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
    before = holder.is_healthy()
    time.elapsed += 1

    assert (before, holder.is_healthy()) == (True, False)


async def test_a_standby_is_healthy(cluster: FakeCluster, time: FakeTime) -> None:
    await lease(cluster, time, "a").try_acquire()
    standby = lease(cluster, time, "b")
    await standby.try_acquire()

    time.elapsed += 1000

    assert standby.is_healthy()
