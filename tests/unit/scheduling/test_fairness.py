from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.scheduling import Dispatcher, FlowKey, QueueLimits
from slotkeeper.scheduling.fairness import RoundRobin

Served = tuple[FlowKey, int]
"""A request's key, and its number in order of arrival."""


class OneSlot:
    """One slot; each call of `serve` frees it for the next request."""

    def __init__(self) -> None:
        self.dispatcher: Dispatcher[Served] = Dispatcher(QueueLimits(), affinity=None)
        self.arrivals = 0

    def arrive(self, *flow_keys: FlowKey) -> None:
        for flow_key in flow_keys:
            self.dispatcher.enqueue((flow_key, self.arrivals), 0, now=0, flow_key=flow_key)
            self.arrivals += 1

    def serve(self) -> list[Served]:
        self.dispatcher.add("a", 1, now=0)
        reservations = self.dispatcher.dispatch(now=0)
        for reservation in reservations:
            self.dispatcher.release(reservation, now=0)
        self.dispatcher.drain("a", now=0)
        return [reservation.queued.request for reservation in reservations]


def order(arrivals: list[FlowKey]) -> list[Served]:
    """The order of dispatch, if all arrive before the slot is free."""
    slot = OneSlot()
    slot.arrive(*arrivals)
    return [served for _ in arrivals for served in slot.serve()]


def keys(text: str) -> list[FlowKey]:
    return [FlowKey(key=key) for key in text]


def text(served: list[Served]) -> str:
    return "".join(flow_key.key for flow_key, _ in served)


def test_keys_are_served_round_robin() -> None:
    assert text(order(keys("aaaabbc"))) == "abcabaa"


def test_a_late_key_is_delayed_by_one_request_of_each_other_key() -> None:
    assert text(order(keys("aaaaaab"))) == "abaaaaa"


def test_a_stream_of_new_keys_delays_no_other_key_for_long() -> None:
    slot, served = OneSlot(), []
    slot.arrive(*keys("aaa"))
    for new in keys("bcdefghij"):
        slot.arrive(new)
        served += slot.serve()

    assert text(served) == "abacdaefg"


def test_a_higher_priority_is_dispatched_first_whatever_its_key() -> None:
    arrivals = [FlowKey(0, "a"), FlowKey(0, "b"), FlowKey(2, "a"), FlowKey(-1, "c")]

    assert [flow_key.priority for flow_key, _ in order(arrivals)] == [2, 0, 0, -1]


FLOW_KEYS = st.builds(FlowKey, st.integers(-1, 1), st.sampled_from("abc"))


@given(st.lists(FLOW_KEYS | st.none(), max_size=40))
def test_within_a_priority_and_a_key_the_order_is_that_of_arrival(
    events: list[FlowKey | None],
) -> None:
    slot, served = OneSlot(), []
    for flow_key in events:
        if flow_key:
            slot.arrive(flow_key)
        else:
            served += slot.serve()
    for _ in events:
        served += slot.serve()

    assert len(served) == slot.arrivals
    for flow_key in {flow_key for flow_key, _ in served}:
        numbers = [number for each, number in served if each == flow_key]
        assert numbers == sorted(numbers)


@given(st.lists(FLOW_KEYS, max_size=30))
def test_no_queued_key_is_served_twice_more_than_another(arrivals: list[FlowKey]) -> None:
    served = [flow_key for flow_key, _ in order(arrivals)]
    remaining = {flow_key: arrivals.count(flow_key) for flow_key in arrivals}
    counts = dict.fromkeys(remaining, 0)
    for flow_key in served:
        assert flow_key.priority == max(each.priority for each, count in remaining.items() if count)
        remaining[flow_key] -= 1
        counts[flow_key] += 1
        queued = [
            counts[each]
            for each, count in remaining.items()
            if count and each.priority == flow_key.priority
        ]
        assert max(queued, default=0) - min(queued, default=0) <= 1


def test_a_key_that_was_served_ahead_is_not_served_again_in_that_round() -> None:
    round_robin, ahead, other = RoundRobin(), FlowKey(key="ahead"), FlowKey(key="other")
    for _ in range(3):
        round_robin.enqueue(ahead, round_robin.next_round(ahead))
        round_robin.remove(ahead, served=True)

    assert (round_robin.next_round(ahead), round_robin.next_round(other)) == (4, 1)
    round_robin.start_round(other, 3)
    assert (round_robin.next_round(ahead), round_robin.next_round(other)) == (4, 4)
    assert round_robin._keys == {}


@given(st.lists(FLOW_KEYS, max_size=30))
def test_no_state_is_kept_for_keys_without_queued_requests(arrivals: list[FlowKey]) -> None:
    dispatcher: Dispatcher[int] = Dispatcher(QueueLimits())
    all_queued = [dispatcher.enqueue(0, 0, now=0, flow_key=flow_key) for flow_key in arrivals]
    for queued in all_queued:
        dispatcher.cancel(queued)

    assert not dispatcher.queue._round_robin._keys
