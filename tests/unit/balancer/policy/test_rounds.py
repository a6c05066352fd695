from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.balancer.policy import Bounds, Dispatcher, Standing


def order(arrivals: list[Standing], *, served_between: int = 0) -> list[tuple[Standing, int]]:
    """Who gets the slots, if `served_between` of them come free after each arrival."""
    made: Dispatcher[tuple[Standing, int]] = Dispatcher(Bounds(), affinity=None)
    served: list[tuple[Standing, int]] = []

    def serve(slots: int) -> None:
        for _ in range(slots):
            made.add("a", 1, now=0)
            for claim in made.claims(now=0):
                served.append(claim.ticket.payload)
                made.finish(claim, now=0)
                made.drain("a", now=0)

    for number, standing in enumerate(arrivals):
        made.offer((standing, number), 0, now=0, standing=standing)
        serve(served_between)
    serve(len(arrivals))
    return served


def keys(text: str) -> list[Standing]:
    return [Standing(key=key) for key in text]


def spelled(served: list[tuple[Standing, int]]) -> str:
    return "".join(standing.key for standing, _ in served)


def test_keys_take_turns() -> None:
    assert spelled(order(keys("aaaabbc"))) == "abcabaa"


def test_one_that_comes_late_waits_for_one_request_of_each_other_key() -> None:
    assert spelled(order(keys("aaaaaab"))) == "abaaaaa"


def test_keys_that_come_anew_all_the_time_hold_nobody_up() -> None:
    newcomers = "".join(chr(ord("b") + number) for number in range(20))

    served = spelled(order(keys("aaaa" + newcomers), served_between=1))

    assert served.rindex("a") < 12


def test_a_higher_priority_goes_first_whatever_its_key() -> None:
    arrivals = [Standing(0, "a"), Standing(0, "b"), Standing(2, "a"), Standing(-1, "c")]

    assert [standing.priority for standing, _ in order(arrivals)] == [2, 0, 0, -1]


STANDINGS = st.builds(Standing, st.integers(-1, 1), st.sampled_from("abc"))


@given(st.lists(STANDINGS, max_size=30), st.integers(0, 1))
def test_within_a_priority_and_a_key_the_order_is_that_of_arrival(
    arrivals: list[Standing], served_between: int
) -> None:
    served = order(arrivals, served_between=served_between)

    assert sorted(served, key=lambda each: each[1]) == list(zip(arrivals, range(99), strict=False))
    for standing in set(arrivals):
        numbers = [number for each, number in served if each == standing]
        assert numbers == sorted(numbers)


@given(st.lists(STANDINGS, max_size=30))
def test_while_keys_wait_none_gets_two_turns_more_than_another(arrivals: list[Standing]) -> None:
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


@given(st.lists(STANDINGS, max_size=30))
def test_nothing_is_kept_of_keys_that_do_not_wait(arrivals: list[Standing]) -> None:
    made: Dispatcher[int] = Dispatcher(Bounds())
    tickets = [made.offer(0, 0, now=0, standing=standing) for standing in arrivals]
    for ticket in tickets:
        made.withdraw(ticket)

    assert not made.queue._rounds._waiting
