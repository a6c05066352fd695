import pytest

from slotkeeper.scheduling import Dispatcher, QueueLimits, SlotProbe, SlotReservation


def running(count: int, *, aborted: int) -> tuple[Dispatcher[int], list[SlotReservation[int]]]:
    """A replica with 4 slots and `count` requests, of which the first are aborted at 1.0."""
    dispatcher: Dispatcher[int] = Dispatcher(QueueLimits())
    dispatcher.add("a", 4, now=0)
    for number in range(count):
        dispatcher.enqueue(number, 0, now=0)
    reservations = dispatcher.dispatch(now=0)
    for reservation in reservations:
        reservation.visible_at = 0.5
    for reservation in reservations[:aborted]:
        dispatcher.abort(reservation, now=1.0)
    return dispatcher, reservations


@pytest.mark.parametrize(
    ("count", "aborted", "processing", "free"),
    [
        (1, 1, 1, 0),
        (1, 1, 0, 1),
        (3, 1, 3, 0),
        (3, 1, 2, 1),
        (4, 3, 3, 1),
        (4, 3, 0, 3),
        (2, 1, 9, 0),
        (2, 0, 2, 0),
    ],
)
def test_processing_slots_beyond_the_running_requests_are_those_of_aborted_ones(
    count: int, aborted: int, processing: int, free: int
) -> None:
    dispatcher, _ = running(count, aborted=aborted)

    assert len(SlotProbe(dispatcher.replicas["a"], now=2).released(processing)) == free


def test_a_request_that_ends_during_the_probe_releases_no_aborted_one() -> None:
    dispatcher, reservations = running(2, aborted=1)
    probe = SlotProbe(dispatcher.replicas["a"], now=2)
    dispatcher.release(reservations[1], now=2.1)

    assert probe.released(1) == []


def test_a_request_that_is_not_visible_yet_releases_no_aborted_one() -> None:
    dispatcher, reservations = running(2, aborted=1)
    reservations[1].visible_at = 2.02

    assert SlotProbe(dispatcher.replicas["a"], now=2).released(1) == []


def test_a_request_aborted_during_the_probe_is_left_to_the_next_one() -> None:
    dispatcher, reservations = running(2, aborted=1)
    probe = SlotProbe(dispatcher.replicas["a"], now=2)
    dispatcher.abort(reservations[1], now=2.1)

    assert probe.released(0) == [reservations[0]]


def test_the_probe_is_empty_without_aborted_requests() -> None:
    assert SlotProbe(running(2, aborted=0)[0].replicas["a"], now=2).is_empty
    assert not SlotProbe(running(2, aborted=1)[0].replicas["a"], now=2).is_empty


def test_a_slot_that_is_not_released_times_out_at_the_limit() -> None:
    dispatcher, reservations = running(1, aborted=1)
    probe = SlotProbe(dispatcher.replicas["a"], now=2)

    assert probe.timed_out(now=10.9, limit=10) == []
    assert probe.timed_out(now=11.0, limit=10) == [reservations[0]]


def test_an_aborted_request_that_is_not_visible_yet_is_not_released() -> None:
    dispatcher, (reservation,) = running(1, aborted=1)
    reservation.visible_at = 3

    early, late = (SlotProbe(dispatcher.replicas["a"], now) for now in (2, 3))

    assert (early.is_empty, early.released(0)) == (False, [])
    assert late.released(0) == [reservation]
