"""Effect of `spec.balancer` on the balancers."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from llamaservers import IMAGES, server
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.api.balancer import AllowedPath
from slotkeeper.api.group import PRIME_ANNOTATION
from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt, from_annotation
from slotkeeper.balancer.options import Options, parse
from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.desired import balancer, replicas
from slotkeeper.edge.routes import PROXIED

ALL = {
    "replicas": 3,
    "maxQueuedRequests": 7,
    "maxQueuedBytes": "300M",
    "maxBodyBytes": "2.5Mi",
    "queueTimeoutSeconds": 8,
    "coldStartTimeoutSeconds": 9,
    "prefixAffinity": {"maxWaitSeconds": 1, "cachedPrompts": 6},
    "maxPriority": 4,
    "heartbeatSeconds": 15,
    "allowedPaths": ["/v1/chat/completions", "/infill"],
    "apiKeys": {
        "secretName": "chat-keys",
        "maxPriorities": {"web": 10, "-b.c_": 0},
        "maxRunningRequests": 6,
        "maxRunningRequestsByKey": {"batch": 2},
    },
    "connections": {
        "maxTotal": 5000,
        "maxPerAddress": 600,
        "idleTimeoutSeconds": 620,
        "headTimeoutSeconds": 11,
        "bodyTimeoutSeconds": 31,
        "writeTimeoutSeconds": 61,
    },
    "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
}


def deployment(**spec: Any) -> Any:
    """The Deployment of the balancers of a server with this spec."""
    return balancer.deployment(server(**spec), IMAGES)


def pod(**spec: Any) -> Any:
    """The spec of its pods."""
    return deployment(**spec)["spec"]["template"]["spec"]


def container(**spec: Any) -> Any:
    """The container of its pods."""
    (balancer_container,) = pod(**spec)["containers"]
    return balancer_container


def options(**spec: Any) -> Options:
    """The balancer's options, parsed from its command line."""
    program, command, *arguments = container(**spec)["command"]
    assert (program, command) == ("slotkeeper", "balancer")
    return parse(arguments)


def value_of(flag: str, **spec: Any) -> str:
    """The value of a flag."""
    command: list[str] = container(**spec)["command"]
    return command[command.index(flag) + 1]


def test_the_balancer_parses_its_command_line_with_all_fields_set() -> None:
    parsed = options(balancer=ALL)

    assert parsed.lease == ("default", "chat-balancer")
    assert (parsed.queue_limits.max_queued, parsed.queue_limits.max_queued_bytes) == (
        7,
        286 * 1024**2,
    )
    assert (parsed.queue_limits.queue_timeout, parsed.queue_limits.cold_start_timeout) == (8, 9)
    assert parsed.limits.max_body == 2 * 1024**2
    assert parsed.affinity is not None
    assert (parsed.affinity.cached_prompts, parsed.affinity.max_affinity_wait) == (6, 1)
    priorities = {"web": 10, "-b.c_": 0}
    paths = frozenset((b"/v1/chat/completions", b"/infill"))
    assert parsed.rules == AccessRules(4, priorities, paths, "chat-keys")
    assert parsed.api_keys == Path("/etc/slotkeeper/api-keys")


def test_the_balancer_parses_its_command_line_with_defaults() -> None:
    parsed = options()

    assert (parsed.queue_limits.max_queued, parsed.queue_limits.max_queued_bytes) == (
        1000,
        128 * 1024**2,
    )
    assert (parsed.queue_limits.queue_timeout, parsed.queue_limits.cold_start_timeout) == (60, 570)
    assert parsed.limits.max_body == 32 * 1024**2
    assert (parsed.rules, parsed.api_keys) == (AccessRules(0, {}, PROXIED), None)


def test_without_affinity_no_affinity_flag_is_passed() -> None:
    command = container(balancer={"prefixAffinity": {"enabled": False}})["command"]

    assert "--no-prefix-affinity" in command
    assert not {"--prefix-affinity", "--cached-prompts", "--max-affinity-wait"} & set(command)


def test_allowed_paths_are_the_paths_that_the_balancer_forwards() -> None:
    schema = TypeAdapter(AllowedPath).json_schema()

    assert {path.encode() for path in schema["enum"]} == PROXIED


