"""The node's containerd: whether it is responding, and which images it has."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provider import images
from provider.progress import ClusterError, step

IMAGE_ID_LABEL = "slotkeeper.dev/image-id"
"""Label of the node's images: the image id in the builder's storage."""


@dataclass(frozen=True)
class Containerd:
    """The containerd at `socket`; `enter` is the command prefix for its client."""

    socket: Path
    state: Path
    enter: Sequence[str]

    def is_responding(self) -> bool:
        """Whether containerd answers a request."""
        return self._run("version").returncode == 0

    def snapshotter(self) -> str:
        """Return the snapshotter: overlayfs, or native if the state is itself on an overlay."""
        self.state.mkdir(parents=True, exist_ok=True)
        return "overlayfs" if images.supports_overlayfs(self.state) else "native"

    def load(self, names: Sequence[str]) -> None:
        """Import built images that containerd does not have yet. Raises ClusterError."""
        missing = {}
        for name in names:
            image_id = images.image_id(name)
            if image_id is None:
                raise ClusterError(f"no image {name}: build it first with `e2e/cluster build`")
            if not self._has_image(name, image_id):
                missing[name] = image_id
        if not missing:
            return
        with (
            step(f"load-{len(missing)}", f"loading {', '.join(missing)}"),
            images.archive(list(missing)) as archive,
        ):
            self._check("images", "import", "--snapshotter", self.snapshotter(), str(archive))
        for name, image_id in missing.items():
            self._check("images", "label", images.normalize(name), f"{IMAGE_ID_LABEL}={image_id}")

    def _has_image(self, image: str, image_id: str) -> bool:
        label = f'labels."{IMAGE_ID_LABEL}"=={image_id}'
        name = f"name=={images.normalize(image)}"
        return bool(self._check("images", "ls", "--quiet", f"{name},{label}").strip())

    def _check(self, *arguments: str) -> str:
        result = self._run(*arguments)
        if result.returncode:
            raise ClusterError(f"ctr {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        client = ("ctr", "--address", str(self.socket), "--namespace", "k8s.io")
        return subprocess.run(
            [*self.enter, *client, *arguments], capture_output=True, text=True, check=False
        )
