import pytest

from slotkeeper.scheduling import (
    AffinityLimits,
    Dispatcher,
    FlowKey,
    QueueLimits,
    SlotReservation,
)

X, Y = (1,), (2,)
"""Two prompts."""


def with_replicas(*affinity: AffinityLimits | None, **slots: int) -> Dispatcher[str]:
    dispatcher: Dispatcher[str] = Dispatcher(QueueLimits(), *affinity)
    for name, count in slots.items():
        dispatcher.add(name, count, now=0)
    return dispatcher


def arrive(
    dispatcher: Dispatcher[str], name: str, prompt: tuple[int, ...] = (), priority: int = 0
) -> list[SlotReservation[str]]:
    dispatcher.enqueue(name, 1, 0, prefixes=prompt, flow_key=FlowKey(priority))
    return dispatcher.dispatch(0)


def complete(
    dispatcher: Dispatcher[str], *reservations: SlotReservation[str]
) -> list[tuple[str, str]]:
    """Release these slots one after the other; return what is dispatched to which replica."""
    order = []
    for reservation in reservations:
        dispatcher.release(reservation, 0)
        order += pairs(dispatcher.dispatch(0))
    return order


def pairs(reservations: list[SlotReservation[str]]) -> list[tuple[str, str]]:
    return [(each.queued.request, each.replica.name) for each in reservations]


def all_busy(
    prompt: tuple[int, ...], **slots: int
) -> tuple[Dispatcher[str], list[SlotReservation[str]]]:
    """Replicas without a free slot, of which only the first has `prompt` in its cache."""
    dispatcher = with_replicas(**slots)
    running = arrive(dispatcher, "first", prompt)
    assert running[0].replica.name == next(iter(slots))
    for number in range(sum(slots.values()) - 1):
        running += arrive(dispatcher, f"running {number}")
    return dispatcher, running


def on(replica: str, reservations: list[SlotReservation[str]]) -> list[SlotReservation[str]]:
    return [each for each in reservations if each.replica.name == replica]


def reserved(dispatcher: Dispatcher[str], replica: str) -> list[SlotReservation[str]]:
    """The reservations of a replica's slots."""
    return [
        each for each in dispatcher.replicas[replica].holds if isinstance(each, SlotReservation)
    ]


def test_a_prompt_is_dispatched_to_its_cache_though_another_replica_has_more_free_slots() -> None:
    dispatcher = with_replicas(a=2, b=2)
    (first,) = arrive(dispatcher, "first", X)
    (again,) = arrive(dispatcher, "again", X)

    assert (again.replica, first.prefix_hit, again.prefix_hit) == (first.replica, False, True)


def test_short_prompts_are_neither_hits_nor_misses() -> None:
    (reservation,) = arrive(with_replicas(a=1), "short")

    assert reservation.prefix_hit is None


def test_a_request_is_queued_for_the_replica_that_holds_its_prefix() -> None:
    dispatcher, running = all_busy(X, a=2, b=1)
    arrive(dispatcher, "hit", X)

    assert complete(dispatcher, *on("b", running)) == []
    assert complete(dispatcher, on("a", running)[0]) == [("hit", "a")]


def test_an_affinity_queue_of_half_the_slots_is_not_joined() -> None:
    dispatcher, running = all_busy(X, a=4, b=4)
    arrive(dispatcher, "affinity 1", X)
    arrive(dispatcher, "affinity 2", X)
    arrive(dispatcher, "shared", X)

    assert [queued.affinity_replica for queued in dispatcher.queue] == ["a", "a", None]
    assert complete(dispatcher, on("b", running)[0]) == [("shared", "b")]


def test_a_prefix_that_most_replicas_hold_is_no_reason_to_join_an_affinity_queue() -> None:
    dispatcher = with_replicas(a=1, b=1, c=1)
    for name in ("on a", "affinity", "on b", "on c", "shared"):
        arrive(dispatcher, name, X)

    assert [(queued.request, queued.affinity_replica) for queued in dispatcher.queue] == [
        ("affinity", "a"),
        ("shared", None),
    ]


def test_the_shortest_of_several_affinity_queues_is_joined() -> None:
    dispatcher = with_replicas(a=4, b=4, c=1, d=1)
    for number in range(5):
        arrive(dispatcher, str(number), X)
    for number in range(5):
        arrive(dispatcher, f"other {number}")
    for _ in range(4):
        arrive(dispatcher, "hit", X)

    joined = sorted(str(queued.affinity_replica) for queued in dispatcher.queue)
    assert joined == ["a", "a", "b", "b"]


def test_no_affinity_queue_is_joined_while_another_replica_with_the_prefix_has_a_free_slot() -> (
    None
):
    dispatcher = with_replicas(a=1, b=1, c=1, d=1)
    arrive(dispatcher, "on a", X)
    arrive(dispatcher, "affinity", X)
    (b,) = arrive(dispatcher, "on b", X)
    dispatcher.release(b, 0)
    queued = dispatcher.enqueue("again", 1, 0, prefixes=X)

    assert queued.affinity_replica is None
    assert pairs(dispatcher.dispatch(0)) == [("again", "b")]


