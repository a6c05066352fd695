"""The policy against a simulated cluster: 8 replicas of 8 slots, 200 conversations."""

import heapq
import random
from collections import OrderedDict
from dataclasses import dataclass

from slotkeeper.scheduling import Affinity, Dispatcher, QueueLimits, SlotReservation

REPLICAS = SLOTS = 8
CONVERSATIONS = 200
CACHED = 40
MISS = 0.5
"""What it costs to compute a prompt anew, where decoding takes 1 in the mean."""


@dataclass(frozen=True)
class Asked:
    conversation: int
    decoding: float
    at: float


@dataclass
class Outcome:
    hits: int = 0
    waited: float = 0.0
    most_overtaken: int = 0


def simulate(load: float, affinity: Affinity | None, *, requests: int = 6000) -> Outcome:
    rng, outcome, now, ended = random.Random(1), Outcome(), 0.0, 0
    made: Dispatcher[Asked] = Dispatcher(
        QueueLimits(max_queued=requests, queue_timeout=1e9), affinity
    )
    caches: dict[str, OrderedDict[int, None]] = {}
    for number in range(REPLICAS):
        made.add(f"{number}", SLOTS, now)
        caches[f"{number}"] = OrderedDict()
    events: list[tuple[float, int, SlotReservation[Asked] | None]] = []
    for number in range(requests):
        now += rng.expovariate(load * REPLICAS * SLOTS)
        events.append((now, -number, None))
    heapq.heapify(events)
    while events:
        now, _, over = heapq.heappop(events)
        if over:
            made.release(over, now)
            ended += 1
        else:
            asked = Asked(rng.randrange(CONVERSATIONS), rng.expovariate(1), now)
            made.enqueue(asked, 0, now, prompt=(asked.conversation,))
        for claim in made.dispatch(now):
            asked, cache = claim.queued.request, caches[claim.replica.name]
            hit = asked.conversation in cache
            cache[asked.conversation] = None
            cache.move_to_end(asked.conversation)
            while len(cache) > CACHED:
                cache.popitem(last=False)
            outcome.hits += hit
            outcome.waited += now - asked.at
            outcome.most_overtaken = max(outcome.most_overtaken, claim.queued.bypassed)
            end = now + asked.decoding + (0 if hit else MISS)
            heapq.heappush(events, (end, ended + len(events), claim))
    assert ended == requests
    return outcome


def test_prompts_stay_warm_at_nine_tenths_of_the_load() -> None:
    with_it, without = simulate(0.9, Affinity()), simulate(0.9, None)

    assert with_it.hits / 6000 > 0.9
    assert without.hits / 6000 < 0.3
    assert with_it.waited < without.waited / 10


def test_nobody_is_overtaken_too_often_under_load() -> None:
    outcomes = [simulate(load, Affinity(), requests=3000) for load in (0.8, 0.95, 1.2)]

    assert [outcome.most_overtaken <= 16 for outcome in outcomes] == [True] * 3
    assert outcomes[-1].most_overtaken == 16
