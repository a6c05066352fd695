"""What a balancer follows in the cluster: the access rules in force, blockers, and their age."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from balancer_harness import TEST_SECONDS, Balancer, run_balancer
from election_harness import (
    FAST_ELECTION,
    LEASE_NAME,
    SERVICE,
    WatchedCluster,
    introduce,
    wall_time,
)
from fake_llama import FakeLlama, stream_two_events
from raw_http import post
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.api.blocker import StartBlocker
from slotkeeper.api.group import (
    ACCESS_RULES_ANNOTATION,
    PRIME_ANNOTATION,
    START_BLOCKER_ANNOTATION,
)
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt, to_annotation
from slotkeeper.balancer.cluster import ClusterFollower, ViewAge
from slotkeeper.balancer.election.peers import Peer
from slotkeeper.balancer.options import parse
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.priming.priming import Priming
from slotkeeper.kube.cluster import ApiError, Unreachable
from slotkeeper.kube.kinds import ENDPOINT_SLICES, ROLES
from wait_until import until

ROLE = ("ns", "tiny-balancer")
NOT_FOUND = StartBlocker("ModelNotFound", "GET http://models/a.gguf returned 404", permanent=True)
ANY = AccessRules()
KEYS = AccessRules(api_keys_secret="chat-keys")
CHAT = "/v1/chat/completions"
CHAT_ONLY = AccessRules(allowed_paths=frozenset((CHAT.encode(),)))


def set_role(
    cluster: WatchedCluster,
    rules: AccessRules | str | None,
    blocker: StartBlocker | None = None,
    prime: str | None = None,
) -> None:
    """Write the balancers' Role as the operator does."""
    annotations = {}
    if rules is not None:
        value = rules if isinstance(rules, str) else rules.to_annotation()
        annotations[ACCESS_RULES_ANNOTATION] = value
    if blocker:
        annotations[START_BLOCKER_ANNOTATION] = blocker.to_annotation()
    if prime:
        annotations[PRIME_ANNOTATION] = prime
    namespace, name = ROLE
    cluster.put(
        {
            "apiVersion": ROLES.api_version,
            "kind": ROLES.kind,
            "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
        }
    )


@dataclass
class Followed:
    """A balancer that follows a cluster."""

    cluster: WatchedCluster
    balancer: Balancer

    async def readiness(self) -> int:
        return (await self.balancer.admin_request("/ready")).status

    @property
    def is_leader(self) -> bool:
        return self.balancer.proxy.is_leader and bool(self.cluster.holder)


@asynccontextmanager
async def follow(
    cluster: WatchedCluster,
    llama: FakeLlama,
    name: str = "a",
    rules: AccessRules = ANY,
    priming: PrimingOptions | None = None,
) -> AsyncIterator[Followed]:
    """Run a balancer with these rules of its own."""
    async with (
        run_balancer(rules=rules, priming=priming) as balancer,
        asyncio.timeout(TEST_SECONDS),
    ):
        host, _, port = llama.name.rpartition(":")
        cluster.put(
            {
                "apiVersion": ENDPOINT_SLICES.api_version,
                "kind": ENDPOINT_SLICES.kind,
                "metadata": {
                    "namespace": "ns",
                    "name": "tiny-replicas-x",
                    "labels": {"kubernetes.io/service-name": "tiny-replicas"},
                },
                "ports": [{"name": "http", "port": int(port)}],
                "endpoints": [{"addresses": [host]}],
            }
        )
        ports = (f"127.0.0.1:{balancer.port}", f"127.0.0.1:{balancer.metrics_port}")
        cluster.add_pod(Peer(name, *ports))
        options = parse(
            [
                *("--listen", ":0", "--metrics", ":0", "--endpoints", "ns/tiny-replicas"),
                *("--lease", "/".join(LEASE_NAME), "--role", "/".join(ROLE)),
                *("--identity", name, "--peers", f"ns/{SERVICE}"),
            ]
        )
        balancer.access.outdated = True
        follower = ClusterFollower(
            cluster, options, balancer.proxy, balancer.admin, balancer.access, wall_time
        )
        assert balancer.admin.election
        balancer.admin.election._timeouts = FAST_ELECTION
        balancer.admin.election._probe._timeouts = FAST_ELECTION
        task = asyncio.ensure_future(follower.run())
        try:
            yield Followed(cluster, balancer)
        finally:
            task.cancel()


def new_cluster(
    rules: AccessRules | str | None = ANY, blocker: StartBlocker | None = None
) -> WatchedCluster:
    cluster = WatchedCluster()
    cluster.create_lease()
    set_role(cluster, rules, blocker)
    return cluster


@asynccontextmanager
async def serving(rules: AccessRules = ANY, *own: AccessRules) -> AsyncIterator[Followed]:
    """A balancer that leads and serves, with these rules in force and of its own."""
    async with (
        FakeLlama(2) as llama,
        follow(new_cluster(rules), llama, rules=own[0] if own else rules) as followed,
    ):
        await until(lambda: followed.balancer.admin.ready and followed.is_leader)
        await until(lambda: followed.balancer.dispatcher.has_replica)
        yield followed


