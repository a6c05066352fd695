"""Ends preemptible requests that make way for others."""

from collections.abc import Iterable
from dataclasses import dataclass

from slotkeeper.balancer import responses
from slotkeeper.balancer.metrics import Metrics, PreemptionReason
from slotkeeper.balancer.proxy.request import ProxiedRequest
from slotkeeper.balancer.upstream.replicas import ReplicaSet
from slotkeeper.scheduling import Dispatcher, QueuedRequest, SlotReservation


@dataclass(frozen=True, slots=True)
class Preemptor:
    """Ends preemptible requests that ordinary ones, ending replicas or the next leader require."""

    dispatcher: Dispatcher[ProxiedRequest]
    replicas: ReplicaSet
    metrics: Metrics

    def free_slots(self) -> None:
        """Abort running requests whose slots ordinary requests need, those queued or the next."""
        self._end_running(self.dispatcher.victims(), PreemptionReason.SLOT)

    def shorten_queue(self) -> None:
        """Reject queued requests while the queue is beyond its limits."""
        if len(self.dispatcher.queue.preemptible):
            self._end(self.dispatcher.take_displaced(), PreemptionReason.QUEUE)

    def leave_ending_replicas(self) -> None:
        """Abort the requests on replicas that are being deleted, so that they delay no pod."""
        running = [
            reservation
            for reservation in self.dispatcher.preemption.running
            if self.replicas.is_ending(reservation.replica.name)
        ]
        self._end_running(running, PreemptionReason.REPLICA)

    def end_leadership(self) -> None:
        """Abort all that run: for the next leader their slots are busy, for whatever reason."""
        self._end_running(list(self.dispatcher.preemption.running), PreemptionReason.LEADER)

    def _end_running(
        self, reservations: Iterable[SlotReservation[ProxiedRequest]], reason: PreemptionReason
    ) -> None:
        self._end((reservation.queued for reservation in reservations), reason)

    def _end(
        self, requests: Iterable[QueuedRequest[ProxiedRequest]], reason: PreemptionReason
    ) -> None:
        for queued in requests:
            self.metrics.preemptions.inc(reason.value)
            queued.request.preempt(responses.preempted())
