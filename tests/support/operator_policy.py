"""The chart's `operatorPolicy` on a real API server: what tests of it share."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from apiserver import ApiServer
from helm import NAMESPACE, SECOND_RELEASE, Helm
from llamaservers import DOWNLOADS, IMAGES, parsed, raw_server
from operator_process import eventually
from slotkeeper.desired.manifests import manifests
from slotkeeper.kube.kinds import kind_of

Json = dict[str, Any]

RELEASE = "guarded"
FULL_NAME = f"{RELEASE}-slotkeeper"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{FULL_NAME}"
TEAM, STRANGERS = "guarded-team", "guarded-strangers"


@contextmanager
def guarded_server(helm: Helm) -> Iterator[ApiServer]:
    """An API server with the operator's policy in effect."""
    helm.install(RELEASE, *SECOND_RELEASE)
    foreign = service("probe")
    eventually(lambda: "may only write" in apply(helm.api, foreign, dry_run=True))
    yield helm.api
    helm.run("uninstall", RELEASE, "--namespace", NAMESPACE)


def apply(api: ApiServer, *objects: Json, dry_run: bool = False) -> str:
    """Apply objects as the operator does; return kubectl's errors."""
    return api.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager=slotkeeper"),
        *(f"--as={OPERATOR}", "--filename=-", *(["--dry-run=server"] if dry_run else [])),
        stdin=yaml.safe_dump_all(objects),
    ).stderr


def send(api: ApiServer, method: str, manifest: Json) -> str:
    """Send an object as the operator does, without storing it; return the error, "" without one."""
    kind, metadata = kind_of(manifest), manifest["metadata"]
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    path = f"{root}/namespaces/{metadata['namespace']}/{kind.plural}"
    response = api.client.request(
        method,
        path if method == "POST" else f"{path}/{metadata['name']}",
        params={"dryRun": "All", **({} if method == "POST" else {"fieldManager": "slotkeeper"})},
        json=manifest,
        headers={
            "Impersonate-User": OPERATOR,
            **(
                {}
                if method == "POST"
                else {"Content-Type": "application/strategic-merge-patch+json"}
            ),
        },
    )
    return "" if response.is_success else str(response.json()["message"])


def children(raw: Json) -> list[Json]:
    server = parsed({**raw, "metadata": {**raw["metadata"], "namespace": TEAM}})
    return manifests(server, 1, IMAGES, downloads=DOWNLOADS)


def child(kind: str, component: str = "") -> Json:
    """A child of the server `chat`."""
    model = {"url": "https://example.com/model.gguf", "cache": {"claimName": "models"}}
    raw = raw_server(gpu={"count": 0}, model={**model, "prefetch": True})
    found = (each for each in children(raw) if each["kind"] == kind)
    return next(each for each in found if each["metadata"]["name"].endswith(component))


def changed(manifest: Json, path: str, value: Any) -> Json:
    """A copy with a value at a path such as `spec.template.spec.containers.0.image`."""
    copied = copy.deepcopy(manifest)
    *parents, last = path.replace("\\.", "\0").split(".")
    tree: Any = copied
    for name in parents:
        tree = tree[int(name) if name.isdigit() else name.replace("\0", ".")]
    tree[last.replace("\0", ".")] = value
    return copied


def service(name: str) -> Json:
    metadata = {"name": name, "namespace": STRANGERS}
    spec = {"ports": [{"port": 80}], "selector": {"app": "a"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
