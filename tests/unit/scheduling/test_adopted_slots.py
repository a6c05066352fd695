import pytest

from slotkeeper.scheduling import Dispatcher, QueueLimits, SlotProbe, SlotReservation


def replica_with(
    slots: int, *, adopted: int, own: int = 0
) -> tuple[Dispatcher[int], list[SlotReservation[int]]]:
    """A replica "a" with adopted slots, and with `own` requests that /slots counts."""
    dispatcher: Dispatcher[int] = Dispatcher(QueueLimits())
    dispatcher.add("a", slots, now=0)
    dispatcher.adopt("a", adopted, now=0)
    for number in range(own):
        dispatcher.enqueue(number, 0, now=0)
    reservations = dispatcher.dispatch(now=0)
    for reservation in reservations:
        reservation.visible_at = 0.5
    return dispatcher, reservations


def test_adopted_slots_are_not_dispatched_to() -> None:
    dispatcher, reservations = replica_with(3, adopted=2, own=2)

    assert (len(reservations), dispatcher.busy_slots, dispatcher.queued) == (1, 3, 1)


@pytest.mark.parametrize(("processing", "free"), [(3, 0), (2, 1), (1, 2), (0, 2)])
def test_adopted_slots_are_released_as_slots_counts_fewer(processing: int, free: int) -> None:
    dispatcher, _ = replica_with(3, adopted=2, own=1)
    for hold in SlotProbe(dispatcher.replicas["a"], now=1).released(processing):
        dispatcher.release(hold, now=1)

    assert dispatcher.replicas["a"].free == free


def test_adopted_slots_never_time_out_and_an_aborted_request_beside_them_does() -> None:
    dispatcher, (own,) = replica_with(3, adopted=1, own=1)
    dispatcher.abort(own, now=1)

    assert SlotProbe(dispatcher.replicas["a"], now=1000).timed_out(1000, limit=30) == [own]


def test_an_aborted_request_is_released_before_an_adopted_slot() -> None:
    dispatcher, (own,) = replica_with(3, adopted=1, own=1)
    dispatcher.abort(own, now=1)

    assert SlotProbe(dispatcher.replicas["a"], now=2).released(1) == [own]


@pytest.mark.parametrize(
    ("own", "aborted", "processing", "foreign"),
    [(0, 0, 2, 2), (1, 0, 2, 1), (1, 1, 2, 1), (2, 1, 2, 0), (2, 0, 1, 0)],
)
def test_requests_without_a_hold_are_foreign(
    own: int, aborted: int, processing: int, foreign: int
) -> None:
    dispatcher, reservations = replica_with(4, adopted=0, own=own)
    for reservation in reservations[:aborted]:
        dispatcher.abort(reservation, now=1)

    assert SlotProbe(dispatcher.replicas["a"], now=1).foreign(processing) == foreign


def test_a_request_that_is_not_visible_yet_hides_no_foreign_one() -> None:
    dispatcher, (reservation,) = replica_with(4, adopted=0, own=1)
    reservation.visible_at = 5

    assert SlotProbe(dispatcher.replicas["a"], now=1).foreign(1) == 1


def test_a_drained_replica_drops_its_adopted_slots_and_keeps_its_own() -> None:
    dispatcher, _ = replica_with(3, adopted=2, own=1)
    dispatcher.drain("a", now=1)

    assert dispatcher.busy_slots == 1
    dispatcher.remove("a", now=1)
    assert dispatcher.busy_slots == 1


def test_a_removed_replica_with_only_adopted_slots_is_deleted_at_once() -> None:
    dispatcher, _ = replica_with(3, adopted=2)
    dispatcher.remove("a", now=1)

    assert not dispatcher.replicas


def test_all_queued_requests_are_taken_in_order() -> None:
    dispatcher: Dispatcher[int] = Dispatcher(QueueLimits())
    for number in range(3):
        dispatcher.enqueue(number, 10, now=number)

    assert [queued.request for queued in dispatcher.take_all()] == [0, 1, 2]
    assert (dispatcher.queued, dispatcher.queued_bytes, dispatcher.next_wakeup()) == (0, 0, None)
