"""The examples that expose gateways and servers apply, and lead to Services that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from documents import DOCS
from llamagateways import parsed_gateway
from llamaservers import EXAMPLES, IMAGES, ROOT, parsed, server
from provider import builds
from slotkeeper.api.group import GATEWAY_KIND, KIND
from slotkeeper.desired import gateway
from slotkeeper.desired.manifests import manifests

WITHOUT_CRD = {"Certificate"}
"""cert-manager's."""

each_example = pytest.mark.parametrize(
    "example", sorted((EXAMPLES / "exposing").glob("*.yaml")), ids=lambda file: file.name
)


@pytest.fixture(scope="module")
def with_gateway_api(api: ApiServer) -> ApiServer:
    """An API server with the CRDs of the Gateway API's standard channel."""
    folder = str(builds.manifests("gateway-api"))
    applied = api.kubectl("apply", "--server-side", "--filename", folder)
    assert applied.returncode == 0, applied.stderr
    crds = ("gateways", "httproutes")
    names = [f"crd/{each}.gateway.networking.k8s.io" for each in crds]
    waited = api.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    assert waited.returncode == 0, waited.stderr
    return api


@each_example
def test_an_example_applies(with_gateway_api: ApiServer, example: Path) -> None:
    items = [each for each in resources(example) if each["kind"] not in WITHOUT_CRD]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})

    result = with_gateway_api.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "--filename", "-", stdin=manifest
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["ingress.yaml", "http-route.yaml"])
def test_each_backend_is_a_port_of_a_service(name: str) -> None:
    found = resources(EXAMPLES / "exposing" / name)
    ports = set(service_ports(found))

    named = [*backends(found)]
    assert {service for service, _ in named} == {"llm", "qwen"}
    assert set(named) <= ports


def test_the_certificate_is_written_to_the_secret_that_the_gateway_reads() -> None:
    found = {each["kind"]: each for each in resources(EXAMPLES / "exposing/tls.yaml")}

    secret = found["Certificate"]["spec"]["secretName"]
    assert found[GATEWAY_KIND]["spec"]["tls"]["secretName"] == secret
    assert set(service_ports(found.values())) >= {("llm", 443)}


def test_the_document_selects_the_balancers_and_names_their_metrics() -> None:
    text = (DOCS / "exposing.md").read_text()
    pool, *_ = (
        tree
        for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if (tree := yaml.safe_load(block))["kind"] == "InferencePool"
    )
    [balancers] = [
        child
        for child in manifests(server("qwen"), 1, IMAGES)
        if child["kind"] == "Deployment" and child["metadata"]["name"] == "qwen-balancer"
    ]
    labels = balancers["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
    [container] = balancers["spec"]["template"]["spec"]["containers"]
    ports = {port["containerPort"] for port in container["ports"]}
    assert {port["number"] for port in pool["spec"]["targetPorts"]} <= ports
    served = (ROOT / "operator/slotkeeper/balancer/local_responses.py").read_text()
    for metric in ("requests_deferred", "requests_processing"):
        assert f"llamacpp:{metric}" in text
        assert f'"{metric}"' in served


def resources(example: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(example.read_text()))


def service_ports(found: Any) -> Iterator[tuple[str, int]]:
    """Yield name and port of each Service of the servers and gateways."""
    for each in found:
        children: list[dict[str, Any]] = []
        if each["kind"] == KIND:
            children = manifests(parsed(each), 1, IMAGES)
        elif each["kind"] == GATEWAY_KIND:
            children = gateway.manifests(parsed_gateway(each), IMAGES)
        for child in children:
            if child["kind"] == "Service":
                for port in child["spec"]["ports"]:
                    yield child["metadata"]["name"], port["port"]


def backends(found: Any) -> Iterator[tuple[str, int]]:
    """Yield name and port of each Service that an Ingress or an HTTPRoute names."""
    for each in found:
        for rule in each["spec"].get("rules", ()):
            for path in rule.get("http", {}).get("paths", ()):
                service = path["backend"]["service"]
                yield service["name"], service["port"]["number"]
            for backend in rule.get("backendRefs", ()):
                yield backend["name"], backend["port"]
