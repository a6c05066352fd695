"""The node's containerd: whether it answers, and the images that it holds."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provider import images
from provider.progress import ClusterError, step

IDENTITY_LABEL = "slotkeeper.dev/image-id"
"""On an image of the node: the id that it had where it was built."""


@dataclass(frozen=True)
class Containerd:
    """The containerd behind a socket; `enter` is what its client's command lines begin with."""

    socket: Path
    state: Path
    enter: Sequence[str]

    def answers(self) -> bool:
        """Whether it can be talked to."""
        return self._run("version").returncode == 0

    def snapshots(self) -> str:
        """The plugin that unpacks images: overlays, unless the state lies on one."""
        self.state.mkdir(parents=True, exist_ok=True)
        return "overlayfs" if images.stackable(self.state) else "native"

    def load(self, names: Sequence[str]) -> None:
        """Bring in built images; those that are there already are left out."""
        wanted = {}
        for name in names:
            identity = images.identity(name)
            if identity is None:
                raise ClusterError(f"there is no image {name}: build it first")
            if not self._holds(name, identity):
                wanted[name] = identity
        if not wanted:
            return
        with (
            step(f"load-{len(wanted)}", f"loading {', '.join(wanted)}"),
            images.archive(list(wanted)) as archive,
        ):
            self._check("images", "import", "--snapshotter", self.snapshots(), str(archive))
        for name, identity in wanted.items():
            self._check("images", "label", images.normalised(name), f"{IDENTITY_LABEL}={identity}")

    def _holds(self, image: str, identity: str) -> bool:
        label = f'labels."{IDENTITY_LABEL}"=={identity}'
        name = f"name=={images.normalised(image)}"
        return bool(self._check("images", "ls", "--quiet", f"{name},{label}").strip())

    def _check(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            raise ClusterError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        client = ("ctr", "--address", str(self.socket), "--namespace", "k8s.io")
        return subprocess.run(
            [*self.enter, *client, *arguments], capture_output=True, text=True, check=False
        )
