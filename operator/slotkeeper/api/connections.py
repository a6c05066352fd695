"""Connections of clients to a balancer: `spec.balancer.connections`."""

from typing import Annotated, ClassVar

from pydantic import Field

from slotkeeper.api.validation import ApiModel, Rule

_INT32 = {"format": "int32"}

Number = Annotated[int, Field(ge=16, le=1_000_000, json_schema_extra=_INT32)]
Seconds = Annotated[int, Field(ge=1, le=3600, json_schema_extra=_INT32)]


class Connections(ApiModel):
    """Limits and timeouts of the connections from clients."""

    rules: ClassVar = (
        Rule(
            "!has(self.maxTotal) || !has(self.maxPerAddress) || self.maxPerAddress <= "
            "self.maxTotal",
            "maxPerAddress must be at most maxTotal",
            lambda connections: (
                connections.max_total is None
                or connections.max_per_address is None
                or connections.max_per_address <= connections.max_total
            ),
        ),
    )

    max_total: Number | None = None
    """Maximum number of open connections of one balancer, 16 to 1000000. A further one displaces
    a connection without a request in progress, of the address that has the most. Each adds 16Ki to
    the balancer's memory. Default: four times maxQueuedRequests, at least 4096. Example: 20000"""

    max_per_address: Number | None = None
    """The same for one client address, or IPv6 network of 64 bits, 16 to maxTotal. An Ingress is
    one address, and so is another balancer that forwards its requests. Default: half of maxTotal.
    Example: 1000"""

    idle_timeout_seconds: Seconds = 75
    """Time in seconds after which a connection without a request is closed, 1 to 3600. Longer than
    that of a proxy in front, or its requests fail now and then: the idle timeout of AWS load
    balancers is 60. Default: 75. Example: 620"""

    head_timeout_seconds: Seconds = 10
    """Time in seconds from the first byte of a request to the end of its headers, 1 to 3600; then
    status 408. Default: 10. Example: 30"""

    body_timeout_seconds: Seconds = 30
    """Maximum pause in seconds in a request's body, 1 to 3600; then status 408. Default: 30.
    Example: 120"""

    write_timeout_seconds: Seconds = 60
    """Time in seconds that a client may leave a response unread, 1 to 3600; then its connection is
    reset and its slot released. Default: 60. Example: 300"""