def test_heartbeats_paths_and_keys_become_flags() -> None:
    command = container(balancer=ALL)["command"]

    assert value_of("--heartbeat-interval", balancer=ALL) == "15"
    assert [command[i + 1] for i, word in enumerate(command) if word == "--allowed-path"] == [
        "/v1/chat/completions",
        "/infill",
    ]
    assert value_of("--api-keys", balancer=ALL) == "/etc/slotkeeper/api-keys"
    assert {"--key-max-priority=web=10", "--key-max-priority=-b.c_=0"} <= set(command)


def test_by_default_there_are_no_heartbeats_no_keys_and_all_paths() -> None:
    command = container()["command"]

    assert value_of("--heartbeat-interval") == "0"
    assert not {"--allowed-path", "--api-keys"} & set(command)
    assert "volumes" not in pod()


def test_keys_are_mounted_read_only_and_readable_for_the_pod_s_group_alone() -> None:
    pod_spec = pod(balancer=ALL)

    secret = {"secretName": "chat-keys", "defaultMode": 0o440, "optional": False}
    assert pod_spec["volumes"] == [{"name": "api-keys", "secret": secret}]
    (mount,) = pod_spec["containers"][0]["volumeMounts"]
    assert mount == {
        "name": "api-keys",
        "mountPath": "/etc/slotkeeper/api-keys",
        "readOnly": True,
    }
    assert pod_spec["securityContext"]["fsGroup"]


def test_priming_has_its_options_its_config_map_and_its_prompts_in_the_role() -> None:
    prime = {
        "prompts": [{"text": "Notes:"}, {"chat": '{"messages": []}'}],
        "configMapName": "beginnings",
        "learned": True,
        "maxSeconds": 20,
    }

    parsed = options(prime=prime)

    assert parsed.priming == PrimingOptions(20, learned=True, config_map="beginnings")
    assert parsed.prime_folder == Path("/etc/slotkeeper/prime")
    [volume] = pod(prime=prime)["volumes"]
    # Without it the balancers start all the same.
    assert (volume["configMap"]["name"], volume["configMap"]["optional"]) == ("beginnings", True)
    [mount] = container(prime=prime)["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/slotkeeper/prime", True)
    annotations = balancer.role(server(prime=prime))["metadata"]["annotations"]
    assert from_annotation(annotations[PRIME_ANNOTATION]) == [
        SpecPrompt(PromptKind.TEXT, "Notes:"),
        SpecPrompt(PromptKind.CHAT, '{"messages": []}'),
    ]


def test_a_change_of_the_prompts_replaces_no_balancer() -> None:
    first, second = (
        deployment(prime={"prompts": [{"text": text}]}) for text in ("Notes:", "Letters:")
    )
    assert first == second


def test_without_priming_there_is_no_trace_of_it() -> None:
    assert options().priming is None
    assert "volumes" not in pod(prime={"learned": True})
    assert PRIME_ANNOTATION not in balancer.role(server())["metadata"]["annotations"]


