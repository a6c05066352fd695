import pytest

from slotkeeper.scheduling import Dispatcher, QueueFull, QueueLimits, SlotReservation

BOUNDS = QueueLimits(max_queued=2, max_queued_bytes=100, queue_timeout=60, cold_start_timeout=600)


def dispatcher(**slots: int) -> Dispatcher[str]:
    made: Dispatcher[str] = Dispatcher(BOUNDS)
    for name, count in slots.items():
        made.add(name, count, now=0)
    return made


def arrive(
    made: Dispatcher[str], *names: str, now: float = 0, size: int = 1
) -> list[SlotReservation[str]]:
    claims = []
    for name in names:
        made.enqueue(name, size, now)
        claims += made.dispatch(now)
    return claims


def got(claims: list[SlotReservation[str]]) -> list[tuple[str, str]]:
    return [(claim.queued.request, claim.replica.name) for claim in claims]


def test_a_request_gets_a_slot_of_the_replica_with_most_free_ones() -> None:
    made = dispatcher(a=1, b=3)

    assert got(arrive(made, "1", "2", "3")) == [("1", "b"), ("2", "b"), ("3", "a")]


def test_among_equals_the_replica_that_rested_longest_is_next() -> None:
    made = dispatcher(a=2, b=2)
    order = []
    for name in ("1", "2", "3", "4"):
        (claim,) = arrive(made, name)
        order.append(claim.replica.name)
        made.release(claim, now=0)

    assert order == ["a", "b", "a", "b"]


def test_who_waits_gets_slots_in_the_order_of_arrival() -> None:
    made = dispatcher(a=1)
    (claim,) = arrive(made, "1", "2", "3")
    made.release(claim, now=1)

    (second,) = made.dispatch(now=1)
    assert second.queued.request == "2"
    assert made.queued == 1


def test_one_more_than_may_wait_is_refused_and_no_one_fewer() -> None:
    made = dispatcher(a=1)
    arrive(made, "running", "1", "2")

    with pytest.raises(QueueFull, match="2 requests"):
        made.enqueue("3", 1, now=0)


def test_more_bytes_than_may_wait_are_refused() -> None:
    made = dispatcher()
    arrive(made, "1", size=60)

    with pytest.raises(QueueFull, match="60 bytes"):
        made.enqueue("2", 41, now=0)
    made.enqueue("2", 40, now=0)


def test_bounds_are_not_for_one_that_a_free_slot_awaits() -> None:
    made = Dispatcher[str](QueueLimits(max_queued=0, max_queued_bytes=0))
    made.add("a", 1, now=0)

    assert got(arrive(made, "1", size=10)) == [("1", "a")]
    with pytest.raises(QueueFull):
        made.enqueue("2", 0, now=0)


def test_who_gives_up_leaves_at_once() -> None:
    made = dispatcher()
    ticket = made.enqueue("1", 60, now=0)

    assert made.cancel(ticket)
    assert not made.cancel(ticket)
    assert (made.queued, made.queued_bytes) == (0, 0)


def test_one_that_must_be_tried_again_goes_before_all_that_came_later() -> None:
    made = dispatcher(a=2)
    first, second = arrive(made, "1", "2", "3", "4")
    made.drain("a", now=0)
    for claim in (second, first):
        made.release(claim, now=0)
        made.requeue(claim.queued)
    made.add("b", 4, now=0)

    assert [claim.queued.request for claim in made.dispatch(now=0)] == ["1", "2", "3", "4"]


def test_one_that_is_tried_again_later_than_another_keeps_its_turn() -> None:
    made = dispatcher(a=2)
    first, second = arrive(made, "1", "2", "3")
    made.drain("a", now=0)
    for claim in (first, second):
        made.release(claim, now=0)
        made.requeue(claim.queued)
    made.add("b", 4, now=0)

    assert [claim.queued.request for claim in made.dispatch(now=0)] == ["1", "2", "3"]


