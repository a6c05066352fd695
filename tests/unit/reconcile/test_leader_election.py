"""One operator at a time."""

import pytest

from fake_cluster import FakeCluster
from operator_harness import Time
from slotkeeper.kube.cluster import Unreachable
from slotkeeper.kube.kinds import LEASES
from slotkeeper.reconcile.leader_election import (
    LEASE_NAME,
    LeadershipLostError,
    LeaseRef,
    OperatorLease,
)


@pytest.fixture
def time() -> Time:
    return Time()


def lease(cluster: FakeCluster, time: Time, holder: str) -> OperatorLease:
    return OperatorLease(cluster, LeaseRef("system", holder), time.clock)


async def test_the_first_one_gets_it(cluster: FakeCluster, time: Time) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")

    assert await first.try_acquire()
    assert not await second.try_acquire()
    assert cluster.named(LEASES)[LEASE_NAME]["spec"]["holderIdentity"] == "a"
    labels = cluster.named(LEASES)[LEASE_NAME]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/managed-by": "slotkeeper"}


async def test_one_that_is_renewed_stays(cluster: FakeCluster, time: Time) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()

    for _ in range(20):
        time.passed += 5
        await first.renew()
        assert not await second.try_acquire()


async def test_one_that_is_renewed_no_more_is_taken_and_its_holder_learns_it(
    cluster: FakeCluster, time: Time
) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    await second.try_acquire()

    time.passed += 31
    taken = await second.try_acquire()

    assert taken
    with pytest.raises(LeadershipLostError):
        await first.renew()


async def test_a_released_one_is_free_at_once(cluster: FakeCluster, time: Time) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()

    await first.release()

    assert await second.try_acquire()


async def test_one_whose_last_renewal_was_cut_off_is_released_all_the_same(
    cluster: FakeCluster, time: Time
) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    cluster.edit(
        LEASES, "system", LEASE_NAME, lambda found: found["spec"].update(renewTime="later")
    )

    await first.release()

    assert await second.try_acquire()


async def test_another_ones_is_not_released(cluster: FakeCluster, time: Time) -> None:
    first, second = lease(cluster, time, "a"), lease(cluster, time, "b")
    await first.try_acquire()
    await second.try_acquire()
    time.passed += 31
    await second.try_acquire()

    await first.release()

    assert cluster.named(LEASES)[LEASE_NAME]["spec"]["holderIdentity"] == "b"


async def test_a_holder_that_cannot_renew_stops_before_another_may_take_it(
    cluster: FakeCluster, time: Time
) -> None:
    holder = lease(cluster, time, "a")
    await holder.try_acquire()
    cluster.refuse = lambda *_: Unreachable(0, "", "cut")

    time.passed += 5
    await holder.renew()
    time.passed += 11

    with pytest.raises(LeadershipLostError):
        await holder.renew()


async def test_one_that_stood_still_is_sure_again_once_it_has_renewed(
    cluster: FakeCluster, time: Time
) -> None:
    first = lease(cluster, time, "a")
    await first.try_acquire()
    sure = [first.is_valid()]

    for passes in (15, 1):
        time.passed += passes
        sure.append(first.is_valid())
    await first.renew()

    assert [*sure, first.is_valid()] == [True, True, False, True]


async def test_a_holder_is_healthy_while_it_sees_itself_renew(
    cluster: FakeCluster, time: Time
) -> None:
    holder = lease(cluster, time, "a")
    await holder.try_acquire()
    time.passed += 59
    holder.on_watched_renewal(cluster.named(LEASES)[LEASE_NAME])

    time.passed += 60
    before = holder.is_healthy()
    time.passed += 1

    assert (before, holder.is_healthy()) == (True, False)


async def test_one_that_waits_for_it_is_healthy(cluster: FakeCluster, time: Time) -> None:
    await lease(cluster, time, "a").try_acquire()
    waiting = lease(cluster, time, "b")
    await waiting.try_acquire()

    time.passed += 1000

    assert waiting.is_healthy()
