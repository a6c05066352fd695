"""Who gets which slot, and when. Pure: time is an argument, the network is elsewhere."""

from slotkeeper.scheduling.affinity import Affinity
from slotkeeper.scheduling.availability import QueueLimits
from slotkeeper.scheduling.demand import RecentDemand
from slotkeeper.scheduling.dispatcher import Dispatcher, QueueFull
from slotkeeper.scheduling.prefix_index import SCANNED_BYTES, PrefixHashes, prefix_hashes
from slotkeeper.scheduling.replica import Replica
from slotkeeper.scheduling.reservation import (
    SlotReservation,
    SlotHold,
    AdoptedSlot,
    FlowKey,
    QueuedRequest,
)
from slotkeeper.scheduling.slot_release import SlotProbe

__all__ = [
    "SCANNED_BYTES",
    "Affinity",
    "QueueLimits",
    "SlotReservation",
    "Dispatcher",
    "SlotHold",
    "AdoptedSlot",
    "PrefixHashes",
    "SlotProbe",
    "QueueFull",
    "RecentDemand",
    "Replica",
    "FlowKey",
    "QueuedRequest",
    "prefix_hashes",
]
