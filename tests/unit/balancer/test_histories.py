"""Random failures of balancers, replicas and clients: the history of all requests is checked."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from election_harness import Group, Member, run_group
from fake_llama import Call, FakeLlama
from raw_http import RawClient, post
from wait_until import until

# Python 3.11's own loop loses a connection that it accepts in the very round in which its server
# closes: Server._attach fails, and the client waits until the garbage collector finds the socket.
pytestmark = pytest.mark.uvloop

REQUESTS = 120
CONCURRENCY = 12
COMPLETE = "complete"
DISCONNECTED = "client disconnected"
ABORTED = "aborted"
PREEMPTED = "preempted"


@dataclass
class History:
    """How each request ended: COMPLETE, DISCONNECTED, or ABORTED or a response with details."""

    ends: dict[int, str] = field(default_factory=dict)

    def end(self, number: int, how: str) -> None:
        assert number not in self.ends, "a request ended twice"
        self.ends[number] = how


async def stream_body(call: Call) -> None:
    """Send up to four events with the request's body."""
    rng = random.Random(call.body)
    await call.send_head()
    for _ in range(rng.randrange(4)):
        await call.send_event(call.body.decode())
        await asyncio.sleep(rng.random() / 200)
    await call.send_event(call.body.decode())
    await call.end()


class Scenario:
    """Clients send requests to any of the open balancers, and may disconnect, while parts fail."""

    def __init__(self, group: Group, llamas: list[FakeLlama], seed: int) -> None:
        self.group = group
        self.llamas = llamas
        self.rng = random.Random(seed)
        self.history = History()
        self.names = iter("abcdefghijklmnopqrstuvwxyz")
        self.open: list[Member] = []
        """Balancers that clients use."""
        self.closed: list[Member] = []
        self.preemptible = 0.0
        """Share of the requests that are."""
        self.clients: Counter[int] = Counter()
        """By the id() of the member that they use."""
        self.shutdowns: list[asyncio.Future[None]] = []

    async def run(self, *failures: Callable[[], Awaitable[None]]) -> None:
        """Send all requests, and cause these failures in random order until they have ended."""
        requests = asyncio.ensure_future(self._send_all())
        while not requests.done() and len(self.closed) < 12:
            await self.rng.choice(failures)()
            await asyncio.sleep(self.rng.random() / 50)
        await asyncio.gather(requests, *self.shutdowns)

    async def _send_all(self) -> None:
        numbers = iter(range(REQUESTS))

        async def send_one_by_one() -> None:
            for number in numbers:
                await self._send(number)

        await asyncio.gather(*(send_one_by_one() for _ in range(CONCURRENCY)))

    async def _send(self, number: int) -> None:
        member = self.rng.choice(self.open)
        self.clients[id(member)] += 1
        body = b"%d" % number
        timeout = self.rng.random() / 100 if self.rng.random() < 0.2 else None
        headers = ("X-Preemptible: true",) if self.rng.random() < self.preemptible else ()
        if headers:
            body = b'{"stream": true, "number": %d}' % number
        try:
            async with (
                asyncio.timeout(timeout),
                await RawClient.connect(member.balancer.port) as client,
            ):
                response = await client.request(post("/completion", body, *headers))
        except TimeoutError:
            self.history.end(number, DISCONNECTED)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.history.end(number, PREEMPTED if headers else f"{ABORTED}: {error!r}")
        else:
            events = set(response.body.split(b"\n\n")) - {b""}
            complete = response.status == 200 and events == {b"data: " + body}
            details = f"{response.status}: {response.body!r}"
            if headers and response.status == 503 and response.error_code == "preempted":
                details = PREEMPTED
            self.history.end(number, COMPLETE if complete else details)

        self.clients[id(member)] -= 1

    async def replace_a_balancer(self) -> None:
        """Start a balancer and shut another one down, as a rollout does."""
        self.open.append(await self.group.add(next(self.names)))
        old = self.open.pop(self.rng.randrange(len(self.open) - 1))
        self.closed.append(old)
        shutdown = old.shut_down(lambda: not self.clients[id(old)])
        self.shutdowns.append(asyncio.ensure_future(shutdown))

    async def kill_the_leader(self) -> None:
        """Kill the leader beside a standby, and start another balancer.

        At most twice: a request is not relayed to any number of leaders.
        """
        leaders = [member for member in self.open if member.is_leader]
        if leaders and len(self.closed) < 2:
            self.open.remove(leaders[0])
            await leaders[0].kill()
            self.closed.append(leaders[0])
            self.open.append(await self.group.add(next(self.names)))

    async def replace_a_replica(self) -> None:
        """Drain a replica, and use it again."""
        leaving = self.rng.choice(self.llamas)
        self._set_replicas({leaving.name: False})
        await asyncio.sleep(self.rng.random() / 100)
        self._set_replicas({})

    def _set_replicas(self, changed: dict[str, bool]) -> None:
        targets = {llama.name: True for llama in self.llamas} | changed
        for member in self.group.members.values():
            member.balancer.proxy.set_replicas(targets)


@asynccontextmanager
async def run_scenario(seed: int) -> AsyncIterator[Scenario]:
    """Run two balancers and three replicas; at the end check that all are idle, and one leads."""
    async with (
        FakeLlama(1, stream_body) as one,
        FakeLlama(2, stream_body) as two,
        FakeLlama(3, stream_body) as three,
        run_group(one, two, three) as group,
    ):
        scenario = Scenario(group, [one, two, three], seed)
        scenario.open = [
            await group.add_leader(next(scenario.names)),
            await group.add(next(scenario.names)),
        ]
        yield scenario
        assert len(scenario.history.ends) == REQUESTS
        assert [llama.overcommitted for llama in scenario.llamas] == [0, 0, 0]
        alive = [member for member in group.members.values() if not member.task.cancelled()]
        await until(lambda: sum(member.is_leader for member in alive) == 1)
        for member in alive:
            await member.balancer.wait_idle()


@pytest.mark.parametrize("seed", range(4))
async def test_no_request_is_lost_or_doubled_while_balancers_and_replicas_are_replaced(
    seed: int,
) -> None:
    async with run_scenario(seed) as scenario:
        await scenario.run(scenario.replace_a_balancer, scenario.replace_a_replica)

        assert set(scenario.history.ends.values()) == {COMPLETE, DISCONNECTED}


@pytest.mark.parametrize("seed", range(4))
async def test_killed_balancers_abort_only_their_own_requests_and_never_overcommit_slots(
    seed: int,
) -> None:
    async with run_scenario(seed) as scenario:
        await scenario.run(scenario.kill_the_leader, scenario.replace_a_replica)

        others = set(scenario.history.ends.values()) - {COMPLETE, DISCONNECTED}
        assert {end for end in others if not end.startswith(ABORTED)} == set()


@pytest.mark.parametrize("seed", range(4))
async def test_preemption_loses_no_ordinary_request_and_overcommits_no_slot(seed: int) -> None:
    async with run_scenario(seed) as scenario:
        scenario.preemptible = 0.6
        await scenario.run(scenario.replace_a_balancer, scenario.replace_a_replica)

        ends = Counter(scenario.history.ends.values())
        assert ends.keys() <= {COMPLETE, DISCONNECTED, PREEMPTED}
        assert ends[PREEMPTED]
        assert ends[COMPLETE]