# The rules in force.


@pytest.mark.parametrize("rules", [None, "", "[]", "{}", "[" * 100_000, '{"maxPriority": true}'])
async def test_without_readable_rules_a_balancer_does_not_start_to_serve(
    rules: str | None,
) -> None:
    async with FakeLlama(1) as llama, follow(new_cluster(rules), llama) as followed:
        balancer = followed.balancer
        await until(lambda: bool(balancer.proxy._targets))

        assert await followed.readiness() == 503
        response = await balancer.request(post("/completion"))
        assert (response.status, response.error_code) == (503, "access_rules_outdated")

        set_role(followed.cluster, ANY)
        await until(lambda: balancer.admin.ready)
        assert await followed.readiness() == 200
        assert (await balancer.request(post("/completion"))).status == 200


async def test_a_balancer_without_the_required_keys_rejects_clients() -> None:
    async with serving() as followed:
        balancer = followed.balancer
        client = await balancer.connect()
        assert (await client.request(post("/completion"))).status == 200
        set_role(followed.cluster, KEYS)
        await until(lambda: balancer.proxy.access.outdated)

        response = await client.request(post("/completion", b"{}", "Authorization: Bearer sk-a"))
        assert (response.status, response.error_code) == (503, "access_rules_outdated")
        # The next connection is to another balancer.
        assert await client.at_end()
        assert await followed.readiness() == 503


async def test_what_it_accepted_before_completes() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        follow(new_cluster(), llama) as followed,
    ):
        balancer = followed.balancer
        await until(lambda: balancer.admin.ready)
        clients = [await balancer.start_request(post("/completion")) for _ in "12"]
        await llama.wait_calls(1)
        set_role(followed.cluster, KEYS)
        await until(lambda: balancer.proxy.access.outdated)

        for number, client in enumerate(clients):
            await llama.proceed(number)
            assert (await client.response()).status == 200


async def test_it_serves_requests_that_a_current_balancer_relays() -> None:
    async with serving() as followed, run_balancer() as current:
        set_role(followed.cluster, KEYS)
        await until(lambda: followed.balancer.proxy.access.outdated)
        proof = introduce(current, followed.balancer)
        current.proxy.become_standby(f"127.0.0.1:{followed.balancer.port}", proof)

        assert (await current.request(post("/completion"))).status == 200


async def test_it_leaves_the_leadership_to_a_current_balancer() -> None:
    async with serving() as old:
        set_role(old.cluster, KEYS)
        await until(lambda: old.balancer.proxy.access.outdated)
        llama = FakeLlama(2)
        async with llama, follow(old.cluster, llama, "b", KEYS) as new:
            await until(lambda: old.cluster.holder == "b" and new.balancer.proxy.is_leader)
            await until(lambda: not old.balancer.proxy.is_leader)

            assert new.balancer.admin.ready


async def test_two_outdated_balancers_leave_the_leadership_where_it_is() -> None:
    async with serving() as old, FakeLlama(1) as llama, follow(old.cluster, llama, "b") as other:
        await until(lambda: other.balancer.proxy.is_relaying)
        set_role(old.cluster, KEYS)
        await until(
            lambda: other.balancer.proxy.access.outdated and old.balancer.proxy.access.outdated
        )
        await asyncio.sleep(5 * FAST_ELECTION.poll)

        assert (old.cluster.holder, other.balancer.proxy.is_leader) == ("a", False)


async def test_a_reverted_spec_makes_it_current_again() -> None:
    async with serving() as followed:
        set_role(followed.cluster, KEYS)
        await until(lambda: followed.balancer.proxy.access.outdated)
        set_role(followed.cluster, ANY)
        await until(lambda: not followed.balancer.proxy.access.outdated)

        assert (await followed.balancer.request(post("/completion"))).status == 200
        assert await followed.readiness() == 200
        assert not followed.balancer.admin.election._leaving  # type: ignore[union-attr]


async def test_stricter_paths_and_priorities_apply_at_once_without_a_replacement() -> None:
    async with serving(AccessRules(9, {"alice": 20})) as followed:
        balancer = followed.balancer
        stricter = AccessRules(0, {"alice": 5}, CHAT_ONLY.allowed_paths)
        set_role(followed.cluster, stricter)
        await until(lambda: balancer.access._rules == stricter)

        response = await balancer.request(post("/completion"))
        assert (response.status, response.error_code) == (404, "path_not_allowed")
        assert (await balancer.request(post(CHAT))).status == 200
        assert await followed.readiness() == 200


@pytest.mark.parametrize(
    "own",
    [KEYS, CHAT_ONLY, AccessRules(1, {"alice": 0})],
    ids=["keys", "paths", "priorities"],
)
async def test_after_a_loosening_change_it_serves_by_its_own_rules(own: AccessRules) -> None:
    async with serving(AccessRules(9), own) as followed:
        assert followed.balancer.access._rules == own
        assert (await followed.balancer.request(post(CHAT))).status == 200
        assert await followed.readiness() == 200


