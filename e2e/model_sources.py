"""Servers of models in the test cluster: an object store, a registry, a hub, a web server with TLS.

They run in a namespace of their own, where replicas reach them by name as they reach servers
outside of the cluster. Each starts when the first test needs it.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from provider.certificates import Certificate, issue
from servers import Server
from stack import MODELS_IMAGE, Cluster, Image, restricted_pod

NAMESPACE = "slotkeeper-sources"
IMAGE = Image(
    "model-sources",
    (
        "images/model-sources",
        "requirements/model-sources.txt",
        "tests/support/fake_hub.py",
        "tests/support/model_host.py",
        "tests/support/object_store.py",
        "build/models",
    ),
)
TLS = "tls"
"""Name of the Secret with the certificate of all servers, and of the volume with it."""
TLS_FOLDER = "/tls"
CONFIG_FOLDER = "/config"
AUTHORITY = "authority"
"""Name of the ConfigMap with the certificate of the authority, in the namespaces of users."""
TRUSTING = {"caConfigMapRef": {"name": AUTHORITY}}
"""`spec.model.download` that trusts it."""
PASSWORD_FILE = "reader:$2b$04$abcdefghijklmnopqrstuuA1n0mBpuBflT9o8ajqXH1XjRREPpLdy\n"
"""The hash of `reader:CANARY`, which docker-registry verifies."""

WEB_CONFIG = f"""\
daemon off;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events {{}}
http {{
    access_log /dev/stdout;
    default_type application/octet-stream;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {{
        listen 8443 ssl;
        ssl_certificate {TLS_FOLDER}/tls.crt;
        ssl_certificate_key {TLS_FOLDER}/tls.key;
        location /gated/ {{
            if ($http_authorization != "Bearer CANARY") {{
                return 401;
            }}
            alias /models/;
        }}
        # Of each connection, in bytes per second.
        location /slow/ {{
            limit_rate 1m;
            alias /models/;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class ObjectStore:
    """The S3 server. Its bucket `models` has the models of the tests."""

    url: str
    host: str
    key_id: str
    secret_key: str

    @property
    def entries(self) -> dict[str, str]:
        """The entries of a Secret with the access key."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "hosts": self.host,
        }


@dataclass(frozen=True)
class Protected:
    """A server that requires a token."""

    url: str
    """Without a path."""
    host: str
    token: str

    @property
    def entries(self) -> dict[str, str]:
        """The entries of a Secret with the token."""
        return {"token": self.token, "hosts": self.host}


class ModelSources:
    """The servers. Create it with `model_sources`."""

    def __init__(self, cluster: Cluster, keys: Path) -> None:
        self._cluster = cluster
        self._keys = keys

    @property
    def authority(self) -> str:
        """The certificate of the authority that has signed those of the servers, in PEM format."""
        return (self._keys / "ca.crt").read_text()

    @cached_property
    def object_store(self) -> ObjectStore:
        """The S3 server, with an access key."""
        script = ("python", "/opt/sources/lib/object_store.py", "/models", "0.0.0.0", "8080")
        # It ends with its standard input.
        self._start("s3", 8080, {"command": script, "stdin": True})
        # It listens before it has the models, and prints when it has them.
        with self._cluster.start("kubectl", "-n", NAMESPACE, "logs", "--follow", "s3") as logs:
            assert logs.stdout is not None
            key = json.loads(logs.stdout.readline())
            logs.terminate()
        return ObjectStore(f"http://{_host('s3')}", _host("s3"), key["id"], key["secret"])

    @cached_property
    def registry(self) -> Protected:
        """The registry, with artifacts `models/quick:oras` and `models/quick:docker`."""
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": "/tmp/registry"}},
            "http": {
                "addr": ":8443",
                "tls": {
                    "certificate": f"{TLS_FOLDER}/tls.crt",
                    "key": f"{TLS_FOLDER}/tls.key",
                },
            },
            "auth": {"htpasswd": {"realm": "tests", "path": f"{CONFIG_FOLDER}/htpasswd"}},
        }
        files = {"config.yml": json.dumps(config), "htpasswd": PASSWORD_FILE}
        command = ("docker-registry", "serve", f"{CONFIG_FOLDER}/config.yml")
        self._start("registry", 8443, {"command": command}, files)
        registry = Protected(f"oci://{_host('registry')}", _host("registry"), "reader:CANARY")
        for tag, media_type in (
            ("oras", "application/octet-stream"),
            ("docker", "application/vnd.docker.ai.gguf.v3"),
        ):
            self._cluster.kubectl(
                *("-n", NAMESPACE, "exec", "registry", "--", "python", "/opt/sources/lib/push.py"),
                f"{registry.host}/models/quick:{tag}",
                *registry.token.split(":"),
                f"/models/quick.gguf:{media_type}",
            )
        return registry

    @cached_property
    def hub(self) -> Protected:
        """The hub, with one gated repository; another host has the files."""
        files = ("Model-Q4_K_M.gguf=/models/tiny.gguf", "Model-Q8_0.gguf=/models/quick.gguf")
        script = ("python", "/opt/sources/lib/hub.py", f"http://{_host('hub-files')}", "CANARY")
        self._start("hub", 8080, {"command": [*script, *files]})
        self._cluster.apply(_service("hub-files", "hub", 8080), namespace=NAMESPACE)
        return Protected(f"http://{_host('hub')}", _host("hub"), "CANARY")

    @cached_property
    def web(self) -> Protected:
        """The web server with TLS: models below /gated/ with a token, and below /slow/."""
        command = ("nginx", "-c", f"{CONFIG_FOLDER}/nginx.conf")
        container = {"command": command, "image": MODELS_IMAGE.reference}
        self._start("web", 8443, container, {"nginx.conf": WEB_CONFIG})
        return Protected(f"https://{_host('web')}", _host("web"), "CANARY")

    def _start(
        self,
        name: str,
        port: int,
        container: Mapping[str, Any],
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Start a pod and its Service, and wait until it listens.

        `files` are in CONFIG_FOLDER, by their names.
        """
        probe = {"tcpSocket": {"port": port}, "periodSeconds": 1}
        volumes = [
            {"name": TLS, "secret": {"secretName": TLS}},
            {"name": "config", "configMap": {"name": name}},
        ]
        mounts = [
            {"name": TLS, "mountPath": TLS_FOLDER},
            {"name": "config", "mountPath": CONFIG_FOLDER},
        ]
        pod = restricted_pod(
            {
                "name": name,
                "image": IMAGE.reference,
                "readinessProbe": probe,
                "volumeMounts": mounts,
                **container,
            },
            volumes=volumes,
        )
        labels = {"app.kubernetes.io/name": name}
        self._cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files},
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels},
                "spec": pod,
            },
            _service(name, name, port),
            namespace=NAMESPACE,
        )
        ready = ("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s")
        self._cluster.kubectl("-n", NAMESPACE, *ready)


@contextmanager
def model_sources(cluster: Cluster) -> Iterator[ModelSources]:
    """Prepare the servers; delete their namespace after the `with`."""
    with tempfile.TemporaryDirectory() as folder:
        yield prepare(cluster, Path(folder) / "keys")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def prepare(cluster: Cluster, keys: Path) -> ModelSources:
    """Build the image and create the namespace of the servers, without those of an earlier call.

    `keys`: a folder for the certificates, which is created.
    """
    IMAGE.build(cluster)
    cluster.call("load", IMAGE.reference)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    names = tuple(f"DNS:{_host(name)}" for name in ("registry", "web"))
    issue(keys, [Certificate(TLS, _host("registry"), alternative_names=names)])
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl(
        *("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    )
    cluster.kubectl(
        *("-n", NAMESPACE, "create", "secret", "generic", TLS),
        f"--from-file=tls.crt={keys / 'tls.crt'}",
        f"--from-file=tls.key={keys / 'tls.key'}",
        f"--from-file=ca.crt={keys / 'ca.crt'}",
    )
    return ModelSources(cluster, keys)


def secret(name: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """Return a Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": dict(entries),
    }


def authority_config_map(authority: str) -> dict[str, Any]:
    """Return the ConfigMap of TRUSTING."""
    metadata = {"name": AUTHORITY}
    data = {"ca.crt": authority}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def create_secret(server: Server, name: str, entries: Mapping[str, str]) -> None:
    """Create a Secret in the server's namespace."""
    server.cluster.apply(secret(name, entries), namespace=server.namespace)


def trust(server: Server, authority: str) -> None:
    """Create the ConfigMap of TRUSTING in the server's namespace."""
    server.cluster.apply(authority_config_map(authority), namespace=server.namespace)


def published(server: Server) -> str:
    """Return what users can read of a server: the resource, its pods, their logs, the events."""
    pods = server.children("pods")
    logs = [
        server.kubectl(
            "logs", pod["metadata"]["name"], "--all-containers", "--ignore-errors", "--tail=-1"
        )
        for pod in server.pods("replica")
    ]
    events = server.cluster.get("events", namespace=server.namespace)
    return json.dumps([server.get(), pods, logs, events])


def _service(name: str, pod: str, port: int) -> dict[str, Any]:
    # As outside of the cluster: with the ports that URLs need not name.
    ports = [{"port": 443 if port == 8443 else 80, "targetPort": port}]
    selector = {"app.kubernetes.io/name": pod}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports},
    }


def _host(service: str) -> str:
    return f"{service}.{NAMESPACE}.svc"