def test_an_abandoned_slot_is_held_until_it_is_let_go_of() -> None:
    made = dispatcher(a=1)
    (claim,) = arrive(made, "1", "2")
    made.abort(claim, now=1)
    assert made.dispatch(now=1) == []

    made.release(claim, now=2)
    assert got(made.dispatch(now=2)) == [("2", "a")]


def test_a_slot_given_back_twice_is_one_slot() -> None:
    made = dispatcher(a=2)
    first, _ = arrive(made, "1", "2")
    made.release(first, now=0)
    made.release(first, now=0)

    assert made.busy_slots == 1


def test_a_draining_replica_gets_nothing_new_and_keeps_what_it_has() -> None:
    made = dispatcher(a=2)
    arrive(made, "1")
    made.drain("a", now=0)

    assert arrive(made, "2") == []
    assert (made.busy_slots, made.total_slots, made.has_replica) == (1, 1, False)


def test_a_removed_replica_is_forgotten_with_its_last_request() -> None:
    made = dispatcher(a=2)
    (claim,) = arrive(made, "1")
    made.remove("a", now=0)
    assert "a" in made.replicas

    made.release(claim, now=0)
    assert made.replicas == {}


def test_a_replica_that_comes_back_still_counts_what_it_runs() -> None:
    made = dispatcher(a=2)
    arrive(made, "1")
    made.remove("a", now=0)
    made.add("a", 2, now=1)

    assert got(arrive(made, "2", "3")) == [("2", "a")]


def test_a_replica_with_fewer_slots_than_it_runs_has_none_free() -> None:
    made = dispatcher(a=3)
    arrive(made, "1", "2", "3")
    made.add("a", 1, now=0)

    assert (made.total_slots, made.busy_slots) == (3, 3)
    assert made.replicas["a"].free == 0


def test_waiting_ends_after_its_time() -> None:
    made = dispatcher(a=1)
    arrive(made, "running", "1", now=0)
    arrive(made, "2", now=10)

    assert made.next_deadline() == 60
    assert made.expired(now=59.9) == []
    assert [ticket.request for ticket in made.expired(now=60)] == ["1"]
    assert made.next_deadline() == 70


def test_waiting_for_a_first_replica_may_take_longer() -> None:
    made = dispatcher()
    arrive(made, "1", now=0)

    assert made.next_deadline() == 600


def test_the_first_replica_finds_nobody_overdue() -> None:
    made = dispatcher()
    arrive(made, "1", "2", now=0)
    made.add("a", 1, now=500)
    made.dispatch(now=500)

    assert made.expired(now=500) == []
    assert made.next_deadline() == 560


def test_replicas_that_come_and_go_do_not_make_a_wait_endless() -> None:
    made = dispatcher(a=1)
    arrive(made, "running", "1", now=0)
    for now in range(10, 700, 10):
        made.drain("a", now)
        made.add("a", 1, now)

    assert made.next_deadline() == 660


def test_retry_after_follows_the_pace_at_which_slots_come_free() -> None:
    made = dispatcher(a=1)
    for second in range(11):
        made.release(arrive(made, "x", now=2 * second)[0], now=2 * second)
    arrive(made, "running", "1", "2", now=20)

    assert made.retry_after(now=20) == pytest.approx(3 * 2)
    assert made.retry_after(now=40) == pytest.approx(3 * 4)


def test_retry_after_is_never_less_than_a_second() -> None:
    assert dispatcher(a=1).retry_after(now=0) == 1
    assert dispatcher().retry_after(now=0) == 5


def test_the_numbers_say_what_there_is() -> None:
    made = dispatcher(a=2, b=1)
    arrive(made, "1", "2", "3", now=1)
    arrive(made, "4", now=3)

    assert (made.total_slots, made.busy_slots, made.queued, made.oldest_queued_seconds(now=5)) == (
        3,
        3,
        1,
        2,
    )
    assert [replica.name for replica in made.ready_replicas()] == ["a", "b"]
