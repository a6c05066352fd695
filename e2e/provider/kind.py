"""A one-node cluster in a container, by kind. Thin: all above the kubeconfig is shared.

`run` runs the host's own programs in the node's network, so that it needs a Docker daemon on the
same Linux machine.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from provider import builds
from provider.kubectl import Kubectl
from provider.places import Place
from provider.progress import ClusterError, step

MARK = "kind"
"""The file by which a cluster of this provider is known."""


class Kind:
    """The kind cluster of this place."""

    provider = "kind"

    def __init__(self, place: Place) -> None:
        self.place = place
        self._name = f"slotkeeper-{place.name}"

    def up(self) -> None:
        """Create the cluster, or start its container again, and wait until the node is Ready."""
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
        shutil.rmtree(self.place.state, ignore_errors=True)

    def running(self) -> bool:
        """Whether the node's container runs."""
        state = ("inspect", "--format={{.State.Running}}", self._node)
        found = subprocess.run(["docker", *state], capture_output=True, text=True, check=False)
        return found.stdout.strip() == "true"

    def exists(self) -> bool:
        """Whether it was brought up and not yet down."""
        return (self.place.state / MARK).exists()

    def kubectl(self) -> Kubectl:
        """kubectl on this cluster."""
        return Kubectl(self.command("kubectl"), self.environment())

    def command(self, program: str) -> list[str]:
        """The start of a command line of one of our programs that talks to the cluster."""
        return [str(builds.program(program))]

    def inside(self, folder: Path) -> list[str]:
        """The start of a command line that runs where pods and Services are reached."""
        image = self._docker("inspect", "--format={{.Image}}", self._node).strip()
        container = ("docker", "run", "--rm", "--interactive", f"--network=container:{self._node}")
        host = ("--volume=/:/host", "--entrypoint=chroot", f"--env=KUBECONFIG={self._kubeconfig}")
        user = f"--userspec={os.getuid()}:{os.getgid()}"
        enter = ("/host", "/bin/sh", "-c", 'cd "$0" && exec "$@"', str(folder))
        return [*container, *host, image, user, *enter]

    def environment(self) -> Mapping[str, str]:
        """The environment of whatever talks to the cluster."""
        return os.environ | {"KUBECONFIG": str(self._kubeconfig)}

    def build(
        self, image: str, containerfile: Path, context: Path, arguments: Sequence[str]
    ) -> None:
        """Build an image."""
        given = (part for argument in arguments for part in ("--build-arg", argument))
        file = ("--file", str(containerfile))
        self._docker("build", "--quiet", *given, *file, "--tag", image, str(context))

    def load(self, names: Sequence[str]) -> None:
        """Put built images on the node."""
        self._kind("load", "docker-image", *names)

    def memory(self) -> int | None:
        """Not known: Docker counts it."""
        return None

    @property
    def _node(self) -> str:
        return f"{self._name}-control-plane"

    @property
    def _kubeconfig(self) -> Path:
        return self.place.kubeconfig

    def _mark(self) -> None:
        self.place.state.mkdir(parents=True, exist_ok=True)
        (self.place.state / MARK).touch()

    def _kind(self, *arguments: str) -> str:
        program = shutil.which("kind") or str(builds.program("kind"))
        name = () if arguments[0] == "get" else (f"--name={self._name}",)
        return _checked(program, *arguments, *name)

    def _docker(self, *arguments: str) -> str:
        return _checked("docker", *arguments)


def _checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
