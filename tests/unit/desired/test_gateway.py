from typing import Any

import pytest

from llamagateways import gateway
from llamaservers import IMAGES
from slotkeeper.api.backend_folders import CA_FILE, HOSTS_FILE, KEY_FILE
from slotkeeper.api.gateway_drain import DRAIN_SECONDS, SHUTDOWN_DELAY_SECONDS
from slotkeeper.desired import gateway as desired
from slotkeeper.desired import gateway_secrets, names
from slotkeeper.desired.metadata import MIB
from slotkeeper.flags import GatewayFlags
from slotkeeper.gateway.options import parse

KEYS = {"secretRef": {"name": "keys"}}
BACKEND = {
    "name": "up",
    "url": "https://up.example/v1",
    "secretRef": {"name": "keys", "key": "token"},
    "caSecretRef": {"name": "authorities", "key": "root.pem"},
    "models": [{"name": "gpt"}],
}


def pod(**spec: Any) -> Any:
    return desired.deployment(gateway(**spec), IMAGES)["spec"]["template"]["spec"]


def command(**spec: Any) -> list[str]:
    [container] = pod(**spec)["containers"]
    return list(container["command"])


def test_the_command_names_the_gateway_and_its_ports() -> None:
    assert command() == [
        *("slotkeeper", "gateway", "--gateway", "default/llm"),
        *("--listen", "[::]:8080", "--metrics", "[::]:9090"),
        *("--max-body-mib", "32", "--max-buffered-mib", "128", "--max-connections", "4096"),
        *("--log-format", "json"),
    ]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"apiKeys": KEYS, "tls": {"secretName": "cert"}},
        {"maxBodyBytes": "64Mi"},
        {"maxBodyBytes": "1500Ki", "resources": {"limits": {"memory": "200Mi"}}},
        {"resources": {}},
        {"externalBackends": [BACKEND]},
    ],
)
def test_the_gateway_accepts_its_command_line(spec: dict[str, Any]) -> None:
    program, process, *arguments = command(**spec)

    options = parse(arguments)

    declared = gateway(**spec).spec
    assert (program, process) == ("slotkeeper", "gateway")
    assert options.gateway == ("default", "llm")
    assert (options.api_keys is not None, options.tls is not None) == (
        declared.api_keys is not None,
        declared.tls is not None,
    )
    assert declared.max_body <= options.limits.max_body < declared.max_body + MIB
    assert declared.max_buffered - MIB < options.limits.max_buffered <= declared.max_buffered
    grace = pod(**spec)["terminationGracePeriodSeconds"]
    assert options.shutdown_delay_seconds + options.drain_timeout < grace


