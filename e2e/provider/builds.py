"""The programs that the clusters are made of, built by Go from the modules under e2e/tools.

Each program is built once and kept under the cache by the versions that its go.mod and go.sum pin.
Where there is no Go but a Docker daemon, Go runs in a container.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from provider.places import TOOLS, cache, locked
from provider.progress import ClusterError, step

GO_IMAGE = "golang:1.25-trixie"
LINKER_FLAGS = "-s -w"
VERSION_PACKAGE = "k8s.io/component-base/version"
RENAMED = {"server": "etcd", "operator": "keda-operator", "adapter": "keda-adapter"}
"""Main packages whose folders do not say what they are."""
MANIFESTS = {"keda": ("github.com/kedacore/keda/v2", "config")}
"""Manifests that a module's programs are installed with: the package, and the folder in it. They
are kept beside the programs."""
LONG_TESTS_ALONE = ("keda",)
"""Modules that ask for a newer Go than a cluster needs. An older one fetches it, as it does their
packages."""
FOR_PEOPLE = ("kubernetes", "helm")
"""The modules whose programs people and tests call."""


@dataclass(frozen=True)
class Module:
    """A Go module whose `tool` lines name the programs to build."""

    name: str

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return TOOLS / self.name

    @cached_property
    def text(self) -> str:
        """Its go.mod."""
        return (self.folder / "go.mod").read_text()

    @property
    def go(self) -> tuple[int, int]:
        """The oldest Go that builds it."""
        found = re.search(r"^go (\d+)\.(\d+)", self.text, re.MULTILINE)
        if found is None:
            raise ClusterError(f"{self.folder}/go.mod says no Go version")
        return int(found[1]), int(found[2])

    @property
    def packages(self) -> dict[str, str]:
        """What it builds: each program's name and its package."""
        block = re.search(r"^tool \(\n(.*?)^\)", self.text, re.MULTILINE | re.DOTALL)
        listed = block[1].split() if block else re.findall(r"^tool (\S+)$", self.text, re.MULTILINE)
        if not listed and (self.folder / "main.go").exists():
            listed = ["."]
        return {_program(self.name, package): package for package in listed}

    @property
    def linker_flags(self) -> str:
        """How to link. A Kubernetes that was not told its version says one that none parses."""
        if not any(package.startswith("k8s.io/kubernetes/") for package in self.packages.values()):
            return LINKER_FLAGS
        version = re.search(r"\bk8s\.io/kubernetes (v(\d+)\.(\d+)\S*)", self.text)
        if version is None:
            raise ClusterError(f"{self.folder}/go.mod requires no version of Kubernetes")
        told = {"gitVersion": version[1], "gitMajor": version[2], "gitMinor": version[3]}
        return " ".join(
            (LINKER_FLAGS, *(f"-X {VERSION_PACKAGE}.{key}={value}" for key, value in told.items()))
        )

    @property
    def output(self) -> Path:
        """Where its programs are kept; another version, another folder."""
        digest = hashlib.sha256(f"{self.linker_flags}\0{_system()}".encode())
        for file in sorted(self.folder.iterdir()):
            digest.update(file.read_bytes())
        return cache() / "binaries" / f"{self.name}-{digest.hexdigest()[:12]}"


def modules() -> dict[str, Module]:
    """All modules under e2e/tools, by name."""
    return {folder.name: Module(folder.name) for folder in sorted(TOOLS.iterdir())}


def program(name: str) -> Path:
    """The path of a program; it is built if it is missing."""
    for module in modules().values():
        if name in module.packages:
            return ensure(module, [name]) / name
    raise ClusterError(f"no module under e2e/tools builds {name}")


def ensure(module: Module, programs: Iterable[str] | None = None) -> Path:
    """The folder of the module's programs, with all of these in it."""
    wanted = list(module.packages if programs is None else programs)
    with locked(f"build-{module.name}"):
        missing = [name for name in wanted if not (module.output / name).exists()]
        if missing:
            what = f"building {', '.join(missing)}"
            key = f"build-{module.name}" if len(missing) > 1 else f"build-{missing[0]}"
            with step(key, what):
                _build(module, missing)
    return module.output


