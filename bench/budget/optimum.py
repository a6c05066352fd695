"""The optimum in hindsight: the least loading, and the least waiting."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from slotkeeper.scaling.budget.resources import ONE_MODEL, Resources
from slotkeeper.simulation.budget.simulate import ModelRequest, SimulatedModel


def least_load_seconds(
    models: Sequence[SimulatedModel], limit: Resources, requests: Sequence[ModelRequest]
) -> float:
    """Return the least time of loading with which each request finds its model loaded, in order.

    Belady's optimum with load times and sizes, by dynamic programming over all sets of models that
    fit. A policy that lets requests wait can load less: it serves several with one load.
    """
    specs = {model.name: model for model in models}
    costs: dict[frozenset[str], float] = {frozenset(): 0.0}
    for request in requests:
        name = request.model
        following: dict[frozenset[str], float] = {}
        for loaded, cost in costs.items():
            if name in loaded:
                _lower(following, loaded, cost)
                continue
            for kept in _largest_subsets(loaded, specs, name, limit):
                _lower(following, kept | {name}, cost + specs[name].load_seconds)
        costs = following
    return min(costs.values())


def _lower(costs: dict[frozenset[str], float], key: frozenset[str], cost: float) -> None:
    costs[key] = min(cost, costs.get(key, cost))


def _largest_subsets(
    loaded: frozenset[str], specs: Mapping[str, SimulatedModel], name: str, limit: Resources
) -> list[frozenset[str]]:
    """The subsets that fit beside a model, without those that are part of another."""
    found: list[frozenset[str]] = []
    for size in range(len(loaded), -1, -1):
        for kept in map(frozenset, combinations(sorted(loaded), size)):
            if any(kept < larger for larger in found):
                continue
            total = Resources()
            for each in (*kept, name):
                total = total.plus(specs[each].cost).plus(ONE_MODEL)
            if total.fits(limit):
                found.append(kept)
    return found


def least_wait(models: Sequence[SimulatedModel], requests: Sequence[ModelRequest]) -> float:
    """Return the least sum of all waits where one model fits, and serves one request at a time.

    By dynamic programming over the numbers of served requests of each model and the loaded one;
    of each state, the pairs of time and waits that no other pair undercuts in both. It may load a
    model before it is asked for, and keep the loaded one waiting.
    """
    names = [model.name for model in models]
    queues = [[each for each in requests if each.model == name] for name in names]
    swaps = [model.load_seconds + model.stop_seconds for model in models]
    goal = tuple(map(len, queues))
    states: dict[tuple[tuple[int, ...], int], list[tuple[float, float]]] = {}
    for number, model in enumerate(models):
        states[(0,) * len(names), number] = [(model.load_seconds, 0.0)]
    for served in sorted(_counts(goal), key=sum):
        arrived = {number: states.get((served, number), []) for number in range(len(names))}
        for number, pairs in arrived.items():
            # A swap right after another one is never better.
            swapped = [
                (at + swaps[number], waits)
                for other, others in arrived.items()
                if other != number
                for at, waits in others
            ]
            best = _undominated([*pairs, *swapped])
            if served[number] == goal[number]:
                states[served, number] = best
                continue
            request = queues[number][served[number]]
            after = (*served[:number], served[number] + 1, *served[number + 1 :])
            following = states.setdefault((after, number), [])
            for at, waits in best:
                start = max(at, request.at)
                following.append((start + request.service_seconds, waits + start - request.at))
            states[after, number] = _undominated(following)
    return min(waits for number in range(len(names)) for _, waits in states.get((goal, number), []))


def _counts(goal: Sequence[int]) -> list[tuple[int, ...]]:
    counts: list[tuple[int, ...]] = [()]
    for most in goal:
        counts = [(*each, number) for each in counts for number in range(most + 1)]
    return counts


def _undominated(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for at, waits in sorted(set(pairs)):
        if not kept or waits < kept[-1][1]:
            kept.append((at, waits))
    return kept