@pytest.mark.parametrize(
    ("spec", "flag", "folder", "secret"),
    [
        ({"apiKeys": KEYS}, GatewayFlags.API_KEYS, gateway_secrets.KEYS_FOLDER, "keys"),
        ({"tls": {"secretName": "cert"}}, GatewayFlags.TLS, gateway_secrets.TLS_FOLDER, "cert"),
    ],
)
def test_a_secret_is_mounted_where_the_command_reads_it(
    spec: dict[str, Any], flag: str, folder: str, secret: str
) -> None:
    found, arguments = pod(**spec), command(**spec)

    [mount] = found["containers"][0]["volumeMounts"]
    [volume] = found["volumes"]
    assert arguments[arguments.index(flag) + 1] == folder == mount["mountPath"]
    assert volume["secret"]["secretName"] == secret
    assert (volume["name"], mount["readOnly"]) == (mount["name"], True)
    assert not volume["secret"]["optional"]


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ({}, [("http", 80), ("metrics", 9090)]),
        ({"tls": {"secretName": "cert"}}, [("https", 443), ("metrics", 9090)]),
        # Metrics have no authentication.
        ({"service": {"type": "LoadBalancer"}}, [("http", 80)]),
        ({"service": {"type": "NodePort"}}, [("http", 80)]),
    ],
)
def test_the_service_has_ports_that_the_pods_have(
    spec: dict[str, Any], ports: list[tuple[str, int]]
) -> None:
    service = desired.service(gateway(**spec))["spec"]

    assert [(port["name"], port["port"]) for port in service["ports"]] == ports
    named = {port["name"] for port in pod(**spec)["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= named


def test_the_service_has_the_annotations() -> None:
    annotations = {"example.com/scheme": "internal"}

    service = desired.service(gateway(service={"annotations": annotations}))

    assert service["metadata"]["annotations"] == annotations


def test_a_change_of_what_pods_watch_restarts_none() -> None:
    before = pod()

    assert before == pod(aliases={"a": "b"}, defaultModel="a", budget={"gpus": 1})
    assert before == pod(timeouts={"connectSeconds": 1}, cors={"allowedOrigins": []})
    assert pod(apiKeys=KEYS) == pod(apiKeys={**KEYS, "limits": {"requestsPerMinute": 1}})


def test_the_entries_of_a_backends_secrets_are_mounted_where_the_gateway_reads_them() -> None:
    found, arguments = pod(externalBackends=[BACKEND]), command(externalBackends=[BACKEND])

    root = arguments[arguments.index(GatewayFlags.BACKENDS) + 1]
    folders = {each["name"]: each["mountPath"] for each in found["containers"][0]["volumeMounts"]}
    files = {
        f"{folders[volume['name']]}/{item['path']}": (volume["secret"]["secretName"], item["key"])
        for volume in found["volumes"]
        for item in volume["secret"]["items"]
    }
    assert files == {
        f"{root}/up/{KEY_FILE}": ("keys", "token"),
        f"{root}/up/{HOSTS_FILE}": ("keys", "hosts"),
        f"{root}/up/{CA_FILE}": ("authorities", "root.pem"),
    }
    # A backend without its Secret must not keep the pod from starting.
    assert all(volume["secret"]["optional"] for volume in found["volumes"])


def test_a_backend_without_secrets_restarts_no_pod() -> None:
    open_backend = {name: BACKEND[name] for name in ("name", "url", "models")}

    assert pod(externalBackends=[open_backend]) == pod()


def test_the_gateway_gets_the_private_addresses_that_the_chart_allows() -> None:
    found = desired.manifests(gateway(externalBackends=[BACKEND]), IMAGES, "", ["10.0.0.0/8"])
    [container] = found[-1]["spec"]["template"]["spec"]["containers"]

    assert parse(container["command"][2:]).backend_cidrs == ("10.0.0.0/8",)


def test_the_grace_period_is_longer_than_the_drain() -> None:
    assert pod()["terminationGracePeriodSeconds"] == DRAIN_SECONDS + SHUTDOWN_DELAY_SECONDS


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        ({}, "352Mi"),
        ({"maxBodyBytes": "64Mi"}, "512Mi"),
        ({"resources": {"limits": {"memory": "2Gi"}}}, "2Gi"),
    ],
)
def test_the_container_has_a_memory_limit(spec: dict[str, Any], limit: str) -> None:
    assert pod(**spec)["containers"][0]["resources"]["limits"]["memory"] == limit


def test_the_placement_is_that_of_the_spec() -> None:
    found = pod(placement={"nodeSelector": {"a": "b"}, "priorityClassName": "high"})

    assert (found["nodeSelector"], found["priorityClassName"]) == ({"a": "b"}, "high")


def test_children_have_the_labels_of_the_gateway_and_no_server() -> None:
    for manifest in desired.manifests(gateway(), IMAGES):
        labels = manifest["metadata"]["labels"]
        assert labels[names.GATEWAY_LABEL] == "llm"
        assert names.SERVER_LABEL not in labels
        [owner] = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("LlamaGateway", "llm")


def test_all_pods_serve_through_the_network_policy_s_ports() -> None:
    policy, budget = desired.manifests(gateway(), IMAGES)[4:6]

    [rule] = policy["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [names.GATEWAY_PORT, names.METRICS_PORT]
    assert budget["spec"]["selector"] == {
        "matchLabels": desired.service(gateway())["spec"]["selector"]
    }


def test_each_call_returns_new_trees() -> None:
    first, second = (desired.manifests(gateway(), IMAGES) for _ in range(2))

    assert first == second
    assert all(one is not other for one, other in zip(first, second, strict=True))


def test_a_long_name_leads_to_valid_names() -> None:
    for manifest in desired.manifests(gateway("a" * 63), IMAGES):
        assert len(manifest["metadata"]["name"]) <= 63