@pytest.mark.parametrize("broken", ["deleted", "malformed"])
async def test_the_last_rules_stay_while_there_are_none(broken: str) -> None:
    async with serving() as followed:
        set_role(followed.cluster, CHAT_ONLY)
        await until(lambda: followed.balancer.access._rules == CHAT_ONLY)
        if broken == "deleted":
            followed.cluster.remove(ROLES, *ROLE)
        else:
            set_role(followed.cluster, "{}", NOT_FOUND)
        set_role_of_another(followed.cluster)
        await asyncio.sleep(0.02)

        assert (await followed.balancer.request(post("/completion"))).status == 404
        assert await followed.readiness() == 200


def set_role_of_another(cluster: WatchedCluster) -> None:
    cluster.put(
        {
            "apiVersion": ROLES.api_version,
            "kind": ROLES.kind,
            "metadata": {
                "namespace": "ns",
                "name": "another",
                "annotations": {ACCESS_RULES_ANNOTATION: ANY.to_annotation()},
            },
        }
    )


# Start blockers.


async def test_the_blocker_is_read_from_the_role_until_it_is_removed() -> None:
    async with serving() as followed:
        set_role(followed.cluster, ANY, NOT_FOUND)
        for slice_ in ("tiny-replicas-x",):
            followed.cluster.remove(ENDPOINT_SLICES, "ns", slice_)
        await until(lambda: followed.balancer.dispatcher.start_blocker == NOT_FOUND)
        set_role(followed.cluster, ANY)
        await until(lambda: followed.balancer.dispatcher.start_blocker is None)


@asynccontextmanager
async def with_a_prompt_of_the_spec() -> AsyncIterator[tuple[Followed, Priming]]:
    """Run a balancer that has read one prompt to compute from its Role."""
    cluster = new_cluster()
    set_role(cluster, ANY, prime=to_annotation([SpecPrompt(PromptKind.TEXT, "Notes:")]))
    async with (
        FakeLlama(2) as llama,
        follow(cluster, llama, priming=PrimingOptions(20)) as followed,
    ):
        priming = followed.balancer.proxy.priming
        assert priming
        await until(lambda: priming.report().prompts == 1)
        yield followed, priming


@pytest.mark.parametrize("malformed", ["{", "{}", '["a"]', '[{"text": 3}]', '[{"image": "a"}]'])
async def test_the_prompts_of_the_spec_are_primed_and_a_malformed_annotation_keeps_them(
    malformed: str,
) -> None:
    async with with_a_prompt_of_the_spec() as (followed, priming):
        set_role(followed.cluster, ANY, NOT_FOUND, prime=malformed)
        await until(lambda: followed.balancer.dispatcher.start_blocker)

        assert priming.report().prompts == 1


async def test_prompts_that_are_removed_from_the_spec_are_primed_no_longer() -> None:
    async with with_a_prompt_of_the_spec() as (followed, priming):
        set_role(followed.cluster, ANY)
        await until(lambda: priming.report().prompts == 0)


async def test_an_annotation_of_the_lease_blocks_nothing() -> None:
    async with serving() as followed:
        followed.cluster.remove(ENDPOINT_SLICES, "ns", "tiny-replicas-x")

        def annotate(lease: Any) -> None:
            lease["metadata"]["annotations"] = {START_BLOCKER_ANNOTATION: NOT_FOUND.to_annotation()}

        followed.cluster.edit_lease(annotate)
        await until(lambda: not followed.balancer.dispatcher.has_replica)
        await asyncio.sleep(2 * FAST_ELECTION.poll)

        assert followed.balancer.dispatcher.start_blocker is None


# Age.


def test_the_age_is_that_of_the_watch_confirmed_the_longest_ago() -> None:
    now = 100.0
    age = ViewAge(lambda: now)
    assert age.seconds() == 0
    one, two = age.track("one"), age.track("two")
    now = 107.0
    one()
    assert age.seconds() == 7
    now = 109.0
    two()
    assert age.seconds() == 2


async def test_the_age_is_reported() -> None:
    async with serving() as followed:
        balancer = followed.balancer
        balancer.proxy.view_age = lambda: 1234.5678

        report = await balancer.admin_json("/autoscaling?scope=local")

        assert report["viewAgeSeconds"] == 1234.568


@pytest.mark.parametrize(
    "error",
    [ApiError(401, "Unauthorized", "Unauthorized"), Unreachable(0, "Unreachable", "no route")],
)
async def test_a_failed_list_confirms_nothing(error: ApiError) -> None:
    cluster = new_cluster()
    cluster.fail(error)
    async with FakeLlama(1) as llama, follow(cluster, llama) as followed:
        first = followed.balancer.proxy.view_age()
        await until(lambda: followed.balancer.proxy.view_age() > first + 0.05)
        cluster.recover()
        await until(lambda: followed.balancer.admin.ready)
        assert followed.balancer.proxy.view_age() < first + 0.05
