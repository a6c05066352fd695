"""Request scheduling: which queued request gets which slot, and when.

Pure: time is an argument, and there is no I/O.
"""

from slotkeeper.scheduling.affinity import AffinityLimits
from slotkeeper.scheduling.availability import QueueLimits
from slotkeeper.scheduling.demand import DemandStatistics
from slotkeeper.scheduling.dispatcher import Dispatcher, QueueFull
from slotkeeper.scheduling.prefix_index import PREFIX_SIZES, PrefixHashes, prefix_hashes
from slotkeeper.scheduling.replica import AdoptedSlot, Replica, SlotHold
from slotkeeper.scheduling.reservation import (
    PREEMPTIBLE_PRIORITY,
    FlowKey,
    QueuedRequest,
    SlotReservation,
)
from slotkeeper.scheduling.running_limits import RunningLimits
from slotkeeper.scheduling.slot_release import SlotProbe

__all__ = [
    "PREEMPTIBLE_PRIORITY",
    "PREFIX_SIZES",
    "AdoptedSlot",
    "AffinityLimits",
    "DemandStatistics",
    "Dispatcher",
    "FlowKey",
    "PrefixHashes",
    "QueueFull",
    "QueueLimits",
    "QueuedRequest",
    "Replica",
    "RunningLimits",
    "SlotHold",
    "SlotProbe",
    "SlotReservation",
    "prefix_hashes",
]
