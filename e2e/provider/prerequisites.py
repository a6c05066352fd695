"""What a machine must have, named in the first second with the command that installs it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provider.builds import go_needed, go_version
from provider.places import cache, write
from provider.progress import ClusterError, step

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "curl": "curl",
}
"""Programs that the native provider calls, and the Debian packages that hold them."""

NETWORK_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
NETWORK_PACKAGE = "containernetworking-plugins"
SERVICES = ("containerd",)
"""Services that come with those packages; none of ours, so they must not begin to run."""

POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True)
class Missing:
    """Something that the machine lacks, and how it gets it."""

    what: str
    remedy: str

    @property
    def sentence(self) -> str:
        """Both, for people."""
        return f"missing: {self.what}. {self.remedy}"


def missing(provider: str) -> list[Missing]:
    """What only the user can bring."""
    return [*_for_all(), *(_for_native() if provider == "native" else ())]


def missing_packages() -> list[str]:
    """The Debian packages that the native provider lacks, and may install itself."""
    lacking = {package for name, package in PACKAGES.items() if not shutil.which(name, path=PATH)}
    if network_plugins() is None:
        lacking.add(NETWORK_PACKAGE)
    return sorted(lacking)


def install() -> None:
    """Install the missing Debian packages; the host's own packages and services stay."""
    packages = missing_packages()
    if not packages:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # Nothing is ever removed in exchange, such as a containerd from elsewhere.
    command = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--no-remove")
    with step("packages", f"installing Debian's {', '.join(packages)}"), _services_held_back():
        for arguments in (("apt-get", "update", "--quiet"), (*command, *packages)):
            done = subprocess.run(
                arguments, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise ClusterError(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    write(_installed(), "\n".join(sorted({*installed(), *packages})))


def installed() -> list[str]:
    """The Debian packages that were installed here, and not there before."""
    return _installed().read_text().split() if _installed().exists() else []


def network_plugins() -> Path | None:
    """The folder of the CNI plugins."""
    return next((folder for folder in NETWORK_PLUGINS if (folder / "ptp").exists()), None)


def docker_answers() -> bool:
    """Whether there is a Docker daemon to be used."""
    if not shutil.which("docker"):
        return False
    command = ("docker", "version", "--format", "{{.Server.Version}}")
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _installed() -> Path:
    return cache() / "installed-packages"


def _for_all() -> Iterator[Missing]:
    for program in ("git", "make"):
        if not shutil.which(program):
            yield Missing(program, f"Install it with: apt-get install {program}")


def _for_native() -> Iterator[Missing]:
    or_docker = "or start a Docker daemon, with which the cluster runs anywhere"
    if not _is_debian():
        yield Missing("Debian 12 or 13", f"Use one, {or_docker}")
        return
    if os.geteuid() != 0:
        yield Missing("root", f"Run it with sudo, {or_docker}")
    needed = go_needed()
    found = go_version()
    if found is None or found < needed:
        spelled = ".".join(map(str, needed))
        have = f" (found {'.'.join(map(str, found))})" if found else ""
        install_it = "Install it with: apt-get install golang-go (Debian 13, or 12 with backports)"
        yield Missing(f"Go {spelled} or newer{have}", f"{install_it}, {or_docker}")


def _is_debian() -> bool:
    release = Path("/etc/os-release")
    text = release.read_text() if release.exists() else ""
    debian = re.search(r"^ID=debian$", text, re.MULTILINE)
    version = re.search(r'^VERSION_ID="?(\d+)', text, re.MULTILINE)
    return debian is not None and version is not None and int(version[1]) >= 12


@contextmanager
def _services_held_back() -> Iterator[None]:
    """Keep a package that brings a service from starting it, now and at the next boot."""
    new = [name for name in SERVICES if not shutil.which(name, path=PATH)]
    # A policy of the host's own is left alone, and so is what it decides.
    ours = not POLICY.exists()
    if ours:
        names = "|".join(new) or "none"
        POLICY.write_text(f'#!/bin/sh\ncase "$1" in {names}) exit 101 ;; *) exit 0 ;; esac\n')
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink()
        if Path("/run/systemd/system").exists():
            for name in new:
                subprocess.run(["systemctl", "disable", "--now", name], check=False)
