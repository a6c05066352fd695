import pytest

from slotkeeper.scheduling import Affinity, Dispatcher, FlowKey, QueueLimits, SlotReservation

X, Y = (1,), (2,)
"""Two prompts."""


def dispatcher(*affinity: Affinity | None, **slots: int) -> Dispatcher[str]:
    made: Dispatcher[str] = Dispatcher(QueueLimits(), *affinity)
    for name, count in slots.items():
        made.add(name, count, now=0)
    return made


def arrive(
    made: Dispatcher[str], name: str, prompt: tuple[int, ...] = (), priority: int = 0
) -> list[SlotReservation[str]]:
    made.enqueue(name, 1, 0, prompt=prompt, standing=FlowKey(priority))
    return made.dispatch(0)


def end(made: Dispatcher[str], *claims: SlotReservation[str]) -> list[tuple[str, str]]:
    """Who gets the slots of `claims`, which end one after the other."""
    order = []
    for claim in claims:
        made.release(claim, 0)
        order += got(made.dispatch(0))
    return order


def got(claims: list[SlotReservation[str]]) -> list[tuple[str, str]]:
    return [(claim.queued.request, claim.replica.name) for claim in claims]


def knowing(
    prompt: tuple[int, ...], **slots: int
) -> tuple[Dispatcher[str], list[SlotReservation[str]]]:
    """Replicas all of whose slots are held, of which only the first knows `prompt`."""
    made = dispatcher(**slots)
    held = arrive(made, "first", prompt)
    assert held[0].replica.name == next(iter(slots))
    for number in range(sum(slots.values()) - 1):
        held += arrive(made, f"held {number}")
    return made, held


def on(replica: str, held: list[SlotReservation[str]]) -> list[SlotReservation[str]]:
    return [claim for claim in held if claim.replica.name == replica]


def reserved(made: Dispatcher[str], replica: str) -> list[SlotReservation[str]]:
    """What holds a replica's slots."""
    return [each for each in made.replicas[replica].holds if isinstance(each, SlotReservation)]


def test_a_prompt_goes_where_it_is_known_though_another_has_more_free_slots() -> None:
    made = dispatcher(a=2, b=2)
    (first,) = arrive(made, "first", X)
    (again,) = arrive(made, "again", X)

    assert (again.replica, first.prefix_hit, again.prefix_hit) == (first.replica, False, True)


def test_short_prompts_are_neither_hits_nor_misses() -> None:
    (claim,) = arrive(dispatcher(a=1), "short")

    assert claim.prefix_hit is None


def test_a_prompt_waits_for_the_replica_that_knows_it() -> None:
    made, held = knowing(X, a=2, b=1)
    arrive(made, "warm", X)

    assert end(made, *on("b", held)) == []
    assert end(made, on("a", held)[0]) == [("warm", "a")]


def test_a_line_of_half_the_slots_is_not_joined() -> None:
    made, held = knowing(X, a=4, b=4)
    arrive(made, "line 1", X)
    arrive(made, "line 2", X)
    arrive(made, "central", X)

    assert [ticket.affinity_replica for ticket in made.queue] == ["a", "a", None]
    assert end(made, on("b", held)[0]) == [("central", "b")]


def test_what_most_replicas_know_is_no_reason_to_wait_for_one() -> None:
    made = dispatcher(a=1, b=1, c=1)
    for name in ("on a", "line", "on b", "on c", "waiting"):
        arrive(made, name, X)

    assert [(ticket.request, ticket.affinity_replica) for ticket in made.queue] == [
        ("line", "a"),
        ("waiting", None),
    ]


def test_the_shortest_of_several_warm_lines_is_joined() -> None:
    made = dispatcher(a=4, b=4, c=1, d=1)
    for number in range(5):
        arrive(made, str(number), X)
    for number in range(5):
        arrive(made, f"other {number}")
    for _ in range(4):
        arrive(made, "warm", X)

    assert sorted(str(ticket.affinity_replica) for ticket in made.queue) == ["a", "a", "b", "b"]


