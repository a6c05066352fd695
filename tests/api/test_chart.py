"""The chart, installed by a real Helm on a real API server with RBAC."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from chart import CHART, load
from documents import DOCS, code_blocks
from helm import NAMESPACE, SECOND_RELEASE, Helm
from llamagateways import parsed_gateway, raw_gateway
from llamaservers import IMAGES, parsed, raw_server
from operator_process import create, namespace_of
from slotkeeper.desired import gateway
from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.desired.manifests import manifests
from slotkeeper.reconcile.download_flags import download_settings
from slotkeeper.reconcile.main import _parser

TLS = CHART.parents[1] / "tests/support/tls.pem"

CERTIFICATES = "".join(
    re.findall("-----BEGIN CERT.*?-----END CERTIFICATE-----\n", TLS.read_text(), re.DOTALL)
)
WATCHED = "team-a"
OTHER = "team-b"
IMAGE_NAMES = ("operator", "balancer", "download", "llamaServer")
EVERYTHING = {
    "replicaCount": 2,
    "images": {
        "operator": {"digest": "sha256:" + "0" * 64},
        "balancer": {"tag": "9"},
        "llamaServerComputeArches": ["8.6"],
        "llamaServerByComputeArch": {"7.5": "a:7"},
        "llamaServerByVendor": {"amd": "", "intel": None, "mthreads.com": "c:1"},
    },
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "system-cluster-critical",
    "gatewayBackends": {"allowedCIDRs": ["10.20.0.0/16", "fd12::/32"]},
    "modelDownloads": {
        "allowedAddressRanges": ["10.96.0.0/12"],
        "httpProxy": "http://proxy.example.com:3128",
        "httpsProxy": "http://[fd00::1]:3129",
        "noProxy": [".example.com", "10.0.0.7"],
        "caCertificates": f"# $(HOME): ours\n{CERTIFICATES}",
    },
    "extraArgs": ["--log-level=DEBUG"],
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "podLabels": {"team": "a"},
    "podAnnotations": {"note": "b"},
    "commonLabels": {"cost": "c"},
    "serviceAccount": {"annotations": {"role": "d"}},
    "service": {"annotations": {"scrape": "no"}},
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-e", "namespace": NAMESPACE},
        },
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: f, namespace: slotkeeper-system}}",
    ],
}


@pytest.fixture(scope="module")
def helm(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    create(api, *map(namespace_of, (NAMESPACE, WATCHED, OTHER)))
    enforced = "pod-security.kubernetes.io/enforce=restricted"
    _kubectl(api, "label", "namespace", NAMESPACE, enforced)
    return Helm(api, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def operator(helm: Helm) -> Iterator[str]:
    """User name of an operator of all namespaces."""
    helm.install("slotkeeper")
    yield f"system:serviceaccount:{NAMESPACE}:slotkeeper"
    helm.run("uninstall", "slotkeeper", "--namespace", NAMESPACE)


@pytest.fixture(scope="module")
def namespaced_operator(helm: Helm) -> Iterator[str]:
    """User name of an operator of one namespace."""
    helm.install("one", "--set", f"watchNamespaces={{{WATCHED}}}", *SECOND_RELEASE)
    yield f"system:serviceaccount:{NAMESPACE}:one-slotkeeper"
    helm.run("uninstall", "one", "--namespace", NAMESPACE)


def test_helm_lint_accepts_the_chart(helm: Helm) -> None:
    helm.run("lint", "--strict", "--kube-version", "1.34.0", str(CHART))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="defaults"),
        pytest.param(EVERYTHING, id="everything"),
        pytest.param({"watchNamespaces": [WATCHED, OTHER]}, id="two namespaces"),
        pytest.param(
            {
                "nodeCache": {
                    "enabled": True,
                    "sizeLimit": 10**12,
                    "nodeSelector": {"disk": "fast"},
                    "tolerations": [],
                    "priorityClassName": "system-node-critical",
                },
                "watchNamespaces": [WATCHED, OTHER],
            },
            id="node cache",
        ),
        *(
            pytest.param(yaml.safe_load(block), id="docs/security.md")
            for block in code_blocks((DOCS / "security.md").read_text(), "yaml")
        ),
        pytest.param(
            {
                "crds": {"enabled": False},
                "rbac": {"create": False, "aggregate": False},
                "serviceAccount": {"create": False},
                "service": {"enabled": False},
            },
            id="minimal",
        ),
    ],
)
def test_the_api_server_accepts_the_rendered_manifests(
    helm: Helm, values: Mapping[str, Any]
) -> None:
    rendered = helm.rendered(values)

    _kubectl(
        helm.api,
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server"),
        *("--validate=strict", "--filename", "-"),
        stdin=rendered,
    )


def test_each_value_is_in_the_rendered_manifests(helm: Helm) -> None:
    rendered = helm.rendered(EVERYTHING)

    kinds = [manifest["kind"] for manifest in yaml.safe_load_all(rendered)]
    assert "PodDisruptionBudget" in kinds
    assert kinds.count("ConfigMap") == 2
    for text in [
        "replicas: 2",
        f"image: slotkeeper/operator@sha256:{'0' * 64}",
        "--balancer-image=slotkeeper/balancer:9",
        "--llama-server-image=slotkeeper/llama-server:0.1.0-cpu",
        "--llama-server-image-for=8.6=slotkeeper/llama-server:0.1.0-cuda-sm86",
        "--llama-server-image-for=7.5=a:7",
        "--llama-server-image-for-vendor=nvidia=ghcr.io/ggml-org/llama.cpp:server-cuda-b",
        "--llama-server-image-for-vendor=mthreads.com=c:1",
        "name: registry",
        "disk: fast",
        "key: gpu",
        "nodeAffinity: {}",
        "topologyKey: zone",
        "priorityClassName: system-cluster-critical",
        "- --log-level=DEBUG",
        "value: UTC",
        "team: a",
        "note: b",
        "cost: c",
        "role: d",
        'scrape: "no"',
        "name: slotkeeper-e",
        "name: f",
    ]:
        assert text in rendered
    # An empty image, and null, remove a vendor's.
    assert "-vendor=amd" not in rendered
    assert "-vendor=intel" not in rendered


def test_the_operator_reads_what_the_chart_sets_for_downloads(helm: Helm) -> None:
    rendered = list(yaml.safe_load_all(helm.rendered(EVERYTHING)))
    [container] = _only(rendered, "Deployment")["spec"]["template"]["spec"]["containers"]

    flags = _parser().parse_args([each.replace("$$", "$") for each in container["args"]])

    assert download_settings(flags) == DownloadSettings(
        http_proxy="http://proxy.example.com:3128",
        https_proxy="http://[fd00::1]:3129",
        no_proxy=(".example.com", "10.0.0.7"),
        allowed_addresses=("10.96.0.0/12",),
        ca_certificates=CERTIFICATES,
    )


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"replicaCounts": 2}, "replicaCounts"),
        ({"images": {"operator": {"name": "x"}}}, "name"),
        ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"images": {"download": {"digest": "abc"}}}, "digest"),
        ({"images": {"llamaServerByVendor": {"nvdia": "c:1"}}}, "nvdia"),
        ({"images": {"llamaServerByVendor": {"nvidia.com": "c:1"}}}, "nvidia.com"),
        ({"extraArgs": ["quiet"]}, "extraArgs"),
        ({"gatewayBackends": {"allowedCIDRs": ["10.0.0.1"]}}, "allowedCIDRs"),
        ({"modelDownloads": {"allowedAddressRanges": ["10.0.0.1"]}}, "allowedAddressRanges"),
        ({"modelDownloads": {"httpProxy": "http://me:secret@proxy:3128"}}, "httpProxy"),
        ({"modelDownloads": {"httpsProxy": "proxy:3128"}}, "httpsProxy"),
        ({"modelDownloads": {"noProxy": ["a,b"]}}, "noProxy"),
        ({"modelDownloads": {"caCertificates": "MIIB"}}, "caCertificates"),
        ({"watchNamespaces": ["Team_A"]}, "watchNamespaces"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_value_is_rejected_by_name(
    helm: Helm, values: Mapping[str, Any], name: str
) -> None:
    result = helm.attempt("template", str(CHART), "--kube-version", "1.34.0", values=values)

    assert result.returncode != 0
    assert name in result.stderr


def test_the_pods_comply_with_the_restricted_pod_security_standard(helm: Helm) -> None:
    rendered = list(yaml.safe_load_all(helm.rendered()))
    template = _only(rendered, "Deployment")["spec"]["template"]
    operator = {"apiVersion": "v1", "kind": "Pod", **template}
    operator["metadata"] = {**template["metadata"], "name": "operator"}

    for pod in (operator, _only(rendered, "Pod")):
        response = helm.api.post(f"/api/v1/namespaces/{NAMESPACE}/pods", pod, dry_run=True)
        assert response.status_code == 201, response.text
        assert "warning" not in response.headers


def test_the_crds_are_those_in_the_chart_and_are_kept(helm: Helm) -> None:
    rendered = {
        manifest["metadata"]["name"]: manifest
        for manifest in yaml.safe_load_all(helm.rendered())
        if manifest["kind"] == "CustomResourceDefinition"
    }

    assert rendered.keys() == {"llamaservers.slotkeeper.dev", "llamagateways.slotkeeper.dev"}
    for name, crd in rendered.items():
        plural, _, group = name.partition(".")
        assert crd["spec"] == load(f"files/crds/{group}_{plural}.yaml")["spec"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.usefixtures("operator")
def test_a_second_install_changes_nothing(helm: Helm) -> None:
    objects = ("deployment/slotkeeper", "crd/llamaservers.slotkeeper.dev", "clusterrole/slotkeeper")
    before = [_version(helm.api, name) for name in objects]

    helm.install("slotkeeper")

    assert [_version(helm.api, name) for name in objects] == before


def test_the_crd_survives_an_uninstall(helm: Helm) -> None:
    helm.install("brief", "--set", "rbac.aggregate=false")

    helm.run("uninstall", "brief", "--namespace", NAMESPACE)

    _kubectl(helm.api, "get", "crd", "llamaservers.slotkeeper.dev", "llamagateways.slotkeeper.dev")


@pytest.mark.parametrize("owner", ["server", "gateway"])
def test_the_permissions_of_the_chart_allow_every_child(
    helm: Helm, operator: str, owner: str
) -> None:
    children = _children(WATCHED) if owner == "server" else _gateway_children(WATCHED)

    _as(helm, operator, "apply", "--server-side", "--field-manager=slotkeeper", stdin=children)
    _as(helm, operator, "apply", "--server-side", "--field-manager=slotkeeper", stdin=children)
    _as(helm, operator, "delete", stdin=children)


@pytest.mark.parametrize("owner", ["server", "gateway"])
def test_the_operator_of_one_namespace_can_create_children_only_there(
    helm: Helm, namespaced_operator: str, owner: str
) -> None:
    children = _children if owner == "server" else _gateway_children
    apply, elsewhere = ("apply", "--server-side"), children(OTHER)

    _as(helm, namespaced_operator, *apply, stdin=children(WATCHED))
    _as(helm, namespaced_operator, "delete", stdin=children(WATCHED))
    denied = helm.api.kubectl(
        f"--as={namespaced_operator}", *apply, "--filename=-", stdin=elsewhere
    )

    assert denied.stderr.count("forbidden") == len(list(yaml.safe_load_all(elsewhere)))


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "allowed"),
    [
        ("watch", "llamaservers.slotkeeper.dev", OTHER, "yes"),
        ("watch", "llamagateways.slotkeeper.dev", OTHER, "yes"),
        ("patch", "llamagateways.slotkeeper.dev/status", OTHER, "yes"),
        ("update", "llamagateways.slotkeeper.dev", OTHER, "no"),
        ("patch", "llamaservers.slotkeeper.dev/status", OTHER, "yes"),
        ("create", "events", OTHER, "yes"),
        ("list", "pods", OTHER, "yes"),
        ("patch", "leases.coordination.k8s.io", NAMESPACE, "yes"),
        ("patch", "leases.coordination.k8s.io", OTHER, "yes"),
        ("update", "leases.coordination.k8s.io", OTHER, "no"),
        ("update", "llamaservers.slotkeeper.dev", OTHER, "no"),
        ("get", "secrets", NAMESPACE, "no"),
        ("list", "secrets", OTHER, "no"),
        ("list", "configmaps", OTHER, "no"),
        ("create", "pods", OTHER, "no"),
        ("create", "pods/exec", OTHER, "no"),
        ("bind", "roles.rbac.authorization.k8s.io", OTHER, "no"),
        ("list", "namespaces", "", "no"),
    ],
)
def test_the_operators_permissions(
    helm: Helm, operator: str, verb: str, resource: str, namespace: str, allowed: str
) -> None:
    name, _, subresource = resource.partition("/")
    result = helm.api.kubectl(
        *("auth", "can-i", verb, name, f"--as={operator}", f"--namespace={namespace}"),
        *((f"--subresource={subresource}",) if subresource else ()),
    )

    assert result.stdout.strip() == allowed


@pytest.mark.parametrize(
    ("watched", "lease"),
    [
        ([], NAMESPACE),
        ([WATCHED, OTHER], WATCHED),
        ([WATCHED, OTHER, NAMESPACE], NAMESPACE),
    ],
)
def test_the_operator_has_a_role_in_each_watched_namespace_and_in_that_of_its_lease(
    helm: Helm, watched: list[str], lease: str
) -> None:
    rendered = list(yaml.safe_load_all(helm.rendered({"watchNamespaces": watched})))

    def namespaces(kind: str) -> list[str]:
        found = [each["metadata"] for each in rendered if each["kind"] == kind]
        return [each.get("namespace", "") for each in found if each["name"] == "slotkeeper"]

    kinds = ("Role", "RoleBinding") if watched else ("ClusterRole", "ClusterRoleBinding")
    assert [namespaces(kind) for kind in kinds] == [watched or [""]] * 2
    own = [each["metadata"] for each in rendered if each["metadata"]["name"] == "slotkeeper-own"]
    assert [each["namespace"] for each in own] == [lease, lease]
    [container] = _only(rendered, "Deployment")["spec"]["template"]["spec"]["containers"]
    flags = [arg for arg in container["args"] if arg.startswith(("--namespace", "--lease"))]
    assert flags == [*(f"--namespace={each}" for each in watched), f"--lease-namespace={lease}"]
    rules = [rule for each in rendered for rule in each.get("rules", ())]
    assert any(rule["resources"] == ["nodes"] for rule in rules) == (not watched)


def test_images_are_used_by_digest(helm: Helm) -> None:
    digests = {name: f"sha256:{number:064x}" for number, name in enumerate(IMAGE_NAMES)}

    rendered = helm.rendered(
        {"images": {name: {"digest": digest} for name, digest in digests.items()}}
    )

    repositories = load("values.yaml")["images"]
    for name, digest in digests.items():
        assert f"{repositories[name]['repository']}@{digest}" in rendered


def test_the_notes_name_the_watched_namespace(helm: Helm) -> None:
    notes = helm.install("notes", "--dry-run=server", "--set", f"watchNamespaces={{{WATCHED}}}")

    assert f"Slotkeeper 0.1.0 manages LlamaServers and LlamaGateways in {WATCHED}." in notes
    assert f"kubectl apply --namespace {WATCHED} -f -" in notes


def _children(namespace: str) -> str:
    raw = raw_server()
    raw["metadata"]["namespace"] = namespace
    return yaml.safe_dump_all(manifests(parsed(raw), 1, IMAGES))


def _gateway_children(namespace: str) -> str:
    raw = raw_gateway()
    raw["metadata"]["namespace"] = namespace
    return yaml.safe_dump_all(gateway.manifests(parsed_gateway(raw), IMAGES))


def _as(helm: Helm, user: str, *arguments: str, stdin: str) -> None:
    _kubectl(helm.api, f"--as={user}", *arguments, "--filename=-", stdin=stdin)


def _kubectl(api: ApiServer, *arguments: str, stdin: str = "") -> str:
    result = api.kubectl(*arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _version(api: ApiServer, name: str) -> str:
    version = "--output=jsonpath={.metadata.resourceVersion}"
    return _kubectl(api, "get", name, "--namespace", NAMESPACE, version)


def _only(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (only,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return only
