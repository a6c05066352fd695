"""Who gets which slot, and when. Pure: time is an argument, the network is elsewhere."""

from slotkeeper.balancer.policy.demand import RecentDemand
from slotkeeper.balancer.policy.dispatcher import Dispatcher, QueueFull
from slotkeeper.balancer.policy.letting_go import Look
from slotkeeper.balancer.policy.matching import Affinity
from slotkeeper.balancer.policy.outlook import Bounds
from slotkeeper.balancer.policy.prefixes import LOOKED_AT, Ladder, ladder
from slotkeeper.balancer.policy.replica import Replica
from slotkeeper.balancer.policy.ticket import Claim, Held, Inherited, Standing, Ticket

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
