import pytest

from slotkeeper.scheduling import Bounds, Claim, Dispatcher, Look


def replica_of(
    slots: int, *, inherited: int, own: int = 0
) -> tuple[Dispatcher[int], list[Claim[int]]]:
    """A replica "a" whose slots are held by requests of before, and by `own` settled ones."""
    made: Dispatcher[int] = Dispatcher(Bounds())
    made.add("a", slots, now=0)
    made.inherit("a", inherited, now=0)
    for number in range(own):
        made.offer(number, 0, now=0)
    claims = made.claims(now=0)
    for claim in claims:
        claim.settled_at = 0.5
    return made, claims


def test_slots_that_others_hold_are_not_handed_out() -> None:
    made, claims = replica_of(3, inherited=2, own=2)

    assert (len(claims), made.busy, made.waiting) == (1, 3, 1)


@pytest.mark.parametrize(("processing", "free"), [(3, 0), (2, 1), (1, 2), (0, 2)])
def test_they_come_free_as_slots_counts_fewer(processing: int, free: int) -> None:
    made, _ = replica_of(3, inherited=2, own=1)
    for claim in Look(made.replicas["a"], now=1).let_go(processing):
        made.finish(claim, now=1)

    assert made.replicas["a"].free == free


def test_they_never_are_overdue_and_an_abandoned_one_beside_them_is() -> None:
    made, (own,) = replica_of(3, inherited=1, own=1)
    made.abandon(own, now=1)

    assert Look(made.replicas["a"], now=1000).overdue(1000, limit=30) == [own]


def test_an_abandoned_one_is_let_go_before_an_inherited_one() -> None:
    made, (own,) = replica_of(3, inherited=1, own=1)
    made.abandon(own, now=1)

    assert Look(made.replicas["a"], now=2).let_go(1) == [own]


@pytest.mark.parametrize(
    ("own", "abandoned", "processing", "unknown"),
    [(0, 0, 2, 2), (1, 0, 2, 1), (1, 1, 2, 1), (2, 1, 2, 0), (2, 0, 1, 0)],
)
def test_what_nobody_here_holds_is_unknown(
    own: int, abandoned: int, processing: int, unknown: int
) -> None:
    made, claims = replica_of(4, inherited=0, own=own)
    for claim in claims[:abandoned]:
        made.abandon(claim, now=1)

    assert Look(made.replicas["a"], now=1).unknown(processing) == unknown


def test_a_request_that_is_not_counted_yet_hides_no_unknown_one() -> None:
    made, (claim,) = replica_of(4, inherited=0, own=1)
    claim.settled_at = 5

    assert Look(made.replicas["a"], now=1).unknown(1) == 1


def test_a_replica_that_is_drained_forgets_what_it_inherited_and_keeps_what_is_its_own() -> None:
    made, _ = replica_of(3, inherited=2, own=1)
    made.drain("a", now=1)

    assert made.busy == 1
    made.remove("a", now=1)
    assert made.busy == 1


def test_a_replica_that_leaves_with_nothing_of_its_own_is_gone_at_once() -> None:
    made, _ = replica_of(3, inherited=2)
    made.remove("a", now=1)

    assert not made.replicas


def test_all_that_wait_are_handed_over_in_order() -> None:
    made: Dispatcher[int] = Dispatcher(Bounds())
    for number in range(3):
        made.offer(number, 10, now=number)

    assert [ticket.payload for ticket in made.hand_over()] == [0, 1, 2]
    assert (made.waiting, made.waiting_bytes, made.next_call()) == (0, 0, None)