def test_no_line_is_joined_while_another_warm_replica_has_a_free_slot() -> None:
    made = dispatcher(a=1, b=1, c=1, d=1)
    arrive(made, "on a", X)
    arrive(made, "line", X)
    (b,) = arrive(made, "on b", X)
    made.release(b, 0)
    line = made.enqueue("again", 1, 0, prompt=X).affinity_replica

    assert line is None
    assert got(made.dispatch(0)) == [("again", "b")]


def test_a_free_slot_looks_ahead_for_what_its_replica_knows() -> None:
    made, held = knowing(X, a=1)
    arrive(made, "cold 1")
    arrive(made, "cold 2", Y)
    arrive(made, "warm", X)

    assert end(made, *held) == [("warm", "a")]


def test_it_looks_no_further_than_it_is_told() -> None:
    made, held = knowing(X, a=1)
    for number in range(16):
        arrive(made, f"cold {number}")
    arrive(made, "warm", X)

    assert end(made, *held) == [("cold 0", "a")]


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_the_head_is_overtaken_as_often_as_may_be_and_not_once_more(limit: int) -> None:
    made = dispatcher(Affinity(max_bypass=limit), a=1)
    held = arrive(made, "first", X)
    arrive(made, "cold")
    order = []
    for number in range(limit + 2):
        arrive(made, f"warm {number}", X)
        made.release(held[0], 0)
        held = made.dispatch(0)
        order.append(held[0].queued.request)

    assert order == [*(f"warm {number}" for number in range(limit)), "cold", f"warm {limit}"]


def test_the_due_head_goes_before_a_warm_line() -> None:
    made = dispatcher(Affinity(max_bypass=1), a=1, b=1)
    a, b = *arrive(made, "on a", X), *arrive(made, "on b", Y)
    arrive(made, "cold")
    arrive(made, "line 1", X)
    assert end(made, a) == [("line 1", "a")]
    arrive(made, "line 2", X)

    assert end(made, *reserved(made, "a")) == [("cold", "a")]
    assert end(made, b) == []


def test_one_that_is_tried_again_still_counts_by_whom_it_was_overtaken() -> None:
    made = dispatcher(Affinity(max_bypass=1), a=1)
    held = arrive(made, "first", X)
    arrive(made, "cold")
    arrive(made, "warm 1", X)
    arrive(made, "warm 2", X)
    assert end(made, *held) == [("warm 1", "a")]
    assert end(made, *reserved(made, "a")) == [("cold", "a")]
    (cold,) = reserved(made, "a")
    made.release(cold, 0)
    made.requeue(cold.queued)

    assert [claim.queued.request for claim in made.dispatch(0)] == ["cold"]


def test_one_that_is_tried_again_goes_before_later_ones_of_its_key_though_it_was_early() -> None:
    made = dispatcher(a=3)
    held = [*arrive(made, "1", X), *arrive(made, "2"), *arrive(made, "3")]
    made.enqueue("cold", 1, 0, standing=FlowKey(key="other"))
    arrive(made, "warm 1", X)
    arrive(made, "warm 2", X)
    assert end(made, *held[:2]) == [("warm 1", "a"), ("warm 2", "a")]
    arrive(made, "late")
    (warm,) = (each for each in reserved(made, "a") if each.queued.request == "warm 2")
    made.release(warm, 0)
    made.requeue(warm.queued)

    assert [ticket.request for ticket in made.queue] == ["cold", "warm 2", "late"]


def test_one_that_waits_in_a_line_is_not_overtaken_by_what_starts_elsewhere() -> None:
    made = dispatcher(Affinity(max_bypass=1), a=1, b=1)
    (a,) = arrive(made, "on a", X)
    (b,) = arrive(made, "on b")
    arrive(made, "warm", X)
    for number in range(3):
        made.release(b, 0)
        (b,) = arrive(made, f"passes {number}")
        assert b.replica.name == "b"

    assert end(made, b) == []
    assert end(made, a) == [("warm", "a")]


def test_one_that_has_waited_long_enough_in_its_line_takes_any_slot() -> None:
    made, _ = knowing(X, a=2, b=2)
    made.release(on("b", reserved(made, "b"))[0], 0)
    arrive(made, "warm", X)
    assert made.next_wakeup() == 5
    assert made.dispatch(now=4.9) == []

    assert got(made.dispatch(now=5)) == [("warm", "b")]
    assert made.next_wakeup() is None


