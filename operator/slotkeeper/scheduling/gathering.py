"""Requests that need several slots: a replica is kept for the first of them until it has enough.

Such a request waits at the head of the queue like any other. If no replica has as many free slots
as it needs, it gathers them: it takes the replica that lacks the fewest, and no request that ranks
behind it gets a slot there. So it waits no longer than for the requests that run there, and is not
bypassed. Requests behind it use the other replicas in the meantime. If these are kept too, for
other requests, it stays at the head, and nothing behind it is dispatched.
"""

from collections.abc import Iterable, Sequence

from slotkeeper.scheduling.queue import RequestQueue
from slotkeeper.scheduling.replica import Replica
from slotkeeper.scheduling.reservation import QueuedRequest, T


def fits(queued: QueuedRequest[T], replica: Replica) -> bool:
    """Whether a replica has as many free slots as the request would use there."""
    return replica.free >= queued.tasks.slots_on(replica.slots)


def is_open_to(queue: RequestQueue[T], queued: QueuedRequest[T], replica: Replica) -> bool:
    """Whether a replica's slots are not kept for a request that ranks before this one."""
    other = queue.gathering.get(replica.name)
    return other is None or other.rank > queued.rank


def complete(
    queue: RequestQueue[T], free: Sequence[Replica]
) -> tuple[QueuedRequest[T], Replica] | None:
    """Return the first gathering request that has enough slots, and its replica.

    Not one that ranks behind the head of the shared queue, which may take those slots.
    """
    head = queue.head
    for queued in sorted(queue.gathering.values(), key=lambda each: each.rank):
        if head and head.rank < queued.rank:
            break
        for replica in free:
            if may_take(queue, queued, replica) and fits(queued, replica):
                return queued, replica
    return None


def may_take(queue: RequestQueue[T], queued: QueuedRequest[T], replica: Replica) -> bool:
    """Whether a gathering request may take the free slots of a replica."""
    if replica.name == queued.gathering_on:
        return True
    if queued.preemptible and replica.name in queue.affinity_queues:
        return False
    return is_open_to(queue, queued, replica)


def begin(queue: RequestQueue[T], head: QueuedRequest[T], replicas: Iterable[Replica]) -> bool:
    """Keep a replica for the head of the shared queue; return whether there is one to keep.

    Slots of preemptible requests count as free for an ordinary one, which gets them.
    """
    candidates = [each for each in replicas if each.ready and is_open_to(queue, head, each)]
    best = min(
        candidates,
        key=lambda each: (
            # It would end the wait of others for their prefix cache hits.
            head.preemptible and each.name in queue.affinity_queues,
            head.tasks.slots_on(each.slots)
            - each.free
            - (0 if head.preemptible else each.yielding),
            each.last_dispatch,
        ),
        default=None,
    )
    if best is None:
        return False
    queue.disband_affinity(best.name)
    queue.move_to_gathering(head, best.name)
    return True
