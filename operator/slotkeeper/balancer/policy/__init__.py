"""Who gets which slot, and when. Pure: time is an argument, the network is elsewhere."""

from slotkeeper.balancer.policy.demand import PeakDemand
from slotkeeper.balancer.policy.dispatcher import Bounds, Claim, Dispatcher, QueueFull, Ticket
from slotkeeper.balancer.policy.letting_go import Look
from slotkeeper.balancer.policy.replica import Replica

__all__ = ["Bounds", "Claim", "Dispatcher", "Look", "PeakDemand", "QueueFull", "Replica", "Ticket"]