def test_there_are_two_balancers_preferably_on_different_nodes() -> None:
    spec = deployment()["spec"]

    assert spec["replicas"] == 2
    affinity = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    term = preferred["podAffinityTerm"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"] == spec["selector"]
    assert deployment(balancer={"replicas": 1})["spec"]["replicas"] == 1


def test_each_balancer_has_the_name_of_its_pod_and_the_service_of_all() -> None:
    assert (value_of("--identity"), value_of("--peers")) == ("$(POD_NAME)", "default/chat")
    assert {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container()["env"]
    } == {"POD_NAME": "metadata.name"}


def test_it_knows_whether_replicas_have_workers() -> None:
    assert options(workers={"count": 1}).workers
    assert not options().workers


def test_the_role_has_the_rules_that_a_balancer_of_the_same_spec_has() -> None:
    for spec in ({}, ALL, {"maxPriority": 3}, {"apiKeys": {"secretName": "chat-keys"}}):
        of = server(balancer=spec)
        annotations = balancer.role(of)["metadata"]["annotations"]
        rules = AccessRules.from_annotation(annotations["slotkeeper.dev/access-rules"])

        assert value_of("--role", balancer=spec) == "default/chat-balancer"
        assert options(balancer=spec).rules == rules
        assert "slotkeeper.dev/start-blocker" not in annotations


def test_the_template_changes_with_the_uid_of_the_service_account() -> None:
    one, two = (
        balancer.deployment(server(), IMAGES, uid)["spec"]["template"]["metadata"]["annotations"]
        for uid in ("1", "2")
    )

    assert one["slotkeeper.dev/service-account-uid"] == "1"
    assert one["slotkeeper.dev/template-hash"] != two["slotkeeper.dev/template-hash"]


def test_a_change_of_replicas_alone_is_no_new_template() -> None:
    templates = [deployment(balancer={"replicas": count})["spec"]["template"] for count in (1, 2)]

    assert templates[0] == templates[1]


def test_the_lease_has_no_field_that_balancers_write() -> None:
    assert set(balancer.lease(server())) == {"apiVersion", "kind", "metadata"}
    assert "annotations" not in balancer.lease(server())["metadata"]


SMALL = {"cpu": "100m", "memory": "128Mi"}


@pytest.mark.parametrize(
    ("settings", "resources"),
    [
        ({}, {"requests": SMALL, "limits": {"cpu": "1", "memory": "512Mi"}}),
        (
            {"maxQueuedBytes": "1Gi"},
            {"requests": SMALL, "limits": {"cpu": "1", "memory": "2752Mi"}},
        ),
        (
            {"connections": {"maxTotal": 65536}},
            {"requests": SMALL, "limits": {"cpu": "1", "memory": "1472Mi"}},
        ),
        ({"resources": {"requests": {"cpu": 1}}}, {"requests": {"cpu": "1"}}),
        ({"resources": {}}, {}),
    ],
)
def test_the_memory_limit_is_the_sum_of_what_a_balancer_keeps_unless_resources_are_set(
    settings: dict[str, Any], resources: dict[str, Any]
) -> None:
    assert container(balancer=settings)["resources"] == resources


@pytest.mark.parametrize(
    ("settings", "mib"),
    [
        ({}, 256),
        ({"maxQueuedBytes": "1Gi"}, 2048),
        ({"resources": {"limits": {"memory": "352Mi"}}}, 128),
        ({"resources": {"limits": {"memory": "1Gi"}}}, 665),
        ({"resources": {}}, 256),
    ],
)
def test_requests_in_memory_are_bounded_by_the_memory_limit(
    settings: dict[str, Any], mib: int
) -> None:
    assert options(balancer=settings).limits.max_buffered == mib * 1024 * 1024


@pytest.mark.parametrize(
    ("settings", "total", "per_address"),
    [
        ({}, 4096, 2048),
        ({"maxQueuedRequests": 10_000}, 40_000, 20_000),
        ({"connections": {"maxTotal": 100}}, 100, 50),
        ({"connections": {"maxPerAddress": 3000}}, 4096, 3000),
    ],
)
def test_connections_have_room_for_a_full_queue_from_one_address(
    settings: dict[str, Any], total: int, per_address: int
) -> None:
    limits = options(balancer=settings).limits

    assert (limits.max_connections, limits.max_connections_per_address) == (total, per_address)


@pytest.mark.parametrize(
    ("spec", "prompts"),
    [
        pytest.param({}, 2, id="512 MiB, 2048 tokens of 128 KiB each"),
        pytest.param(
            {"resources": {"limits": {"memory": "8Gi"}}, "contextPerSlot": 8192}, 4, id="2 GiB"
        ),
        pytest.param({"contextPerSlot": 1_000_000}, 0, id="0 if none fits"),
        pytest.param({"kvCacheType": "q8_0"}, 3, id="68 KiB per token in another type"),
        pytest.param({"embeddings": {}}, 0, id="0 without conversations"),
    ],
)
def test_cached_prompts_are_estimated_from_the_replicas_cache(
    spec: dict[str, Any], prompts: int
) -> None:
    assert value_of("--cached-prompts", **spec) == str(prompts)


def test_no_change_of_the_balancer_restarts_a_replica() -> None:
    before, changed = server(), server(balancer=ALL)

    assert replicas.deployment(before, 1, IMAGES) == replicas.deployment(changed, 1, IMAGES)
