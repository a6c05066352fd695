from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling import Dispatcher, FlowKey, QueueLimits
from slotkeeper.scheduling.fairness import RoundRobin

Served = tuple[FlowKey, int]
"""Whose request it was, and its number in the order of arrival."""


class OneSlot:
    """A slot that comes free when it is told."""

    def __init__(self) -> None:
        self.made: Dispatcher[Served] = Dispatcher(QueueLimits(), affinity=None)
        self.arrivals = 0

    def arrive(self, *standings: FlowKey) -> None:
        for standing in standings:
            self.made.enqueue((standing, self.arrivals), 0, now=0, standing=standing)
            self.arrivals += 1

    def serve(self) -> list[Served]:
        self.made.add("a", 1, now=0)
        claims = self.made.dispatch(now=0)
        for claim in claims:
            self.made.release(claim, now=0)
        self.made.drain("a", now=0)
        return [claim.queued.request for claim in claims]


def order(arrivals: list[FlowKey]) -> list[Served]:
    """Who gets the slot, where all arrive before it comes free."""
    slot = OneSlot()
    slot.arrive(*arrivals)
    return [served for _ in arrivals for served in slot.serve()]


def keys(text: str) -> list[FlowKey]:
    return [FlowKey(key=key) for key in text]


def spelled(served: list[Served]) -> str:
    return "".join(standing.key for standing, _ in served)


def test_keys_take_turns() -> None:
    assert spelled(order(keys("aaaabbc"))) == "abcabaa"


def test_one_that_comes_late_waits_for_one_request_of_each_other_key() -> None:
    assert spelled(order(keys("aaaaaab"))) == "abaaaaa"


def test_keys_that_come_anew_all_the_time_hold_nobody_up() -> None:
    slot, served = OneSlot(), []
    slot.arrive(*keys("aaa"))
    for newcomer in keys("bcdefghij"):
        slot.arrive(newcomer)
        served += slot.serve()

    assert spelled(served) == "abacdaefg"


def test_a_higher_priority_goes_first_whatever_its_key() -> None:
    arrivals = [FlowKey(0, "a"), FlowKey(0, "b"), FlowKey(2, "a"), FlowKey(-1, "c")]

    assert [standing.priority for standing, _ in order(arrivals)] == [2, 0, 0, -1]


STANDINGS = st.builds(FlowKey, st.integers(-1, 1), st.sampled_from("abc"))


@given(st.lists(STANDINGS | st.none(), max_size=40))
def test_within_a_priority_and_a_key_the_order_is_that_of_arrival(
    events: list[FlowKey | None],
) -> None:
    slot, served = OneSlot(), []
    for standing in events:
        if standing:
            slot.arrive(standing)
        else:
            served += slot.serve()
    for _ in events:
        served += slot.serve()

    assert len(served) == slot.arrivals
    for standing in {standing for standing, _ in served}:
        numbers = [number for each, number in served if each == standing]
        assert numbers == sorted(numbers)


@given(st.lists(STANDINGS, max_size=30))
def test_while_keys_wait_none_gets_two_turns_more_than_another(arrivals: list[FlowKey]) -> None:
    served = [standing for standing, _ in order(arrivals)]
    left = {standing: arrivals.count(standing) for standing in arrivals}
    turns = dict.fromkeys(left, 0)
    for standing in served:
        assert standing.priority == max(each.priority for each, count in left.items() if count)
        left[standing] -= 1
        turns[standing] += 1
        waiting = [
            turns[each]
            for each, count in left.items()
            if count and each.priority == standing.priority
        ]
        assert max(waiting, default=0) - min(waiting, default=0) <= 1


def test_a_key_that_was_served_early_gets_no_second_turn_for_it() -> None:
    rounds, early, other = RoundRobin(), FlowKey(key="early"), FlowKey(key="other")
    for _ in range(3):
        rounds.enqueue(early, rounds.next(early))
        rounds.leave(early, served=True)

    assert (rounds.next(early), rounds.next(other)) == (4, 1)
    rounds.start_round(other, 3)
    assert (rounds.next(early), rounds.next(other)) == (4, 4)
    assert rounds._keys == {}


@given(st.lists(STANDINGS, max_size=30))
def test_nothing_is_kept_of_keys_that_do_not_wait(arrivals: list[FlowKey]) -> None:
    made: Dispatcher[int] = Dispatcher(QueueLimits())
    tickets = [made.enqueue(0, 0, now=0, standing=standing) for standing in arrivals]
    for ticket in tickets:
        made.cancel(ticket)

    assert not made.queue._round_robin._keys
