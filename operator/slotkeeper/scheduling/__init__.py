"""Who gets which slot, and when. Pure: time is an argument, the network is elsewhere."""

from slotkeeper.scheduling.affinity import Affinity
from slotkeeper.scheduling.availability import Bounds
from slotkeeper.scheduling.demand import RecentDemand
from slotkeeper.scheduling.dispatcher import Dispatcher, QueueFull
from slotkeeper.scheduling.prefix_index import LOOKED_AT, Ladder, ladder
from slotkeeper.scheduling.replica import Replica
from slotkeeper.scheduling.reservation import Claim, Held, Inherited, Standing, Ticket
from slotkeeper.scheduling.slot_release import Look

__all__ = [
    "LOOKED_AT",
    "Affinity",
    "Bounds",
    "Claim",
    "Dispatcher",
    "Held",
    "Inherited",
    "Ladder",
    "Look",
    "QueueFull",
    "RecentDemand",
    "Replica",
    "Standing",
    "Ticket",
    "ladder",
]
