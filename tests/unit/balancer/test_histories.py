"""Anything may happen to balancers, replicas and clients: a history is recorded, then judged."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from election_harness import Family, Member, family
from fake_llama import Call, FakeLlama
from raw_http import RawClient, post
from wait_until import until

REQUESTS = 120
AT_ONCE = 12


@dataclass
class History:
    """How every request ended: "answered", "left" by its client's own will, or what else."""

    endings: dict[int, str] = field(default_factory=dict)

    def end(self, number: int, how: str) -> None:
        assert number not in self.endings, "a request ended twice"
        self.endings[number] = how


async def stream_its_number(call: Call) -> None:
    chance = random.Random(call.body)
    await call.head()
    for _ in range(chance.randrange(4)):
        await call.event(call.body.decode())
        await asyncio.sleep(chance.random() / 200)
    await call.event(call.body.decode())
    await call.end()


class Play:
    """Clients ask, and leave, at any of the balancers that are to be used; things happen."""

    def __init__(self, they: Family, llamas: list[FakeLlama], seed: int) -> None:
        self.they = they
        self.llamas = llamas
        self.chance = random.Random(seed)
        self.history = History()
        self.open: list[Member] = []
        self.names = iter("abcdefghijklmnopqrstuvwxyz")
        self.asking: Counter[int] = Counter()  # clients, by their member
        self.ended: list[Member] = []
        self.finishing: list[asyncio.Future[None]] = []

    async def ask(self, number: int) -> None:
        member = self.chance.choice(self.open)
        self.asking[id(member)] += 1
        body = b"%d" % number
        patience = self.chance.random() / 100 if self.chance.random() < 0.2 else None
        try:
            async with (
                asyncio.timeout(patience),
                await RawClient.connect(member.made.port) as client,
            ):
                answer = await client.ask(post("/completion", body))
        except TimeoutError:
            self.history.end(number, "left")
        except (OSError, asyncio.IncompleteReadError) as error:
            self.history.end(number, f"cut: {error!r}")
        else:
            events = set(answer.body.split(b"\n\n")) - {b""}
            whole = answer.status == 200 and events == {b"data: " + body}
            self.history.end(number, "answered" if whole else f"{answer.status}: {answer.body!r}")

        self.asking[id(member)] -= 1

    async def goes_on(self, *happenings: Callable[[], Awaitable[None]]) -> None:
        """All requests are sent and ended while these happen, in any order."""
        asking = asyncio.ensure_future(self.all_ask())
        while not asking.done() and len(self.ended) < 12:
            await self.chance.choice(happenings)()
            await asyncio.sleep(self.chance.random() / 50)
        await asyncio.gather(asking, *self.finishing)

    async def all_ask(self) -> None:
        numbers = iter(range(REQUESTS))

        async def one_after_the_other() -> None:
            for number in numbers:
                await self.ask(number)

        await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))

    async def replace_a_balancer(self) -> None:
        """As a rollout does: a new one starts, an old one is told to end and ends what it has."""
        self.open.append(await self.they.add(next(self.names)))
        old = self.open.pop(self.chance.randrange(len(self.open) - 1))
        self.ended.append(old)
        self.finishing.append(asyncio.ensure_future(old.finish(lambda: not self.asking[id(old)])))

    async def kill_the_leader(self) -> None:
        """It is gone without a word; another was there, and a new one comes.

        Twice and no more: a request that three balancers died of is not tried on a fourth.
        """
        leaders = [member for member in self.open if member.leads]
        if leaders and len(self.ended) < 2:
            self.open.remove(leaders[0])
            await leaders[0].die()
            self.ended.append(leaders[0])
            self.open.append(await self.they.add(next(self.names)))

    async def replace_a_replica(self) -> None:
        """One drains, another comes, the drained one is gone."""
        leaving = self.chance.choice(self.llamas)
        self.tell({leaving.name: False})
        await asyncio.sleep(self.chance.random() / 100)
        self.tell({})

    def tell(self, changed: dict[str, bool]) -> None:
        wanted = {llama.name: True for llama in self.llamas} | changed
        for member in self.they.members.values():
            member.made.proxy.set_replicas(wanted)


@asynccontextmanager
async def play(seed: int) -> AsyncIterator[Play]:
    """Two balancers and three replicas; at the end all must be at rest, and one lead."""
    async with (
        FakeLlama(1, stream_its_number) as one,
        FakeLlama(2, stream_its_number) as two,
        FakeLlama(3, stream_its_number) as three,
        family(one, two, three) as they,
    ):
        made = Play(they, [one, two, three], seed)
        made.open = [await they.add_leader(next(made.names)), await they.add(next(made.names))]
        yield made
        assert len(made.history.endings) == REQUESTS
        assert [llama.over_commits for llama in made.llamas] == [0, 0, 0]
        alive = [each for each in they.members.values() if not each.running.cancelled()]
        await until(lambda: sum(member.leads for member in alive) == 1)
        for member in alive:
            await member.made.at_rest()


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_lost_or_doubled_while_balancers_and_replicas_are_replaced(
    seed: int,
) -> None:
    async with play(seed) as made:
        await made.goes_on(made.replace_a_balancer, made.replace_a_replica)

        assert set(made.history.endings.values()) == {"answered", "left"}


# Python 3.11's own loop forgets a connection that it accepts in the very round in which its server
# closes: Server._attach fails, and the socket is left to the garbage collector, which complains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(4))
async def test_killed_balancers_cost_what_ran_through_them_and_over_commit_nothing(
    seed: int,
) -> None:
    async with play(seed) as made:
        await made.goes_on(made.kill_the_leader, made.replace_a_replica)

        others = set(made.history.endings.values()) - {"answered", "left"}
        assert {ending for ending in others if not ending.startswith("cut")} == set()
