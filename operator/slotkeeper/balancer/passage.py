"""What is known of a request on its way, for the access log, the numbers and the signs of life."""

from slotkeeper.balancer.early import EarlyStream
from slotkeeper.balancer.routes import Route
from slotkeeper.balancer.tokens import Ends
from slotkeeper.wire.exchange import Exchange


class Passage:
    """A request's way through this balancer, so far."""

    # fmt: off
    __slots__ = (
        "arrived", "claimed_at", "early", "ends", "exchange", "first_at", "hit", "key", "own",
        "position", "received", "relayed", "replica", "sent",
    )
    # fmt: on

    def __init__(self, exchange: Exchange, arrived: float) -> None:
        self.exchange = exchange
        self.arrived = arrived
        self.claimed_at: float | None = None
        self.first_at: float | None = None
        """When the first byte of the answer's body came."""
        self.position = 0
        """Its place in the queue when it came, 1 for the next one; 0: a slot was free."""
        self.replica = ""
        """Where it was sent: a replica, or the balancer that it was relayed to."""
        self.key: str | None = None
        """The name of its API key."""
        self.own: Route | None = None
        """What of our own is asked for, where it is the other balancer that is asked first."""
        self.relayed = False
        """Another balancer gives it its slot."""
        self.hit: bool | None = None
        """The replica's cache knew the beginning of the prompt; None: it is short, or not sent."""
        self.received = exchange.request.size
        """Bytes of the request's body."""
        self.sent = 0
        """Bytes of the answer's body."""
        self.early: EarlyStream | None = None
        """The answer, if it began while the request waited."""
        self.ends = Ends()
        """The ends of the answer's body, which say what it took."""
