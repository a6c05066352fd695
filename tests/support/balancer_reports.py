"""Reports of the balancer that leads, as the operator polls them."""

from typing import Any

from operator_harness import BALANCER_HOST, Operator


async def poll(operator: Operator, report: Any) -> None:
    """Let the leader respond with this report from now on, and the operator poll it."""
    operator.balancers.reports[BALANCER_HOST] = report
    await operator.run_for(1)
