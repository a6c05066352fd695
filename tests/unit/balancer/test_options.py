from pathlib import Path

import pytest

from slotkeeper.balancer.access import AccessRules
from slotkeeper.balancer.options import parse
from slotkeeper.scheduling import AffinityLimits

PORTS = ["--listen", "0.0.0.0:8080", "--metrics", ":9090"]


def test_replicas_and_their_slots_may_be_named() -> None:
    options = parse([*PORTS, "--replica", "a:1", "--replica", "[::1]:2", "--slots", "4"])

    assert options.listen == ("0.0.0.0", 8080)
    assert options.metrics == ("0.0.0.0", 9090)
    assert options.replicas == ("a:1", "[::1]:2")
    assert (options.slots, options.endpoints) == (4, None)


def test_replicas_may_come_from_a_service() -> None:
    assert parse([*PORTS, "--endpoints", "ns/name"]).endpoints == ("ns", "name")


def test_bounds_are_given_in_the_units_of_their_names() -> None:
    options = parse(
        [
            *PORTS,
            *("--endpoints", "a/b", "--max-queued", "0", "--max-queued-mib", "2"),
            *("--queue-timeout", "1.5", "--cold-start-timeout", "3", "--max-body-mib", "1"),
        ]
    )

    assert (options.queue_limits.max_queued, options.queue_limits.max_queued_bytes) == (
        0,
        2 * 1024 * 1024,
    )
    assert (options.queue_limits.queue_timeout, options.queue_limits.cold_start_timeout) == (1.5, 3)
    assert options.limits.max_body == 1024 * 1024


@pytest.mark.parametrize(("waiting", "held"), [("1", 256), ("128", 256), ("1024", 1024)])
def test_there_is_room_for_the_whole_queue(waiting: str, held: int) -> None:
    options = parse([*PORTS, "--replica", "a:1", "--max-queued-mib", waiting])

    assert options.limits.max_buffered == held * 1024 * 1024


def test_there_is_room_for_one_body_of_the_largest_size() -> None:
    options = parse([*PORTS, "--replica", "a:1", "--max-body-mib", "512"])

    assert options.limits.max_buffered == 512 * 1024 * 1024


def test_affinity_has_a_size_and_may_be_switched_off() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert parse(replica).affinity == AffinityLimits()
    assert parse([*replica, "--cached-prompts", "7"]).affinity == AffinityLimits(cached_prompts=7)
    assert parse([*replica, "--max-affinity-wait", "0.5"]).affinity == AffinityLimits(
        max_affinity_wait=0.5
    )
    assert parse([*replica, "--no-prefix-affinity"]).affinity is None


def test_priorities_are_off_until_they_are_bounded() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert parse(replica).rules.max_priority == 0
    assert parse([*replica, "--max-priority", "9"]).rules.max_priority == 9


def test_keys_and_routes_are_not_bounded_unless_told() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert (parse(replica).api_keys, parse(replica).rules) == (None, AccessRules())
    options = parse(
        [
            *(*replica, "--api-keys", "/keys", "--max-priority", "2"),
            *("--key-max-priority", "a=b=9", "--key-max-priority", "crawler=0"),
            *("--allowed-path", "/v1/chat/completions", "--allowed-path", "/infill"),
        ]
    )
    assert options.api_keys == Path("/keys")
    assert options.rules == AccessRules(
        2, {"a=b": 9, "crawler": 0}, frozenset((b"/v1/chat/completions", b"/infill"))
    )


def test_heartbeats_are_off_until_they_have_a_time() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert parse(replica).heartbeat_seconds == 0
    assert parse([*replica, "--heartbeat-seconds", "2.5"]).heartbeat_seconds == 2.5


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([*PORTS], "one of the arguments --replica --endpoints is required"),
        ([*PORTS, "--replica", "a"], "'a' is not HOST:PORT"),
        ([*PORTS, "--replica", ":80"], "':80' is not HOST:PORT"),
        ([*PORTS, "--replica", "a:99999"], "'a:99999' is not HOST:PORT"),
        ([*PORTS, "--endpoints", "name"], "'name' is not NAMESPACE/SERVICE"),
        ([*PORTS, "--endpoints", "a/b/c"], "'a/b/c' is not NAMESPACE/SERVICE"),
        ([*PORTS, "--endpoints", "a/b", "--slots", "2"], "--slots goes with --replica"),
        ([*PORTS, "--replica", "a:1", "--slots", "0"], "must be 1 or more"),
        ([*PORTS, "--replica", "a:1", "--max-queued", "-1"], "'-1' is not a whole number"),
        ([*PORTS, "--replica", "a:1", "--heartbeat-seconds", "-1"], "'-1' is not a number of seco"),
        (
            [*PORTS, "--replica", "a:1", "--queue-timeout", "inf"],
            "'inf' is not a number of seconds",
        ),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "a=1"], "needs --api-keys"),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "a"], "'a' is not NAME=N"),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "=1"], "'=1' is not NAME=N"),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "a=-1"], "'a=-1' is not NAME=N"),
        (
            [*PORTS, "--replica", "a:1", "--allowed-path", "/slots"],
            "'/slots' is none of /apply-template",
        ),
        ([*PORTS, "--replica", "a:1", "--allowed-path", "/infill/"], "'/infill/' is none of"),
        ([*PORTS, "--replica", "a:1", "--allowed-path", "é"], "'é' is none of"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(argv)

    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--identity", "--advertise"])
def test_names_for_other_balancers_need_a_lease(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse([*PORTS, "--endpoints", "a/b", flag, "x"])

    assert "of no use without --lease" in capsys.readouterr().err