def test_no_line_is_joined_while_many_wait_for_any_slot() -> None:
    made, _ = knowing(X, a=4, b=4)
    for number in range(15):
        arrive(made, f"cold {number}")
    arrive(made, "line", X)
    arrive(made, "the sixteenth")
    arrive(made, "central", X)

    assert [ticket.request for ticket in made.queue if ticket.affinity_replica] == ["line"]


def test_a_line_is_joined_when_few_are_left_before() -> None:
    made, held = knowing(X, a=4, b=4)
    for number in range(16):
        arrive(made, f"cold {number}")
    arrive(made, "warm", X)
    assert not made.queue.affinity_queues
    assert end(made, on("b", held)[0]) == [("cold 0", "b")]

    assert [ticket.request for ticket in made.queue.affinity_queues["a"]] == ["warm"]


def test_nobody_joins_a_line_twice() -> None:
    made, _ = knowing(X, a=4, b=4)
    arrive(made, "warm", X)
    assert made.dispatch(now=5) == []

    assert [(ticket.affinity_replica, made.next_wakeup()) for ticket in made.queue] == [(None, 60)]


def test_a_line_goes_with_its_replica() -> None:
    made, _ = knowing(X, a=1, b=1)
    arrive(made, "warm", X)
    made.drain("a", now=0)

    assert [ticket.affinity_replica for ticket in made.queue] == [None]


def test_a_replica_that_comes_back_is_taken_to_know_nothing() -> None:
    made = dispatcher(a=1)
    end(made, *arrive(made, "first", X))
    made.drain("a", now=0)
    made.add("a", 1, now=0)

    (again,) = arrive(made, "again", X)
    assert again.prefix_hit is False


def test_a_replica_is_taken_to_know_its_last_prompts_only() -> None:
    made = dispatcher(Affinity(cached_prompts=1), a=1)
    hits = []
    for prompt in ((1,), (2,), (1,), (2,), (3,), (1,)):
        (claim,) = arrive(made, "x", prompt)
        hits.append(claim.prefix_hit)
        made.release(claim, 0)

    assert hits == [False, False, True, True, False, False]


def test_a_higher_priority_goes_before_a_warm_line_and_before_what_looking_ahead_finds() -> None:
    made, held = knowing(X, a=2, b=2)
    arrive(made, "line", X)
    arrive(made, "warm", X)
    arrive(made, "urgent", priority=1)

    assert end(made, *on("a", held)) == [("urgent", "a"), ("line", "a")]


def test_one_for_whom_there_is_no_place_in_a_line_takes_the_free_slot() -> None:
    made: Dispatcher[str] = Dispatcher(QueueLimits(max_queued=0))
    made.add("a", 1, now=0)
    made.add("b", 1, now=0)
    arrive(made, "first", X)

    (claim,) = arrive(made, "again", X)
    assert claim.replica.name == "b"


def test_without_affinity_the_order_is_that_of_arrival_whatever_is_known() -> None:
    made = dispatcher(None, a=1)
    held = arrive(made, "first", X)
    for name, prompt in (("1", Y), ("2", X), ("3", Y), ("4", X)):
        arrive(made, name, prompt)
    order = []
    while held:
        made.release(held[0], 0)
        held = made.dispatch(0)
        order += [(claim.queued.request, claim.prefix_hit) for claim in held]

    assert order == [("1", None), ("2", None), ("3", None), ("4", None)]


def test_the_position_counts_all_that_stand_ahead() -> None:
    made, _ = knowing(X, a=2, b=2)
    line = made.enqueue("line", 1, 0, prompt=X)
    central = made.enqueue("central", 1, 0)
    urgent = made.enqueue("urgent", 1, 0, standing=FlowKey(1))

    assert [made.queue.position(each) for each in (urgent, line, central)] == [1, 2, 3]
    made.cancel(line)
    assert [made.queue.position(each) for each in (urgent, line, central)] == [1, 0, 2]