def test_a_free_slot_looks_ahead_for_a_prefix_cache_hit() -> None:
    dispatcher, running = all_busy(X, a=1)
    arrive(dispatcher, "miss 1")
    arrive(dispatcher, "miss 2", Y)
    arrive(dispatcher, "hit", X)

    assert complete(dispatcher, *running) == [("hit", "a")]


def test_lookahead_is_limited() -> None:
    dispatcher, running = all_busy(X, a=1)
    for number in range(16):
        arrive(dispatcher, f"miss {number}")
    arrive(dispatcher, "hit", X)

    assert complete(dispatcher, *running) == [("miss 0", "a")]


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_the_head_is_bypassed_up_to_the_limit_and_not_once_more(limit: int) -> None:
    dispatcher = with_replicas(AffinityLimits(max_bypass=limit), a=1)
    running = arrive(dispatcher, "first", X)
    arrive(dispatcher, "miss")
    order = []
    for number in range(limit + 2):
        arrive(dispatcher, f"hit {number}", X)
        dispatcher.release(running[0], 0)
        running = dispatcher.dispatch(0)
        order.append(running[0].queued.request)

    assert order == [*(f"hit {number}" for number in range(limit)), "miss", f"hit {limit}"]


def test_a_request_at_the_bypass_limit_is_dispatched_before_an_affinity_queue() -> None:
    dispatcher = with_replicas(AffinityLimits(max_bypass=1), a=1, b=1)
    a, b = *arrive(dispatcher, "on a", X), *arrive(dispatcher, "on b", Y)
    arrive(dispatcher, "miss")
    arrive(dispatcher, "affinity 1", X)
    assert complete(dispatcher, a) == [("affinity 1", "a")]
    arrive(dispatcher, "affinity 2", X)

    assert complete(dispatcher, *reserved(dispatcher, "a")) == [("miss", "a")]
    assert complete(dispatcher, b) == []


def test_a_request_keeps_its_bypass_count_when_it_is_requeued() -> None:
    dispatcher = with_replicas(AffinityLimits(max_bypass=1), a=1)
    running = arrive(dispatcher, "first", X)
    arrive(dispatcher, "miss")
    arrive(dispatcher, "hit 1", X)
    arrive(dispatcher, "hit 2", X)
    assert complete(dispatcher, *running) == [("hit 1", "a")]
    assert complete(dispatcher, *reserved(dispatcher, "a")) == [("miss", "a")]
    (miss,) = reserved(dispatcher, "a")
    dispatcher.release(miss, 0)
    dispatcher.requeue(miss.queued)

    assert [each.queued.request for each in dispatcher.dispatch(0)] == ["miss"]


def test_a_requeued_request_is_ahead_of_later_ones_of_its_key_though_it_was_served_ahead() -> None:
    dispatcher = with_replicas(a=3)
    running = [
        *arrive(dispatcher, "1", X),
        *arrive(dispatcher, "2"),
        *arrive(dispatcher, "3"),
    ]
    dispatcher.enqueue("miss", 1, 0, flow_key=FlowKey(key="other"))
    arrive(dispatcher, "hit 1", X)
    arrive(dispatcher, "hit 2", X)
    assert complete(dispatcher, *running[:2]) == [("hit 1", "a"), ("hit 2", "a")]
    arrive(dispatcher, "late")
    (hit,) = (each for each in reserved(dispatcher, "a") if each.queued.request == "hit 2")
    dispatcher.release(hit, 0)
    dispatcher.requeue(hit.queued)

    assert [queued.request for queued in dispatcher.queue] == ["miss", "hit 2", "late"]


def test_a_request_in_an_affinity_queue_is_not_bypassed_by_dispatches_to_other_replicas() -> None:
    dispatcher = with_replicas(AffinityLimits(max_bypass=1), a=1, b=1)
    (a,) = arrive(dispatcher, "on a", X)
    (b,) = arrive(dispatcher, "on b")
    arrive(dispatcher, "hit", X)
    for number in range(3):
        dispatcher.release(b, 0)
        (b,) = arrive(dispatcher, f"other {number}")
        assert b.replica.name == "b"

    assert complete(dispatcher, b) == []
    assert complete(dispatcher, a) == [("hit", "a")]


def test_a_request_takes_any_slot_after_the_maximum_time_in_an_affinity_queue() -> None:
    dispatcher, _ = all_busy(X, a=2, b=2)
    dispatcher.release(on("b", reserved(dispatcher, "b"))[0], 0)
    arrive(dispatcher, "hit", X)
    assert dispatcher.next_wakeup() == 5
    assert dispatcher.dispatch(now=4.9) == []

    assert pairs(dispatcher.dispatch(now=5)) == [("hit", "b")]
    assert dispatcher.next_wakeup() is None


