"""The testbed: fake replicas, a balancer in front of them, and gateways in front of it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict

from bench.balancer.fake_server import ReplicaOptions
from bench.balancer.systems import DIRECT, SLOTKEEPER, System
from bench.balancer.testbed import RunningSystem, Testbed, start
from bench.balancer.worker import Worker

BALANCER = "balancer"


@asynccontextmanager
async def testbed(
    replicas: int, options: ReplicaOptions, gateways: Sequence[System]
) -> AsyncIterator[Testbed]:
    """Start fake replicas, a balancer, and all `gateways` in front of the same balancer.

    The first of the running systems are `direct`, without a proxy, and the balancer alone.
    """
    async with AsyncExitStack() as stack:
        fakes = await stack.enter_async_context(Worker("bench.balancer.fake_server"))
        load = await stack.enter_async_context(Worker("bench.balancer.load"))
        ports = await fakes.call("serve", replicas=replicas, **asdict(options))
        direct = await stack.enter_async_context(start(DIRECT, ports, options.slots))
        balancer = await stack.enter_async_context(start(SLOTKEEPER, ports, options.slots))
        running = [direct, _renamed(balancer)]
        for system in gateways:
            gateway = start(system, balancer.ports, options.slots)
            running.append(await stack.enter_async_context(gateway))
        yield Testbed(fakes, load, running, ports)


def _renamed(balancer: RunningSystem) -> RunningSystem:
    return RunningSystem(
        BALANCER, balancer.ports, balancer.pick, balancer.pid, balancer.setup, balancer.headers
    )
