"""What `spec.balancer` makes of the balancers."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from llamaservers import IMAGES, server
from slotkeeper.api.balancer import AllowedPath
from slotkeeper.balancer.access import AccessRules
from slotkeeper.balancer.options import Options, parse
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
    "apiKeys": {"secretName": "chat-keys", "maxPriorities": {"web": 10, "-b.c_": 0}},
    "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
}


def deployment(**spec: Any) -> Any:
    """The balancers' Deployment of a server with this spec."""
    return balancer.deployment(server(**spec), IMAGES)


def pod(**spec: Any) -> Any:
    """Its pods' spec."""
    return deployment(**spec)["spec"]["template"]["spec"]


def container(**spec: Any) -> Any:
    """Its pods' container."""
    (found,) = pod(**spec)["containers"]
    return found


def options(**spec: Any) -> Options:
    """What the balancer makes of its command line."""
    program, what, *arguments = container(**spec)["command"]
    assert (program, what) == ("slotkeeper", "balancer")
    return parse(arguments)


def after(flag: str, **spec: Any) -> str:
    """What follows a flag."""
    command: list[str] = container(**spec)["command"]
    return command[command.index(flag) + 1]


def test_the_balancer_understands_its_command_line_with_everything_said() -> None:
    told = options(balancer=ALL)

    assert told.lease == ("default", "chat-balancer")
    assert (told.queue_limits.max_queued, told.queue_limits.max_queued_bytes) == (7, 286 * 1024**2)
    assert (told.queue_limits.queue_timeout, told.queue_limits.cold_start_timeout) == (8, 9)
    assert told.limits.max_body == 2 * 1024**2
    assert told.affinity is not None
    assert (told.affinity.cached_prompts, told.affinity.max_affinity_wait) == (6, 1)
    own = {"web": 10, "-b.c_": 0}
    routes = frozenset((b"/v1/chat/completions", b"/infill"))
    assert told.rules == AccessRules(4, own, routes)
    assert told.api_keys == Path("/etc/slotkeeper/api-keys")


def test_the_balancer_understands_its_command_line_with_nothing_said() -> None:
    told = options()

    assert (told.queue_limits.max_queued, told.queue_limits.max_queued_bytes) == (
        1000,
        128 * 1024**2,
    )
    assert (told.queue_limits.queue_timeout, told.queue_limits.cold_start_timeout) == (60, 570)
    assert told.limits.max_body == 32 * 1024**2
    assert (told.rules, told.api_keys) == (AccessRules(0, {}, PROXIED), None)


def test_without_affinity_a_prompt_is_not_looked_at() -> None:
    command = container(balancer={"prefixAffinity": {"enabled": False}})["command"]

    assert "--no-prefix-affinity" in command
    assert not {"--prefix-affinity", "--cached-prompts", "--max-affinity-wait"} & set(command)


def test_the_paths_that_may_be_named_are_those_that_the_balancer_passes_on() -> None:
    schema = TypeAdapter(AllowedPath).json_schema()

    assert {path.encode() for path in schema["enum"]} == PROXIED


def test_heartbeats_routes_and_keys_are_passed_on() -> None:
    command = container(balancer=ALL)["command"]

    assert after("--heartbeat-seconds", balancer=ALL) == "15"
    assert [command[i + 1] for i, word in enumerate(command) if word == "--allowed-path"] == [
        "/v1/chat/completions",
        "/infill",
    ]
    assert after("--api-keys", balancer=ALL) == "/etc/slotkeeper/api-keys"
    assert {"--key-max-priority=web=10", "--key-max-priority=-b.c_=0"} <= set(command)


def test_unless_they_are_set_there_are_no_heartbeats_and_no_keys_and_all_routes() -> None:
    command = container()["command"]

    assert after("--heartbeat-seconds") == "0"
    assert not {"--allowed-path", "--api-keys"} & set(command)
    assert "volumes" not in pod()


def test_keys_are_mounted_read_only_and_readable_for_the_pod_s_group_alone() -> None:
    found = pod(balancer=ALL)

    secret = {"secretName": "chat-keys", "defaultMode": 0o440, "optional": False}
    assert found["volumes"] == [{"name": "api-keys", "secret": secret}]
    (mount,) = found["containers"][0]["volumeMounts"]
    assert mount == {
        "name": "api-keys",
        "mountPath": "/etc/slotkeeper/api-keys",
        "readOnly": True,
    }
    assert found["securityContext"]["fsGroup"]


def test_there_are_two_balancers_apart_from_one_another_where_that_is_possible() -> None:
    found = deployment()["spec"]

    assert found["replicas"] == 2
    affinity = found["template"]["spec"]["affinity"]["podAntiAffinity"]
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    term = preferred["podAffinityTerm"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"] == found["selector"]
    assert deployment(balancer={"replicas": 1})["spec"]["replicas"] == 1


def test_each_balancer_is_called_as_its_pod_and_reached_at_its_address() -> None:
    assert (after("--identity"), after("--advertise")) == ("$(POD_NAME)", "$(POD_IP)")
    assert {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container()["env"]
    } == {"POD_NAME": "metadata.name", "POD_IP": "status.podIP"}


def test_the_lease_says_nothing_that_the_balancers_write() -> None:
    assert set(balancer.lease(server())) == {"apiVersion", "kind", "metadata"}
    assert "annotations" not in balancer.lease(server())["metadata"]


@pytest.mark.parametrize(
    ("settings", "resources"),
    [
        ({}, {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}),
        (
            {"maxQueuedBytes": "1Gi"},
            {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "2304Mi"}},
        ),
        ({"resources": {"requests": {"cpu": 1}}}, {"requests": {"cpu": "1"}}),
        ({"resources": {}}, {}),
    ],
)
def test_memory_follows_what_may_wait_unless_resources_are_said(
    settings: dict[str, Any], resources: dict[str, Any]
) -> None:
    assert container(balancer=settings)["resources"] == resources


@pytest.mark.parametrize(
    ("spec", "prompts"),
    [
        pytest.param({}, 2, id="512 MiB, 2048 tokens of 128 KiB each"),
        pytest.param(
            {"resources": {"limits": {"memory": "8Gi"}}, "contextPerSlot": 8192}, 4, id="2 GiB"
        ),
        pytest.param({"contextPerSlot": 1_000_000}, 0, id="none fits"),
        pytest.param({"kvCacheType": "q8_0"}, 3, id="68 KiB a token in another type"),
        pytest.param({"embeddings": {}}, 0, id="none of a server without conversations"),
    ],
)
def test_cached_prompts_are_estimated_from_the_replicas_cache(
    spec: dict[str, Any], prompts: int
) -> None:
    assert after("--cached-prompts", **spec) == str(prompts)


def test_no_change_of_the_balancer_restarts_a_replica() -> None:
    before, changed = server(), server(balancer=ALL)

    assert replicas.deployment(before, 1, IMAGES) == replicas.deployment(changed, 1, IMAGES)
