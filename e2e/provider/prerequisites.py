"""Checks a cluster's prerequisites before anything is built, and installs Debian packages."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provider.builds import go_version, minimum_go_version
from provider.paths import cache, write
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
    "promtool": "prometheus",
    "docker-registry": "docker-registry",
    "shellcheck": "shellcheck",
}
"""Programs that the native provider and the tests call, and the Debian packages they are in."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
"""Browsers that can run the tests of the gateway's page."""
CHROMIUM_PACKAGE = "chromium"

NETWORK_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
NETWORK_PACKAGE = "containernetworking-plugins"
SERVICES = ("containerd", "prometheus", "docker-registry")
"""System services that these packages bring, which must not be started: clusters and tests run
their own containerd and registry, and of prometheus only promtool is used."""

POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True)
class MissingPrerequisite:
    """Something that the machine lacks, and how to install it."""

    name: str
    remedy: str

    @property
    def message(self) -> str:
        """Name and remedy in one line."""
        return f"missing: {self.name}. {self.remedy}"


def missing(provider: str) -> list[MissingPrerequisite]:
    """Return the missing prerequisites that only the user can install."""
    return [*_for_all(), *(_for_native() if provider == "native" else ())]


def missing_packages() -> list[str]:
    """Return the missing Debian packages, which the native provider installs itself."""
    absent = {package for name, package in PACKAGES.items() if not shutil.which(name, path=PATH)}
    if network_plugins() is None:
        absent.add(NETWORK_PACKAGE)
    return sorted(absent)


def install() -> None:
    """Install the missing Debian packages of the native provider. Raises ClusterError."""
    if packages := missing_packages():
        _install(packages)


def chromium() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


def ensure_chromium() -> str:
    """Return the path of Chromium, installing Debian's if there is none. Raises ClusterError."""
    if not chromium() and _is_debian() and os.geteuid() == 0:
        _install([CHROMIUM_PACKAGE])
    path = chromium()
    if path is None:
        remedy = f"Install it with: apt-get install {CHROMIUM_PACKAGE}"
        raise ClusterError(MissingPrerequisite("Chromium", remedy).message)
    return path


def _install(packages: Sequence[str]) -> None:
    """Install Debian packages without changing the host's other packages and services."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # --no-remove: a conflicting package, such as another vendor's containerd, is never removed.
    command = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--no-remove")
    with step("packages", f"installing Debian packages {', '.join(packages)}"), _without_services():
        for arguments in (("apt-get", "update", "--quiet"), (*command, *packages)):
            result = subprocess.run(
                arguments, env=environment, capture_output=True, text=True, check=False
            )
            if result.returncode:
                raise ClusterError(f"{' '.join(arguments)}\n{result.stdout}{result.stderr}")
    write(_installed(), "\n".join(sorted({*installed(), *packages})))


def installed() -> list[str]:
    """Return the Debian packages that `install` has installed on this machine."""
    return _installed().read_text().split() if _installed().exists() else []


def network_plugins() -> Path | None:
    """Return the folder of the CNI plugins, None if they are not installed."""
    return next((folder for folder in NETWORK_PLUGINS if (folder / "ptp").exists()), None)


def docker_available() -> bool:
    """Whether a Docker daemon is running and usable."""
    if not shutil.which("docker"):
        return False
    command = ("docker", "version", "--format", "{{.Server.Version}}")
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def service_policy(services: Sequence[str]) -> str:
    """Return a policy-rc.d script that denies starting these services, and allows all others."""
    # invoke-rc.d passes a service's name, deb-systemd-invoke its unit.
    names = [pattern for name in services for pattern in (name, f"{name}.service")]
    return f'#!/bin/sh\ncase "$1" in {"|".join(names) or "none"}) exit 101 ;; *) exit 0 ;; esac\n'


def _installed() -> Path:
    return cache() / "installed-packages"


def _for_all() -> Iterator[MissingPrerequisite]:
    for program in ("git", "make"):
        if not shutil.which(program):
            yield MissingPrerequisite(program, f"Install it with: apt-get install {program}")


def _for_native() -> Iterator[MissingPrerequisite]:
    or_docker = "or start a Docker daemon, with which the cluster runs on any Linux"
    if not _is_debian():
        yield MissingPrerequisite("Debian 12 or 13", f"Use one of them, {or_docker}")
        return
    if os.geteuid() != 0:
        yield MissingPrerequisite("root privileges", f"Run it with sudo, {or_docker}")
    minimum = minimum_go_version()
    installed_go = go_version()
    if installed_go is None or installed_go < minimum:
        required = f"Go {'.'.join(map(str, minimum))} or newer"
        found = f" (found {'.'.join(map(str, installed_go))})" if installed_go else ""
        install_it = "Install it with: apt-get install golang-go (Debian 13, or 12 with backports)"
        yield MissingPrerequisite(f"{required}{found}", f"{install_it}, {or_docker}")


def _is_debian() -> bool:
    release = Path("/etc/os-release")
    text = release.read_text() if release.exists() else ""
    debian = re.search(r"^ID=debian$", text, re.MULTILINE)
    version = re.search(r'^VERSION_ID="?(\d+)', text, re.MULTILINE)
    return debian is not None and version is not None and int(version[1]) >= 12


@contextmanager
def _without_services() -> Iterator[None]:
    """Prevent newly installed services from starting, now and at the next boot."""
    new = [name for name in SERVICES if not shutil.which(name, path=PATH)]
    # An existing policy of the host is kept, and decides instead.
    without_policy = not POLICY.exists()
    if without_policy:
        POLICY.write_text(service_policy(new))
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if without_policy:
            POLICY.unlink()
        if Path("/run/systemd/system").exists():
            for name in new:
                subprocess.run(["systemctl", "disable", "--now", name], check=False)
