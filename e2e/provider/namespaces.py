"""A cluster's own network and mounts.

Its network has a loopback and an address for the node, and a default route that leads nowhere, so
that no traffic gets out and the host's firewall rules stay as they are. Its mounts are the host's
plus some folders of its own laid over those whose paths Kubernetes and containerd fix, and they
vanish with it.
"""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Namespaces:
    """The network and mount namespaces that are held open by the files in `folder`."""

    folder: Path

    @property
    def network(self) -> Path:
        """The file that holds the network open."""
        return self.folder / "net"

    @property
    def mounts(self) -> Path:
        """The file that holds the mounts open."""
        return self.folder / "mnt"

    def exist(self) -> bool:
        """Whether both are there: after a reboot or a crash only the files may be."""
        held = mounted_below(self.folder)
        return str(self.network) in held and str(self.mounts) in held

    def create(self, address: str, overlays: Mapping[Path, Path]) -> None:
        """Make them; `overlays` are the paths, inside, that show other files or folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A namespace can be held only from a mount that is not propagated into it.
        _run("mount", "--bind", str(self.folder), str(self.folder))
        _run("mount", "--make-private", str(self.folder))
        self.network.touch()
        self.mounts.touch()
        script = "\n".join((*_network(address), *_overlay(overlays)))
        hold = (f"--net={self.network}", f"--mount={self.mounts}", "--propagation=slave")
        _run("unshare", *hold, "/bin/sh", "-euc", script)

    def entering(self, *, folder: Path | None = None, mounts: bool = True) -> list[str]:
        """A command line prefix that becomes what follows, inside; `folder` is where it is then."""
        inside = (f"--mount={self.mounts}", f"--wdns={folder or '/'}") if mounts else ()
        return ["nsenter", f"--net={self.network}", *inside, "--"]

    def remove(self) -> None:
        """Let go of them; they end with their last process."""
        for mount in reversed(mounted_below(self.folder)):
            _run("umount", "--lazy", mount)


def mounted_below(folder: Path) -> list[str]:
    """The host's mount points at and below the folder, in the order in which they were made."""
    points = [line.split()[4] for line in MOUNTS.read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(folder)]


def _network(address: str) -> Sequence[str]:
    return (
        "ip link set lo up",
        "ip link add node0 type bridge",
        f"ip addr add {address}/24 dev node0",
        "ip link set node0 up",
        "ip route add default dev node0",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
    )


def _overlay(overlays: Mapping[Path, Path]) -> Sequence[str]:
    return [
        shlex.join(("mount", "--bind", str(shown), str(path))) for path, shown in overlays.items()
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
