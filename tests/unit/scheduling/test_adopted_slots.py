import pytest

from slotkeeper.scheduling import Dispatcher, QueueLimits, SlotProbe, SlotReservation


def replica_of(
    slots: int, *, inherited: int, own: int = 0
) -> tuple[Dispatcher[int], list[SlotReservation[int]]]:
    """A replica "a" whose slots are held by requests of before, and by `own` settled ones."""
    made: Dispatcher[int] = Dispatcher(QueueLimits())
    made.add("a", slots, now=0)
    made.adopt("a", inherited, now=0)
    for number in range(own):
        made.enqueue(number, 0, now=0)
    claims = made.dispatch(now=0)
    for claim in claims:
        claim.visible_at = 0.5
    return made, claims


def test_slots_that_others_hold_are_not_handed_out() -> None:
    made, claims = replica_of(3, inherited=2, own=2)

    assert (len(claims), made.busy_slots, made.queued) == (1, 3, 1)


@pytest.mark.parametrize(("processing", "free"), [(3, 0), (2, 1), (1, 2), (0, 2)])
def test_they_come_free_as_slots_counts_fewer(processing: int, free: int) -> None:
    made, _ = replica_of(3, inherited=2, own=1)
    for claim in SlotProbe(made.replicas["a"], now=1).released(processing):
        made.release(claim, now=1)

    assert made.replicas["a"].free == free


def test_they_never_are_overdue_and_an_abandoned_one_beside_them_is() -> None:
    made, (own,) = replica_of(3, inherited=1, own=1)
    made.abort(own, now=1)

    assert SlotProbe(made.replicas["a"], now=1000).timed_out(1000, limit=30) == [own]


def test_an_abandoned_one_is_let_go_before_an_inherited_one() -> None:
    made, (own,) = replica_of(3, inherited=1, own=1)
    made.abort(own, now=1)

    assert SlotProbe(made.replicas["a"], now=2).released(1) == [own]


@pytest.mark.parametrize(
    ("own", "abandoned", "processing", "unknown"),
    [(0, 0, 2, 2), (1, 0, 2, 1), (1, 1, 2, 1), (2, 1, 2, 0), (2, 0, 1, 0)],
)
def test_what_nobody_here_holds_is_unknown(
    own: int, abandoned: int, processing: int, unknown: int
) -> None:
    made, claims = replica_of(4, inherited=0, own=own)
    for claim in claims[:abandoned]:
        made.abort(claim, now=1)

    assert SlotProbe(made.replicas["a"], now=1).foreign(processing) == unknown


def test_a_request_that_is_not_counted_yet_hides_no_unknown_one() -> None:
    made, (claim,) = replica_of(4, inherited=0, own=1)
    claim.visible_at = 5

    assert SlotProbe(made.replicas["a"], now=1).foreign(1) == 1


def test_a_replica_that_is_drained_forgets_what_it_inherited_and_keeps_what_is_its_own() -> None:
    made, _ = replica_of(3, inherited=2, own=1)
    made.drain("a", now=1)

    assert made.busy_slots == 1
    made.remove("a", now=1)
    assert made.busy_slots == 1


def test_a_replica_that_leaves_with_nothing_of_its_own_is_gone_at_once() -> None:
    made, _ = replica_of(3, inherited=2)
    made.remove("a", now=1)

    assert not made.replicas


def test_all_that_wait_are_handed_over_in_order() -> None:
    made: Dispatcher[int] = Dispatcher(QueueLimits())
    for number in range(3):
        made.enqueue(number, 10, now=number)

    assert [ticket.request for ticket in made.take_all()] == [0, 1, 2]
    assert (made.queued, made.queued_bytes, made.next_wakeup()) == (0, 0, None)