def directory() -> Path:
    """One folder that holds the programs that people and tests call, as links."""
    outputs = [ensure(module) for name, module in modules().items() if name in FOR_PEOPLE]
    key = hashlib.sha256("\0".join(map(str, outputs)).encode()).hexdigest()[:12]
    folder = cache() / "binaries" / f"all-{key}"
    with locked("build-all"):
        folder.mkdir(exist_ok=True)
        for output in outputs:
            for file in output.iterdir():
                link = folder / file.name
                if not link.is_symlink():
                    link.symlink_to(file)
    return folder


def go_version() -> tuple[int, int] | None:
    """The version of this machine's Go, None where there is none."""
    found = go_command()
    if found is None:
        return None
    said = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    version = re.match(r"go(\d+)\.(\d+)", said.stdout)
    return (int(version[1]), int(version[2])) if version else None


def go_command() -> str | None:
    """This machine's `go`: where root's PATH is short, at its usual place."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def go_needed() -> tuple[int, int]:
    """The oldest Go that builds all modules, by itself or with a newer one that it fetches."""
    return max(module.go for name, module in modules().items() if name not in LONG_TESTS_ALONE)


def _build(module: Module, programs: Iterable[str]) -> None:
    module.output.mkdir(parents=True, exist_ok=True)
    packages = [module.packages[name] for name in programs]
    # Gigabytes that serve one build: kept neither there nor in the caches of the user's own work.
    # They stay after a build that failed, for the next try.
    store = cache() / "go" / module.name
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=module.output) as aside:
        command, environment = _go(module, store)
        flags = ("-trimpath", "-ldflags", module.linker_flags, "-o", f"{aside}/")
        result = subprocess.run(
            [*command, "build", *flags, *packages], cwd=module.folder, env=environment, check=False
        )
        if result.returncode:
            raise ClusterError(f"go could not build {', '.join(programs)}")
        for file in Path(aside).iterdir():
            file.rename(module.output / RENAMED.get(file.name, file.name))
    _keep_manifests(module, store)
    shutil.rmtree(store)


def _keep_manifests(module: Module, store: Path) -> None:
    if module.name not in MANIFESTS:
        return
    package, folder = MANIFESTS[module.name]
    version = re.search(rf"^\s*{re.escape(package)} (v\S+)", module.text, re.MULTILINE)
    if version is None:
        raise ClusterError(f"{module.folder}/go.mod requires no version of {package}")
    source = store / "modules" / f"{package}@{version[1]}" / folder
    shutil.copytree(source, module.output / folder, dirs_exist_ok=True)


def _go(module: Module, store: Path) -> tuple[list[str], Mapping[str, str]]:
    go = go_command()
    if go and (go_version() or (0, 0)) >= min(module.go, go_needed()):
        return [go], os.environ | _go_settings(store)
    system, machine = _system()
    settings = _go_settings(Path("/go")) | {"GOOS": system, "GOARCH": machine, "HOME": "/go"}
    container = (
        *("docker", "run", "--rm", f"--user={os.getuid()}:{os.getgid()}"),
        *(f"--env={key}={value}" for key, value in settings.items()),
        *(f"--volume={store}:/go", f"--volume={TOOLS}:{TOOLS}:ro"),
        *(f"--volume={module.output}:{module.output}", f"--workdir={module.folder}"),
    )
    return [*container, GO_IMAGE, "go"], os.environ


def _go_settings(store: Path) -> dict[str, str]:
    return {
        "CGO_ENABLED": "0",
        "GOWORK": "off",
        "GOTOOLCHAIN": "auto",
        "GOCACHE": str(store / "build"),
        "GOMODCACHE": str(store / "modules"),
        "XDG_CONFIG_HOME": str(store / "config"),
        # Go writes modules so that not even their owner can remove them.
        "GOFLAGS": "-modcacherw -buildvcs=false",
    }


def _system() -> tuple[str, str]:
    machines = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = platform.machine().lower()
    return platform.system().lower(), machines.get(machine, machine)


def _program(module: str, package: str) -> str:
    if package == ".":
        return module
    name = [part for part in package.split("/") if not re.fullmatch(r"v\d+", part)][-1]
    return RENAMED.get(name, name)
