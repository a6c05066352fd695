"""A one-node cluster of processes on this machine, in their own network namespace."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from provider import builds, configs, constants, dns, images, mount_points, prerequisites
from provider.certificates import issue
from provider.cgroups import Cgroup
from provider.components import ADMIN, CERTIFICATES, KUBELET, USERS, Component, Node
from provider.containerd import Containerd
from provider.kubectl import Kubectl
from provider.namespaces import Namespaces, mounted_below
from provider.paths import ClusterPaths, locked, write
from provider.processes import Processes
from provider.progress import ClusterError, print_progress

START_TIMEOUT = 120.0
"""Seconds until the API server or containerd must respond."""


class Native:
    """The native cluster with these paths."""

    provider = "native"

    def __init__(self, paths: ClusterPaths) -> None:
        self.paths = paths
        self.cgroup = Cgroup(f"/slotkeeper/{paths.name}")
        self.processes = Processes(paths.run / "processes")
        self._namespaces = Namespaces(paths.run / "ns")
        self._node = Node(paths.state)
        self._containerd = Containerd(
            paths.run / "containerd.sock", paths.state, self._namespaces.enter_command()
        )

    def up(self) -> None:
        """Start what does not run yet, then wait until pods can run and names resolve."""
        prerequisites.install()
        # Before anything starts: a build would slow it down, and it could miss a timeout.
        programs = {name: builds.ensure(builds.modules()[name]) for name in MODULES}
        with locked(f"cluster-{self.paths.name}"):
            self._write_files()
            self._ensure_namespaces()
            self._start_base(programs["kubernetes"])
            self._start_clients(programs["kubernetes"])
            self._expect_alive((*self._node.base(), *self._node.clients()))

    def down(self) -> None:
        """Stop what `up` started and remove all of its files."""
        with locked(f"cluster-{self.paths.name}"):
            self._stop()
            for folder in (self.paths.run, self.paths.state):
                for mount in reversed(mounted_below(folder)):
                    subprocess.run(["umount", "--lazy", mount], check=True)
                shutil.rmtree(folder, ignore_errors=True)
        mount_points.remove()

    def running(self) -> bool:
        """Whether all of its processes run."""
        components = (*self._node.base(), *self._node.clients())
        return {component.name for component in components} <= self.processes.running().keys()

    def exists(self) -> bool:
        """Whether any of its files exist."""
        return self.paths.state.exists() or self.paths.run.exists()

    def kubectl(self) -> Kubectl:
        """Return kubectl in the network where it reaches the API server."""
        enter = self._namespaces.enter_command(mounts=False)
        return Kubectl([*enter, str(builds.program("kubectl"))], self.environment())

    def command(self, program: str) -> list[str]:
        """Return the command prefix for one of the built programs, as a client of the cluster."""
        return [*self._namespaces.enter_command(mounts=False), str(builds.program(program))]

    def network_command(self, folder: Path) -> list[str]:
        """Return a command prefix that runs the rest where pods and Services are reachable, in
        working directory `folder`."""
        return self._namespaces.enter_command(folder=folder)

    def environment(self) -> Mapping[str, str]:
        """Return the environment for clients of the cluster."""
        tools = self.paths.state / "tools"
        return os.environ | {
            "KUBECONFIG": str(self.paths.kubeconfig),
            # All clusters have the same address, so kubectl's discovery cache must be separate.
            "KUBECACHEDIR": str(tools / "kubectl"),
            "HELM_CACHE_HOME": str(tools / "helm/cache"),
            "HELM_CONFIG_HOME": str(tools / "helm/config"),
            "HELM_DATA_HOME": str(tools / "helm/data"),
            "PATH": f"{builds.tools_directory()}:{os.environ['PATH']}",
        }

    def build(
        self, image: str, containerfile: Path, context: Path, arguments: Sequence[str]
    ) -> None:
        """Build an image."""
        prerequisites.install()
        images.build(image, containerfile, context, arguments)

    def load(self, names: Sequence[str]) -> None:
        """Load built images that the node does not have yet."""
        self._containerd.load(names)

    def memory(self) -> int | None:
        """Return the memory usage of the whole cluster in bytes, pods included."""
        return self.cgroup.memory()

    def _write_files(self) -> None:
        self.paths.run.mkdir(parents=True, exist_ok=True)
        issue(self.paths.state / "keys", CERTIFICATES)
        keys = {file.name: file.read_bytes() for file in (self.paths.state / "keys").iterdir()}
        name = f"slotkeeper-{self.paths.name}"
        for user in USERS:
            write(Path(self._node.kubeconfig(user)), configs.kubeconfig(keys, user, name), 0o600)
        write(self.paths.kubeconfig, configs.kubeconfig(keys, ADMIN, name), 0o600)
        for name, text in self._configs():
            write(Path(self._node.config(name)), text)

    def _configs(self) -> Iterator[tuple[str, str]]:
        plugins = prerequisites.network_plugins()
        yield (
            "containerd.toml",
            configs.containerd(
                root=str(self.paths.state / "containerd"),
                socket=str(self._containerd.socket),
                network=self._node.config("cni"),
                plugins=str(plugins),
                pause=_system_image("pause"),
                snapshots=self._containerd.snapshotter(),
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
        # Processes that still run are in old namespaces, which can no longer be entered.
        self._stop()
        self.paths.run.mkdir(parents=True, exist_ok=True)
        self.cgroup.create()
        Cgroup(f"{self.cgroup.path}/node").create()
        overlays = dict(self._overlays())
        mount_points.create(overlays)
        self._namespaces.create(constants.ADDRESS, overlays)

    def _overlays(self) -> Iterator[tuple[Path, Path]]:
        for path, source in OVERLAYS.items():
            folder = self.paths.state / source if source != "run" else self.paths.run / "containerd"
            folder.mkdir(parents=True, exist_ok=True)
            yield Path(path), folder
        resolver = Path("/etc/resolv.conf")
        if resolver.exists():
            yield resolver.resolve(), Path(self._node.config("resolv.conf"))

    def _start_base(self, programs: Path) -> None:
        components = self._node.base()
        if not self._start(components, programs):
            return
        self._wait_for(self._containerd.is_responding, "containerd", components)
        self._load_system_images()
        kubectl = self.kubectl()
        ready = ("get", "--raw", "/readyz")
        self._wait_for(lambda: kubectl.succeeds(*ready), "the API server", components)

    def _start_clients(self, programs: Path) -> None:
        kubectl = self.kubectl()
        before = kubectl.node_heartbeat()
        components = self._node.clients()
        started = self._start(components, programs)
        if KUBELET in started:
            # Until then the node's status is that of the previous kubelet.
            self._wait_for(
                lambda: kubectl.node_heartbeat() not in {None, before}, KUBELET, components
            )
            kubectl.restore_gpus()
        if started:
            kubectl.apply(dns.manifests(_system_image("coredns")))
        for condition, subject in (
            ("condition=Ready", (f"node/{constants.NODE}",)),
            ("condition=Available", ("-n", dns.NAMESPACE, "deployment/coredns")),
            ("create", ("-n", "default", "serviceaccount/default")),
        ):
            kubectl.check("wait", f"--timeout={START_TIMEOUT:.0f}s", f"--for={condition}", *subject)

    def _start(self, components: Sequence[Component], programs: Path) -> list[str]:
        join = Cgroup(f"{self.cgroup.path}/node").join_command()
        prefix = [*join, *self._namespaces.enter_command()]
        environment = os.environ | {"PATH": f"{prerequisites.PATH}:{os.environ['PATH']}"}
        started = []
        for component in components:
            built = programs / component.program
            program = str(built) if built.exists() else component.program
            if self.processes.ensure(
                component.name,
                [program, *component.flags],
                prefix=prefix,
                log=self.paths.logs / f"{component.name}.log",
                environment=environment,
            ):
                started.append(component.name)
        if started:
            print_progress(f"started {', '.join(started)}")
        return started

    def _stop(self) -> None:
        self.processes.stop_all()
        self.cgroup.kill()
        self._namespaces.remove()
        self.cgroup.remove()

    def _load_system_images(self) -> None:
        for name in SYSTEM_PROGRAMS:
            images.build_single_program(_system_image(name), builds.program(name))
        self.load([_system_image(name) for name in SYSTEM_PROGRAMS])

    def _wait_for(
        self, condition: Callable[[], bool], subject: str, components: Sequence[Component]
    ) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            self._expect_alive(components)
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"no response from {subject} within {START_TIMEOUT:.0f} s; see the logs in "
                    f"{self.paths.logs}"
                )
            time.sleep(0.1)

    def _expect_alive(self, components: Sequence[Component]) -> None:
        """Raise ClusterError with the last log lines of a component that has exited."""
        running = self.processes.running()
        for name in (component.name for component in components if component.name not in running):
            log = self.paths.logs / f"{name}.log"
            last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise ClusterError(f"{name} exited:\n{last_lines}\nfull log: {log}")


MODULES = ("kubernetes", "helm", "coredns", "pause")
SYSTEM_PROGRAMS = ("coredns", "pause")

OVERLAYS = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni",
    "/var/log/containers": "container-links",
    "/run/containerd": "run",
}
"""Folders whose paths are fixed in Kubernetes or containerd, and what is mounted there: a folder of
the cluster's state, or `run` for one in its run folder."""


def _system_image(name: str) -> str:
    version = builds.modules()[name].output.name.rpartition("-")[2]
    return f"docker.io/slotkeeper/{name}:{version}"
