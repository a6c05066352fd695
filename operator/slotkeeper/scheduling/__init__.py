"""Who gets which slot, and when. Pure: time is an argument, the network is elsewhere."""

from slotkeeper.scheduling.affinity import Affinity
from slotkeeper.scheduling.availability import QueueLimits
from slotkeeper.scheduling.demand import RecentDemand
from slotkeeper.scheduling.dispatcher import Dispatcher, QueueFull
from slotkeeper.scheduling.prefix_index import SCANNED_BYTES, PrefixHashes, prefix_hashes
from slotkeeper.scheduling.replica import AdoptedSlot, Replica, SlotHold
from slotkeeper.scheduling.reservation import (
    FlowKey,
    QueuedRequest,
    SlotReservation,
)
from slotkeeper.scheduling.slot_release import SlotProbe

__all__ = [
    "SCANNED_BYTES",
    "AdoptedSlot",
    "Affinity",
    "Dispatcher",
    "FlowKey",
    "PrefixHashes",
    "QueueFull",
    "QueueLimits",
    "QueuedRequest",
    "RecentDemand",
    "Replica",
    "SlotHold",
    "SlotProbe",
    "SlotReservation",
    "prefix_hashes",
]