def test_no_affinity_queue_is_joined_while_the_shared_queue_is_long() -> None:
    dispatcher, _ = all_busy(X, a=4, b=4)
    for number in range(15):
        arrive(dispatcher, f"miss {number}")
    arrive(dispatcher, "affinity", X)
    arrive(dispatcher, "the sixteenth")
    arrive(dispatcher, "shared", X)

    assert [queued.request for queued in dispatcher.queue if queued.affinity_replica] == [
        "affinity"
    ]


def test_the_last_request_of_the_lookahead_joins_an_affinity_queue_on_arrival() -> None:
    dispatcher, _ = all_busy(X, a=4, b=4)
    for number in range(15):
        arrive(dispatcher, f"miss {number}")

    assert dispatcher.enqueue("hit", 1, 0, prefixes=X).affinity_replica == "a"


def test_an_affinity_queue_is_joined_once_few_requests_are_ahead() -> None:
    dispatcher, running = all_busy(X, a=4, b=4)
    for number in range(16):
        arrive(dispatcher, f"miss {number}")
    arrive(dispatcher, "hit", X)
    assert not dispatcher.queue.affinity_queues
    assert complete(dispatcher, on("b", running)[0]) == [("miss 0", "b")]

    assert [queued.request for queued in dispatcher.queue.affinity_queues["a"]] == ["hit"]


def test_no_request_joins_an_affinity_queue_twice() -> None:
    dispatcher, _ = all_busy(X, a=4, b=4)
    arrive(dispatcher, "hit", X)
    assert dispatcher.dispatch(now=5) == []

    assert [(queued.affinity_replica, dispatcher.next_wakeup()) for queued in dispatcher.queue] == [
        (None, 60)
    ]


def test_an_affinity_queue_is_disbanded_when_its_replica_drains() -> None:
    dispatcher, _ = all_busy(X, a=1, b=1)
    arrive(dispatcher, "hit", X)
    dispatcher.drain("a", now=0)

    assert [queued.affinity_replica for queued in dispatcher.queue] == [None]


def test_a_replica_that_returns_has_an_empty_cache() -> None:
    dispatcher = with_replicas(a=1)
    complete(dispatcher, *arrive(dispatcher, "first", X))
    dispatcher.drain("a", now=0)
    dispatcher.add("a", 1, now=0)

    (again,) = arrive(dispatcher, "again", X)
    assert again.prefix_hit is False


def test_only_a_replicas_last_prompts_are_hits() -> None:
    dispatcher = with_replicas(AffinityLimits(cached_prompts=1), a=1)
    hits = []
    for prompt in ((1,), (2,), (1,), (2,), (3,), (1,)):
        (reservation,) = arrive(dispatcher, "x", prompt)
        hits.append(reservation.prefix_hit)
        dispatcher.release(reservation, 0)

    assert hits == [False, False, True, True, False, False]


def test_a_higher_priority_is_dispatched_before_affinity_queues_and_lookahead_hits() -> None:
    dispatcher, running = all_busy(X, a=2, b=2)
    arrive(dispatcher, "affinity", X)
    arrive(dispatcher, "hit", X)
    arrive(dispatcher, "urgent", priority=1)

    assert complete(dispatcher, *on("a", running)) == [("urgent", "a"), ("affinity", "a")]


def test_a_request_beyond_the_queue_limit_takes_a_free_slot_instead_of_an_affinity_queue() -> None:
    dispatcher: Dispatcher[str] = Dispatcher(QueueLimits(max_queued=0))
    dispatcher.add("a", 1, now=0)
    dispatcher.add("b", 1, now=0)
    arrive(dispatcher, "first", X)

    (reservation,) = arrive(dispatcher, "again", X)
    assert reservation.replica.name == "b"


def test_without_affinity_the_order_is_that_of_arrival_whatever_is_cached() -> None:
    dispatcher = with_replicas(None, a=1)
    running = arrive(dispatcher, "first", X)
    for name, prompt in (("1", Y), ("2", X), ("3", Y), ("4", X)):
        arrive(dispatcher, name, prompt)
    order = []
    while running:
        dispatcher.release(running[0], 0)
        running = dispatcher.dispatch(0)
        order += [(each.queued.request, each.prefix_hit) for each in running]

    assert order == [("1", None), ("2", None), ("3", None), ("4", None)]


def test_the_position_counts_all_requests_ahead() -> None:
    dispatcher, _ = all_busy(X, a=2, b=2)
    affinity = dispatcher.enqueue("affinity", 1, 0, prefixes=X)
    shared = dispatcher.enqueue("shared", 1, 0)
    urgent = dispatcher.enqueue("urgent", 1, 0, flow_key=FlowKey(1))

    assert [dispatcher.queue.position(each) for each in (urgent, affinity, shared)] == [1, 2, 3]
    dispatcher.cancel(affinity)
    assert [dispatcher.queue.position(each) for each in (urgent, affinity, shared)] == [1, 0, 2]
