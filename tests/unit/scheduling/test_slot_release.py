import pytest

from slotkeeper.scheduling import Dispatcher, QueueLimits, SlotProbe, SlotReservation


def running(count: int, *, abandoned: int) -> tuple[Dispatcher[int], list[SlotReservation[int]]]:
    """A replica of 4 slots with `count` claims, the first `abandoned` of them abandoned at 1.0."""
    made: Dispatcher[int] = Dispatcher(QueueLimits())
    made.add("a", 4, now=0)
    for number in range(count):
        made.enqueue(number, 0, now=0)
    claims = made.dispatch(now=0)
    for claim in claims:
        claim.visible_at = 0.5
    for claim in claims[:abandoned]:
        made.abort(claim, now=1.0)
    return made, claims


@pytest.mark.parametrize(
    ("count", "abandoned", "processing", "free"),
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
def test_what_processes_beyond_the_running_ones_is_abandoned(
    count: int, abandoned: int, processing: int, free: int
) -> None:
    made, _ = running(count, abandoned=abandoned)

    assert len(SlotProbe(made.replicas["a"], now=2).released(processing)) == free


def test_a_request_that_ends_while_we_look_does_not_free_an_abandoned_slot() -> None:
    made, claims = running(2, abandoned=1)
    look = SlotProbe(made.replicas["a"], now=2)
    made.release(claims[1], now=2.1)

    assert look.released(1) == []


def test_a_request_that_began_just_now_does_not_free_an_abandoned_slot() -> None:
    made, claims = running(2, abandoned=1)
    claims[1].visible_at = 2.02

    assert SlotProbe(made.replicas["a"], now=2).released(1) == []


def test_a_request_abandoned_while_we_look_waits_for_the_next_look() -> None:
    made, claims = running(2, abandoned=1)
    look = SlotProbe(made.replicas["a"], now=2)
    made.abort(claims[1], now=2.1)

    assert look.released(0) == [claims[0]]


def test_there_is_nothing_to_ask_about_where_nothing_is_abandoned() -> None:
    assert SlotProbe(running(2, abandoned=0)[0].replicas["a"], now=2).is_empty
    assert not SlotProbe(running(2, abandoned=1)[0].replicas["a"], now=2).is_empty


def test_a_slot_that_is_not_let_go_of_is_overdue_after_the_limit() -> None:
    made, claims = running(1, abandoned=1)
    look = SlotProbe(made.replicas["a"], now=2)

    assert look.timed_out(now=10.9, limit=10) == []
    assert look.timed_out(now=11.0, limit=10) == [claims[0]]


def test_one_that_llama_server_may_not_have_begun_yet_is_not_let_go() -> None:
    made, (claim,) = running(1, abandoned=1)
    claim.visible_at = 3

    early, late = (SlotProbe(made.replicas["a"], now) for now in (2, 3))

    assert (early.is_empty, early.released(0)) == (False, [])
    assert late.released(0) == [claim]
