"""A one-node cluster of this machine's own processes, in a network of their own."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from provider import builds, configs, dns, folders, images, layout, prerequisites
from provider.certificates import issue
from provider.cgroups import Cgroup
from provider.components import ADMIN, CERTIFICATES, KUBELET, USERS, Component, Node
from provider.containerd import Containerd
from provider.kubectl import Kubectl
from provider.namespaces import Namespaces, mounted_below
from provider.places import Place, locked, write
from provider.processes import Processes
from provider.progress import ClusterError, say

PATIENCE = 120.0
"""Seconds that the API server or containerd may take to answer."""


class Native:
    """The native cluster of this place."""

    provider = "native"

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cgroup = Cgroup(f"/slotkeeper/{place.name}")
        self.processes = Processes(place.run / "processes")
        self._namespaces = Namespaces(place.run / "ns")
        self._node = Node(place.state)
        self._containerd = Containerd(
            place.run / "containerd.sock", place.state, self._namespaces.entering()
        )

    def up(self) -> None:
        """Start whatever does not run yet, and wait until pods can run and names resolve."""
        prerequisites.install()
        # Before anything starts, so that a build does not slow down what waits for an answer.
        programs = {name: builds.ensure(builds.modules()[name]) for name in MODULES}
        with locked(f"cluster-{self.place.name}"):
            self._write_files()
            self._ensure_namespaces()
            self._start_base(programs["kubernetes"])
            self._start_clients(programs["kubernetes"])
            self._expect_alive((*self._node.base(), *self._node.clients()))

    def down(self) -> None:
        """End what `up` started, and remove all that it left."""
        with locked(f"cluster-{self.place.name}"):
            self._stop()
            for folder in (self.place.run, self.place.state):
                for mount in reversed(mounted_below(folder)):
                    subprocess.run(["umount", "--lazy", mount], check=True)
                shutil.rmtree(folder, ignore_errors=True)
        folders.remove()

    def running(self) -> bool:
        """Whether all of its processes run."""
        wanted = {component.name for component in (*self._node.base(), *self._node.clients())}
        return wanted <= self.processes.running().keys()

    def exists(self) -> bool:
        """Whether anything of it is there."""
        return self.place.state.exists() or self.place.run.exists()

    def kubectl(self) -> Kubectl:
        """kubectl, where it reaches the API server."""
        enter = self._namespaces.entering(mounts=False)
        return Kubectl([*enter, str(builds.program("kubectl"))], self.environment())

    def command(self, program: str) -> list[str]:
        """The start of a command line of one of our programs that talks to the cluster."""
        return [*self._namespaces.entering(mounts=False), str(builds.program(program))]

    def inside(self, folder: Path) -> list[str]:
        """The start of a command line that runs where pods and Services are reached."""
        return self._namespaces.entering(folder=folder)

    def environment(self) -> Mapping[str, str]:
        """The environment of whatever talks to the cluster."""
        tools = self.place.state / "tools"
        return os.environ | {
            "KUBECONFIG": str(self.place.kubeconfig),
            # Clusters share an address: what kubectl learned of one must not be used for another.
            "KUBECACHEDIR": str(tools / "kubectl"),
            "HELM_CACHE_HOME": str(tools / "helm/cache"),
            "HELM_CONFIG_HOME": str(tools / "helm/config"),
            "HELM_DATA_HOME": str(tools / "helm/data"),
            "PATH": f"{builds.directory()}:{os.environ['PATH']}",
        }

    def build(
        self, image: str, containerfile: Path, context: Path, arguments: Sequence[str]
    ) -> None:
        """Build an image."""
        prerequisites.install()
        images.build(image, containerfile, context, arguments)

    def load(self, names: Sequence[str]) -> None:
        """Put built images on the node; those that are there already are left out."""
        self._containerd.load(names)

    def memory(self) -> int | None:
        """Bytes in use by all of the cluster, pods included."""
        return self.cgroup.memory()

    def _write_files(self) -> None:
        self.place.run.mkdir(parents=True, exist_ok=True)
        issue(self.place.state / "keys", CERTIFICATES)
        keys = {file.name: file.read_bytes() for file in (self.place.state / "keys").iterdir()}
        for user in USERS:
            write(Path(self._node.kubeconfig(user)), configs.kubeconfig(keys, user), 0o600)
        write(self.place.kubeconfig, configs.kubeconfig(keys, ADMIN), 0o600)
        for name, text in self._configs():
            write(Path(self._node.config(name)), text)

    def _configs(self) -> Iterator[tuple[str, str]]:
        plugins = prerequisites.network_plugins()
        yield (
            "containerd.toml",
            configs.containerd(
                root=str(self.place.state / "containerd"),
                socket=str(self._containerd.socket),
                network=self._node.config("cni"),
                plugins=str(plugins),
                pause=_system_image("pause"),
                snapshots=self._containerd.snapshots(),
            ),
        )
        yield "cni/10-pods.conflist", configs.pod_network()
        yield (
            "kubelet.yaml",
            configs.kubelet(
                socket=str(self._containerd.socket),
                cgroup=self.cgroup.path,
                authority=self._node.key("ca.crt"),
                certificate=self._node.key("kubelet-server.crt"),
                key=self._node.key("kubelet-server.key"),
            ),
        )
        proxy = self._node.kubeconfig("kube-proxy")
        yield "kube-proxy.yaml", configs.kube_proxy(kubeconfig=proxy)
        yield "audit.yaml", configs.audit_policy()
        yield "resolv.conf", configs.resolver()

    def _ensure_namespaces(self) -> None:
        self.cgroup.create()
        Cgroup(f"{self.cgroup.path}/node").create()
        if self._namespaces.exist():
            return
        # Whatever still runs does so in namespaces that nobody can enter any more.
        self._stop()
        self.place.run.mkdir(parents=True, exist_ok=True)
        self.cgroup.create()
        Cgroup(f"{self.cgroup.path}/node").create()
        overlays = dict(self._overlays())
        folders.make(overlays)
        self._namespaces.create(layout.ADDRESS, overlays)

    def _overlays(self) -> Iterator[tuple[Path, Path]]:
        for path, shown in OVERLAYS.items():
            folder = self.place.state / shown if shown != "run" else self.place.run / "containerd"
            folder.mkdir(parents=True, exist_ok=True)
            yield Path(path), folder
        resolver = Path("/etc/resolv.conf")
        if resolver.exists():
            yield resolver.resolve(), Path(self._node.config("resolv.conf"))

    def _start_base(self, programs: Path) -> None:
        components = self._node.base()
        if not self._start(components, programs):
            return
        self._until(self._containerd.answers, "containerd", components)
        self._load_system_images()
        kubectl = self.kubectl()
        ready = ("get", "--raw", "/readyz")
        self._until(lambda: kubectl.succeeds(*ready), "the API server", components)

    def _start_clients(self, programs: Path) -> None:
        kubectl = self.kubectl()
        before = kubectl.heartbeat()
        components = self._node.clients()
        started = self._start(components, programs)
        if KUBELET in started:
            # Until then the node's status is what an earlier kubelet left.
            self._until(lambda: kubectl.heartbeat() not in {None, before}, KUBELET, components)
            kubectl.restore_gpus()
        if started:
            kubectl.apply(dns.manifests(_system_image("coredns")))
        for condition, subject in (
            ("condition=Ready", (f"node/{layout.NODE}",)),
            ("condition=Available", ("-n", dns.NAMESPACE, "deployment/coredns")),
            ("create", ("-n", "default", "serviceaccount/default")),
        ):
            kubectl.check("wait", f"--timeout={PATIENCE:.0f}s", f"--for={condition}", *subject)

    def _start(self, components: Sequence[Component], programs: Path) -> list[str]:
        join = Cgroup(f"{self.cgroup.path}/node").joining()
        prefix = [*join, *self._namespaces.entering()]
        environment = os.environ | {"PATH": f"{prerequisites.PATH}:{os.environ['PATH']}"}
        started = []
        for component in components:
            built = programs / component.program
            program = str(built) if built.exists() else component.program
            if self.processes.ensure(
                component.name,
                [program, *component.flags],
                prefix=prefix,
                log=self.place.logs / f"{component.name}.log",
                environment=environment,
            ):
                started.append(component.name)
        if started:
            say(f"started {', '.join(started)}")
        return started

    def _stop(self) -> None:
        self.processes.stop_all()
        self.cgroup.kill()
        self._namespaces.remove()
        self.cgroup.remove()

    def _load_system_images(self) -> None:
        for name in SYSTEM_PROGRAMS:
            images.single_program(_system_image(name), builds.program(name))
        self.load([_system_image(name) for name in SYSTEM_PROGRAMS])

    def _until(self, true: Callable[[], bool], what: str, components: Sequence[Component]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            self._expect_alive(components)
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"no answer from {what} within {PATIENCE:.0f} s: {self.place.logs}"
                )
            time.sleep(0.1)

    def _expect_alive(self, components: Sequence[Component]) -> None:
        """Raise ClusterError with the last words of a component that ended."""
        running = self.processes.running()
        for name in (component.name for component in components if component.name not in running):
            log = self.place.logs / f"{name}.log"
            words = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise ClusterError(f"{name} ended:\n{words}\nAll of it is in {log}")


MODULES = ("kubernetes", "helm", "coredns", "pause")
SYSTEM_PROGRAMS = ("coredns", "pause")

OVERLAYS = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni",
    "/var/log/containers": "container-links",
    "/run/containerd": "run",
}
"""Folders whose paths are fixed in Kubernetes or containerd, and what the cluster sees there."""


def _system_image(name: str) -> str:
    version = builds.modules()[name].output.name.rpartition("-")[2]
    return f"docker.io/slotkeeper/{name}:{version}"
