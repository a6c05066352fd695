"""A cluster's network and mount namespaces.

The network has a loopback, the node's address and a default route without a gateway, so that no
traffic leaves it and the host's firewall rules are not changed. The mounts are the host's, with the
cluster's own folders mounted over those whose paths are fixed in Kubernetes and containerd. These
mounts end with the namespace.
"""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Namespaces:
    """The network and mount namespaces kept open by bind mounts in `folder`."""

    folder: Path

    @property
    def network(self) -> Path:
        """The file that keeps the network namespace open."""
        return self.folder / "net"

    @property
    def mounts(self) -> Path:
        """The file that keeps the mount namespace open."""
        return self.folder / "mnt"

    def exist(self) -> bool:
        """Whether both namespaces exist: after a reboot or a crash only the files may be left."""
        mounted = mounted_below(self.folder)
        return str(self.network) in mounted and str(self.mounts) in mounted

    def create(self, address: str, overlays: Mapping[Path, Path]) -> None:
        """Create both. `overlays` maps mount points to the files or folders mounted there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A mount namespace can be bound only to a mount that is not propagated into it.
        _run("mount", "--bind", str(self.folder), str(self.folder))
        _run("mount", "--make-private", str(self.folder))
        self.network.touch()
        self.mounts.touch()
        script = "\n".join((*_network(address), *_overlay(overlays)))
        flags = (f"--net={self.network}", f"--mount={self.mounts}", "--propagation=slave")
        _run("unshare", *flags, "/bin/sh", "-euc", script)

    def enter_command(self, *, folder: Path | None = None, mounts: bool = True) -> list[str]:
        """Return a command prefix that runs the rest in the network, and with `mounts` also in the
        mount namespace, with `folder` (default: /) as its working directory there."""
        enter_mounts = (f"--mount={self.mounts}", f"--wdns={folder or '/'}") if mounts else ()
        return ["nsenter", f"--net={self.network}", *enter_mounts, "--"]

    def remove(self) -> None:
        """Unmount their files; the kernel removes each with its last process."""
        for mount in reversed(mounted_below(self.folder)):
            _run("umount", "--lazy", mount)


def mounted_below(folder: Path) -> list[str]:
    """Return the host's mount points at and below the folder, in mount order."""
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
        shlex.join(("mount", "--bind", str(source), str(path))) for path, source in overlays.items()
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
