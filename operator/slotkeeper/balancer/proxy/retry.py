"""What follows a failed attempt to get a response from an upstream: a replica or the leader."""

from dataclasses import dataclass
from enum import Enum

from slotkeeper.scheduling.ejection import UpstreamFailure

MAX_ATTEMPTS = 3
"""Replicas that a request is assigned to before it fails."""
MAX_RELAYS = 10
"""Leaders that a request is relayed to before it fails. More than replicas, because in a rollout
one balancer after the other shuts down while it has the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """One attempt that did not lead to a complete response."""

    reason: str
    relayed: bool
    """The upstream is the leader, not a replica."""
    sent: bool
    """A connection was established and the request sent."""
    attempts: int
    """Attempts so far, with this one. When relayed, only those in which the request was sent."""
    ending: bool = False
    """The replica was being deleted or drained anyway."""
    local: bool = False
    """The balancer can respond to this route itself."""
    began: bool = False
    """Some bytes of the response arrived."""
    stale: bool = False
    """No byte of the response arrived, and the connection had carried an earlier request."""
    malformed: bool = False
    """The response was not valid HTTP."""
    partial: bool = False
    """The client has received a part of the response."""


class Action(Enum):
    """How the request continues."""

    RECONNECT = "send it to the same upstream on a new connection; it keeps its slot"
    REQUEUE = "return it to its place in the queue"
    HOLD = "requeue it if the replica's endpoint is deleted within a second, else as an error"
    RESPOND_LOCALLY = "send the balancer's own response for this route"
    RESPOND_WITH_ERROR = "send an error response"
    ABORT = "close the client's connection, so that the response is seen to be incomplete"


RETRIES = frozenset((Action.REQUEUE, Action.RESPOND_LOCALLY))
"""Actions that the metric of retries counts."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the request and with its upstream."""

    action: Action
    ejection: UpstreamFailure | None = None
    """Why the replica is ejected; None: it is not, or the upstream is the leader."""
    stop_relaying: bool = False
    """Hold requests until it is known which balancer leads now."""


def decide(attempt: FailedAttempt) -> Decision:
    """Decide how a request continues. After the first byte of a response it is never sent again.

    Nor is a request that a replica may have crashed on: the next replica might crash too. It is
    sent again only where the replica was ending for another reason.

    The first matching row applies. Error means abort if the client has a part of the response.

    | upstream | failure | request | upstream, besides |
    |---|---|---|---|
    | either | kept connection closed before a response | reconnect | |
    | replica | malformed response | error | eject: protocol_error |
    | replica | response broken off | error | eject: connection_reset |
    | leader | response malformed or broken off | error | |
    | leader | before a response, 10th relay | error | stop relaying |
    | leader | before a response, local route | respond locally | stop relaying |
    | leader | before a response | requeue | stop relaying |
    | replica | no connection, 3rd attempt | error | eject: connection_refused |
    | replica | no connection | requeue | eject: connection_refused |
    | replica | closed before a response, 3rd attempt | error | eject: connection_reset |
    | replica | closed before a response, was ending | requeue | eject: connection_reset |
    | replica | closed before a response | hold | eject: connection_reset |
    """
    if attempt.stale:
        # The upstream's keep-alive timeout expired while the request was on its way.
        return Decision(Action.RECONNECT)
    if attempt.began:
        action = Action.ABORT if attempt.partial else Action.RESPOND_WITH_ERROR
        return Decision(action, _ejection(attempt))
    if attempt.attempts >= (MAX_RELAYS if attempt.relayed else MAX_ATTEMPTS):
        action = Action.RESPOND_WITH_ERROR
    elif attempt.sent and not (attempt.relayed or attempt.ending):
        action = Action.HOLD
    else:
        action = resume(local=attempt.local)
    return Decision(action, _ejection(attempt), stop_relaying=attempt.relayed)


def resume(*, local: bool) -> Action:
    """Decide how a request without an upstream continues; `local`: see FailedAttempt."""
    return Action.RESPOND_LOCALLY if local else Action.REQUEUE


def _ejection(attempt: FailedAttempt) -> UpstreamFailure | None:
    if attempt.relayed:
        return None
    if attempt.malformed:
        return UpstreamFailure.PROTOCOL_ERROR
    return UpstreamFailure.RESET if attempt.sent else UpstreamFailure.REFUSED
