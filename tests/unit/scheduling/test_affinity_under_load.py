"""Prefix affinity on a simulated cluster: 8 replicas of 8 slots, 200 conversations."""

import heapq
import random
from collections import OrderedDict
from dataclasses import dataclass

from slotkeeper.scheduling import AffinityLimits, Dispatcher, QueueLimits, SlotReservation

REPLICAS = SLOTS = 8
CONVERSATIONS = 200
CACHED = 40
MISS = 0.5
"""Time to compute a prompt without a cache hit; decoding takes 1 on average."""


@dataclass(frozen=True)
class Turn:
    conversation: int
    decoding: float
    at: float


@dataclass
class Result:
    hits: int = 0
    queue_time: float = 0.0
    max_bypassed: int = 0


def simulate(load: float, affinity: AffinityLimits | None, *, requests: int = 6000) -> Result:
    rng, result, now, completions = random.Random(1), Result(), 0.0, 0
    dispatcher: Dispatcher[Turn] = Dispatcher(
        QueueLimits(max_queued=requests, queue_timeout=1e9), affinity
    )
    caches: dict[str, OrderedDict[int, None]] = {}
    for number in range(REPLICAS):
        dispatcher.add(f"{number}", SLOTS, now)
        caches[f"{number}"] = OrderedDict()
    events: list[tuple[float, int, SlotReservation[Turn] | None]] = []
    for number in range(requests):
        now += rng.expovariate(load * REPLICAS * SLOTS)
        events.append((now, -number, None))
    heapq.heapify(events)
    while events:
        now, _, completed = heapq.heappop(events)
        if completed:
            dispatcher.release(completed, now)
            completions += 1
        else:
            turn = Turn(rng.randrange(CONVERSATIONS), rng.expovariate(1), now)
            dispatcher.enqueue(turn, 0, now, prefixes=(turn.conversation,))
        for reservation in dispatcher.dispatch(now):
            turn, cache = reservation.queued.request, caches[reservation.replica.name]
            hit = turn.conversation in cache
            cache[turn.conversation] = None
            cache.move_to_end(turn.conversation)
            while len(cache) > CACHED:
                cache.popitem(last=False)
            result.hits += hit
            result.queue_time += now - turn.at
            result.max_bypassed = max(result.max_bypassed, reservation.queued.bypassed)
            end = now + turn.decoding + (0 if hit else MISS)
            heapq.heappush(events, (end, completions + len(events), reservation))
    assert completions == requests
    return result


def test_most_prompts_are_cache_hits_at_an_offered_load_of_nine_tenths() -> None:
    with_affinity, without = simulate(0.9, AffinityLimits()), simulate(0.9, None)

    assert with_affinity.hits / 6000 > 0.9
    assert without.hits / 6000 < 0.3
    assert with_affinity.queue_time < without.queue_time / 10


def test_no_request_is_bypassed_beyond_the_limit_under_load() -> None:
    results = [simulate(load, AffinityLimits(), requests=3000) for load in (0.8, 0.95, 1.2)]

    assert [result.max_bypassed <= 16 for result in results] == [True] * 3
    assert results[-1].max_bypassed == 16
