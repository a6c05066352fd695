from functools import partial

import pytest

from slotkeeper.balancer.proxy.retry import (
    MAX_ATTEMPTS,
    MAX_RELAYS,
    Action,
    Decision,
    FailedAttempt,
    decide,
    resume,
)
from slotkeeper.scheduling.ejection import UpstreamFailure

RESET = UpstreamFailure.RESET
REFUSED = UpstreamFailure.REFUSED
PROTOCOL_ERROR = UpstreamFailure.PROTOCOL_ERROR

attempt = partial(
    FailedAttempt,
    reason="the upstream closed the connection",
    attempts=1,
    relayed=False,
    sent=True,
)

ERROR, ABORT = Action.RESPOND_WITH_ERROR, Action.ABORT
ROWS = {
    # Kept connection closed before a response.
    "replica, kept connection closed": (
        attempt(stale=True, attempts=3),
        Decision(Action.RECONNECT),
    ),
    "leader, kept connection closed": (
        attempt(stale=True, relayed=True, attempts=9),
        Decision(Action.RECONNECT),
    ),
    # Response malformed or broken off.
    "replica, malformed response": (
        attempt(began=True, malformed=True),
        Decision(ERROR, PROTOCOL_ERROR),
    ),
    "replica, malformed response, partial": (
        attempt(began=True, malformed=True, partial=True),
        Decision(ABORT, PROTOCOL_ERROR),
    ),
    "replica, response broken off": (attempt(began=True), Decision(ERROR, RESET)),
    "replica, response broken off, partial": (
        attempt(began=True, partial=True),
        Decision(ABORT, RESET),
    ),
    "leader, malformed response": (
        attempt(relayed=True, began=True, malformed=True, partial=True),
        Decision(ABORT),
    ),
    "leader, response broken off": (attempt(relayed=True, began=True), Decision(ERROR)),
    # Before a response of the leader.
    "leader, before a response, 10th relay": (
        attempt(relayed=True, attempts=MAX_RELAYS),
        Decision(ERROR, stop_relaying=True),
    ),
    "leader, before a response, 10th relay, local route": (
        attempt(relayed=True, attempts=MAX_RELAYS, local=True),
        Decision(ERROR, stop_relaying=True),
    ),
    "leader, before a response, local route": (
        attempt(relayed=True, local=True, sent=False),
        Decision(Action.RESPOND_LOCALLY, stop_relaying=True),
    ),
    "leader, before a response, 9th relay": (
        attempt(relayed=True, attempts=MAX_RELAYS - 1),
        Decision(Action.REQUEUE, stop_relaying=True),
    ),
    "leader, no connection": (
        attempt(relayed=True, sent=False, attempts=0),
        Decision(Action.REQUEUE, stop_relaying=True),
    ),
    # Before a response of a replica.
    "replica, no connection, 3rd attempt": (
        attempt(sent=False, attempts=MAX_ATTEMPTS),
        Decision(ERROR, REFUSED),
    ),
    "replica, no connection, 2nd attempt": (
        attempt(sent=False, attempts=MAX_ATTEMPTS - 1),
        Decision(Action.REQUEUE, REFUSED),
    ),
    "replica, closed before a response, 3rd attempt": (
        attempt(attempts=MAX_ATTEMPTS),
        Decision(ERROR, RESET),
    ),
    "replica, closed before a response, was ending, 3rd attempt": (
        attempt(attempts=MAX_ATTEMPTS, ending=True),
        Decision(ERROR, RESET),
    ),
    "replica, closed before a response, was ending": (
        attempt(attempts=MAX_ATTEMPTS - 1, ending=True),
        Decision(Action.REQUEUE, RESET),
    ),
    "replica, closed before a response": (
        attempt(),
        Decision(Action.HOLD, RESET),
    ),
}


@pytest.mark.parametrize(("failed", "decision"), ROWS.values(), ids=ROWS)
def test_a_failed_attempt_has_one_decision(failed: FailedAttempt, decision: Decision) -> None:
    assert decide(failed) == decision


@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.parametrize("attempts", [1, 2, 9])
def test_a_request_whose_response_began_is_never_sent_again(relayed: bool, attempts: int) -> None:
    failed = attempt(relayed=relayed, attempts=attempts, began=True, local=True)

    assert decide(failed).action in {ERROR, ABORT}


def test_a_request_for_a_local_route_is_never_queued_again() -> None:
    assert resume(local=True) is Action.RESPOND_LOCALLY
    assert resume(local=False) is Action.REQUEUE
