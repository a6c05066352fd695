"""Fairness among keys: round robin, by a round number that is fixed on arrival."""

from dataclasses import dataclass

from slotkeeper.scheduling.reservation import FlowKey


class RoundRobin:
    """Round robin within a priority: each key has one request per round.

    A request belongs to the round after the one that is being served, or after its key's last one,
    whichever is later. So a key that sends a thousand requests delays another key's next request
    by a single request, and short-lived keys delay no other beyond the round that they joined.
    With one key the rounds are the order of arrival. State is kept only for keys with queued
    requests, and for keys that were served in a later round than the current one. Any other key
    joins the next round when it returns, even if it was served in the current one. Every operation
    is O(1), start_round (which deletes state) amortized.
    """

    def __init__(self) -> None:
        self._serving: dict[int, int] = {}  # priority -> round
        self._keys: dict[FlowKey, _KeyState] = {}
        self._served_ahead: set[FlowKey] = set()  # keys in _keys without queued requests

    def next_round(self, flow_key: FlowKey) -> int:
        """Return the round of a request that arrives."""
        serving = self._serving.get(flow_key.priority, 0)
        state = self._keys.get(flow_key)
        return max(serving, state.last_round) + 1 if state else serving + 1

    def enqueue(self, flow_key: FlowKey, round_: int) -> None:
        """Record that a request of `round_` is queued."""
        state = self._keys.get(flow_key)
        if state is None:
            self._keys[flow_key] = _KeyState(round_, 1)
            return
        state.last_round = max(state.last_round, round_)
        state.queued += 1
        self._served_ahead.discard(flow_key)

    def remove(self, flow_key: FlowKey, *, served: bool) -> None:
        """Record that a request is no longer queued."""
        state = self._keys[flow_key]
        state.queued -= 1
        if state.queued:
            return
        if served and state.last_round > self._serving.get(flow_key.priority, 0):
            self._served_ahead.add(flow_key)
        else:
            del self._keys[flow_key]

    def start_round(self, flow_key: FlowKey, round_: int) -> None:
        """Start `round_` if it is later than the current one: its first request is dispatched."""
        priority = flow_key.priority
        if round_ <= self._serving.get(priority, 0):
            return
        self._serving[priority] = round_
        for key in list(self._served_ahead):
            if key.priority == priority and self._keys[key].last_round <= round_:
                self._served_ahead.remove(key)
                del self._keys[key]


@dataclass(slots=True)
class _KeyState:
    last_round: int
    """The round of its last request."""
    queued: int
    """Number of its queued requests."""
