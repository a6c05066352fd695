from pathlib import Path

import pytest

from slotkeeper.api.access_rules import AccessRules
from slotkeeper.balancer.options import parse
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.scheduling import AffinityLimits, RunningLimits
from slotkeeper.wire.limits import Limits

PORTS = ["--listen", "0.0.0.0:8080", "--metrics", ":9090"]


def test_replicas_and_their_slots_may_be_configured() -> None:
    options = parse([*PORTS, "--replica", "a:1", "--replica", "[::1]:2", "--slots", "4"])

    assert options.listen == ("0.0.0.0", 8080)
    assert options.metrics == ("::", 9090)
    assert options.replicas == ("a:1", "[::1]:2")
    assert (options.slots, options.endpoints) == (4, None)


def test_replicas_may_come_from_a_service() -> None:
    assert parse([*PORTS, "--endpoints", "ns/name"]).endpoints == ("ns", "name")


def test_limits_have_the_units_in_their_names() -> None:
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


@pytest.mark.parametrize(
    ("arguments", "buffered_mib"),
    [
        ([], 256),
        (["--max-queued-mib", "1024"], 1024),
        (["--max-buffered-mib", "64"], 128),
        (["--max-buffered-mib", "64", "--max-queued-mib", "64"], 64),
    ],
)
def test_the_memory_for_requests_holds_the_whole_queue(
    arguments: list[str], buffered_mib: int
) -> None:
    options = parse([*PORTS, "--replica", "a:1", *arguments])

    assert options.limits.max_buffered == buffered_mib * 1024 * 1024


def test_prompts_are_kept_with_the_port_of_the_agents() -> None:
    default = parse([*PORTS, "--replica", "a:1"])
    options = parse([*PORTS, "--replica", "a:1", "--prompt-files", "9094"])

    assert (default.prompt_files, default.prompt_min_tokens) == (None, 512)
    assert options.prompt_files == 9094


def test_what_replicas_have_is_not_assumed() -> None:
    default = parse([*PORTS, "--replica", "a:1"])
    options = parse([*PORTS, "--replica", "a:1", "--speculative", "--workers"])

    assert (default.speculative, default.workers) == (False, False)
    assert (options.speculative, options.workers) == (True, True)


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_an_invalid_port_of_the_agents_is_rejected(port: str) -> None:
    with pytest.raises(SystemExit):
        parse([*PORTS, "--replica", "a:1", "--prompt-files", port])


def test_replicas_are_primed_if_there_is_time_for_it() -> None:
    replica = [*PORTS, "--replica", "a:1"]
    folder = ("--prime-folder", "/etc/p", "--prime-config-map", "p", "--learn-prompts")
    options = parse([*replica, "--prime-seconds", "20", *folder])

    assert parse(replica).priming is None
    assert options.priming == PrimingOptions(20, learned=True, config_map="p")
    assert options.prime_folder == Path("/etc/p")
    for arguments in (folder[:2], ("--learn-prompts",), ("--prime-seconds", "0")):
        with pytest.raises(SystemExit):
            parse([*replica, *arguments])


def test_connections_have_limits_and_timeouts() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert parse(replica).limits == Limits()
    limits = parse(
        [
            *(*replica, "--max-connections", "100", "--idle-timeout", "620"),
            *("--head-timeout", "1", "--body-timeout", "2", "--write-timeout", "3"),
        ]
    ).limits
    assert (limits.max_connections, limits.max_connections_per_address) == (100, 50)
    assert (limits.idle_timeout, limits.head_timeout) == (620, 1)
    assert (limits.body_timeout, limits.write_timeout) == (2, 3)


def test_the_memory_for_requests_holds_the_largest_body() -> None:
    options = parse([*PORTS, "--replica", "a:1", "--max-body-mib", "512"])

    assert options.limits.max_buffered == 512 * 1024 * 1024


def test_affinity_has_limits_and_may_be_disabled() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert parse(replica).affinity == AffinityLimits()
    assert parse([*replica, "--cached-prompts", "7"]).affinity == AffinityLimits(cached_prompts=7)
    assert parse([*replica, "--max-affinity-wait", "0.5"]).affinity == AffinityLimits(
        max_affinity_wait=0.5
    )
    assert parse([*replica, "--no-prefix-affinity"]).affinity is None


def test_priorities_are_off_without_a_maximum() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert parse(replica).rules.max_priority == 0
    assert parse([*replica, "--max-priority", "9"]).rules.max_priority == 9


def test_keys_and_paths_are_unrestricted_by_default() -> None:
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


def test_heartbeats_are_off_by_default() -> None:
    replica = [*PORTS, "--replica", "a:1"]

    assert parse(replica).heartbeat_seconds == 0
    assert parse([*replica, "--heartbeat-interval", "2.5"]).heartbeat_seconds == 2.5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*PORTS], "one of the arguments --replica --endpoints is required"),
        ([*PORTS, "--replica", "a"], "'a' is not HOST:PORT"),
        ([*PORTS, "--replica", ":80"], "':80' is not HOST:PORT"),
        ([*PORTS, "--replica", "a:99999"], "'a:99999' is not HOST:PORT"),
        ([*PORTS, "--endpoints", "name"], "'name' is not NAMESPACE/NAME"),
        ([*PORTS, "--endpoints", "a/b/c"], "'a/b/c' is not NAMESPACE/NAME"),
        ([*PORTS, "--endpoints", "a/b", "--slots", "2"], "--slots requires --replica"),
        ([*PORTS, "--replica", "a:1", "--slots", "0"], "must be 1 or more"),
        ([*PORTS, "--replica", "a:1", "--max-queued", "-1"], "'-1' is not a whole number"),
        (
            [*PORTS, "--replica", "a:1", "--heartbeat-interval", "-1"],
            "not a number of seconds",
        ),
        (
            [*PORTS, "--replica", "a:1", "--queue-timeout", "inf"],
            "'inf' is not a number of seconds",
        ),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "a=1"], "requires --api-keys"),
        ([*PORTS, "--replica", "a:1", "--api-keys-secret", "a"], "requires --api-keys"),
        ([*PORTS, "--replica", "a:1", "--role", "a/b"], "--role requires --endpoints"),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "a"], "'a' is not NAME=N"),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "=1"], "'=1' is not NAME=N"),
        ([*PORTS, "--replica", "a:1", "--key-max-priority", "a=-1"], "'a=-1' is not NAME=N"),
        (
            [*PORTS, "--replica", "a:1", "--allowed-path", "/slots"],
            "'/slots' is not one of /apply-template",
        ),
        ([*PORTS, "--replica", "a:1", "--allowed-path", "/infill/"], "'/infill/' is not one of"),
        ([*PORTS, "--replica", "a:1", "--allowed-path", "é"], "'é' is not one of"),
    ],
)
def test_an_invalid_command_line_is_rejected_with_a_message(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(argv)

    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--identity=a", "--peers=a/b"])
def test_election_options_require_a_lease(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*PORTS, "--endpoints", "a/b", flag])

    assert "--identity and --peers require --lease" in capsys.readouterr().err


def test_keys_may_have_limits_of_running_requests() -> None:
    keys = [*PORTS, "--replica", "a:1", "--api-keys", "/keys"]

    assert parse(keys).running_limits is None
    assert parse([*keys, "--max-running-per-key", "6"]).running_limits == RunningLimits(6)
    assert parse([*keys, "--key-max-running", "a=2"]).running_limits == RunningLimits(
        None, {"a": 2}
    )
    with pytest.raises(SystemExit):
        parse([*PORTS, "--replica", "a:1", "--max-running-per-key", "6"])
