"""A one-node cluster in a container, created by kind. It differs from the native one only below the
kubeconfig.

`run` runs the host's programs in the node's network, so the Docker daemon must be on the same Linux
machine.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from provider import builds
from provider.kubectl import Kubectl
from provider.paths import ClusterPaths
from provider.progress import ClusterError, step

MARKER = "kind"
"""Name of a file in the cluster's state folder: this cluster was created by kind."""


class Kind:
    """The kind cluster with these paths."""

    provider = "kind"

    def __init__(self, paths: ClusterPaths) -> None:
        self.paths = paths
        self._name = f"slotkeeper-{paths.name}"

    def up(self) -> None:
        """Create the cluster or restart its container, then wait until the node is Ready."""
        if self._name not in self._kind("get", "clusters").split():
            with step("kind-create", f"creating the kind cluster {self._name}"):
                self._mark()
                self._kind("create", "cluster", "--wait=120s", f"--kubeconfig={self._kubeconfig}")
        elif not self.running():
            self._docker("start", self._node)
        self._mark()
        kubectl = self.kubectl()
        kubectl.check("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
        kubectl.restore_gpus()

    def down(self) -> None:
        """Delete the cluster."""
        self._kind("delete", "cluster", f"--kubeconfig={self._kubeconfig}")
        shutil.rmtree(self.paths.state, ignore_errors=True)

    def running(self) -> bool:
        """Whether the node's container runs."""
        state = ("inspect", "--format={{.State.Running}}", self._node)
        result = subprocess.run(["docker", *state], capture_output=True, text=True, check=False)
        return result.stdout.strip() == "true"

    def exists(self) -> bool:
        """Whether the cluster was created and not deleted since."""
        return (self.paths.state / MARKER).exists()

    def kubectl(self) -> Kubectl:
        """Return kubectl for this cluster."""
        return Kubectl(self.command("kubectl"), self.environment())

    def command(self, program: str) -> list[str]:
        """Return the command prefix for one of the built programs, as a client of the cluster."""
        return [str(builds.program(program))]

    def network_command(self, folder: Path) -> list[str]:
        """Return a command prefix that runs the rest where pods and Services are reachable, in
        working directory `folder`."""
        image = self._docker("inspect", "--format={{.Image}}", self._node).strip()
        container = ("docker", "run", "--rm", "--interactive", f"--network=container:{self._node}")
        host = ("--volume=/:/host", "--entrypoint=chroot", f"--env=KUBECONFIG={self._kubeconfig}")
        user = f"--userspec={os.getuid()}:{os.getgid()}"
        enter = ("/host", "/bin/sh", "-c", 'cd "$0" && exec "$@"', str(folder))
        return [*container, *host, image, user, *enter]

    def environment(self) -> Mapping[str, str]:
        """Return the environment for clients of the cluster."""
        return os.environ | {"KUBECONFIG": str(self._kubeconfig)}

    def build(
        self, image: str, containerfile: Path, context: Path, arguments: Sequence[str]
    ) -> None:
        """Build an image."""
        flags = (part for argument in arguments for part in ("--build-arg", argument))
        file = ("--file", str(containerfile))
        self._docker("build", "--quiet", *flags, *file, "--tag", image, str(context))

    def load(self, names: Sequence[str]) -> None:
        """Load built images onto the node."""
        self._kind("load", "docker-image", *names)

    def memory(self) -> int | None:
        """Return None: Docker accounts for the container's memory."""
        return None

    @property
    def _node(self) -> str:
        return f"{self._name}-control-plane"

    @property
    def _kubeconfig(self) -> Path:
        return self.paths.kubeconfig

    def _mark(self) -> None:
        self.paths.state.mkdir(parents=True, exist_ok=True)
        (self.paths.state / MARKER).touch()

    def _kind(self, *arguments: str) -> str:
        program = shutil.which("kind") or str(builds.program("kind"))
        name = () if arguments[0] == "get" else (f"--name={self._name}",)
        return _checked(program, *arguments, *name)

    def _docker(self, *arguments: str) -> str:
        return _checked("docker", *arguments)


def _checked(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
