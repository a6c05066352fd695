"""Builds the clusters' programs with Go from the modules under e2e/tools.

Each program is built once and cached by the versions that its go.mod and go.sum pin. Without Go but
with a Docker daemon, Go runs in a container.
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

from provider.paths import TOOLS, cache, locked
from provider.progress import ClusterError, step

GO_IMAGE = "golang:1.25-trixie"
LINKER_FLAGS = "-s -w"
VERSION_PACKAGE = "k8s.io/component-base/version"
PROGRAM_NAMES = {"server": "etcd", "operator": "keda-operator", "adapter": "keda-adapter"}
"""Program names for main packages whose folder name is too general."""
MANIFESTS = {
    "gateway-api": ("sigs.k8s.io/gateway-api", "config/crd/standard"),
    "keda": ("github.com/kedacore/keda/v2", "config"),
    "kueue": ("sigs.k8s.io/kueue", "config"),
}
"""Installation manifests in a module's package: the package, and the folder in it. They are stored
next to the module's programs, if it has any."""
LONG_TESTS_ONLY = ("keda", "kueue")
"""Modules that need a newer Go than a cluster does. An older Go downloads the newer toolchain, as
it downloads their packages."""
COMMAND_LINE_TOOLS = ("kubernetes", "helm")
"""Modules whose programs are called by users and tests."""


@dataclass(frozen=True)
class Module:
    """A Go module whose `tool` directives name the programs to build."""

    name: str

    @property
    def folder(self) -> Path:
        """The folder that contains its go.mod."""
        return TOOLS / self.name

    @cached_property
    def text(self) -> str:
        """The content of its go.mod."""
        return (self.folder / "go.mod").read_text()

    @property
    def go(self) -> tuple[int, int]:
        """The oldest Go version that builds it. Raises ClusterError."""
        match = re.search(r"^go (\d+)\.(\d+)", self.text, re.MULTILINE)
        if match is None:
            raise ClusterError(f"{self.folder}/go.mod has no go directive")
        return int(match[1]), int(match[2])

    @property
    def packages(self) -> dict[str, str]:
        """Map each program's name to its package."""
        block = re.search(r"^tool \(\n(.*?)^\)", self.text, re.MULTILINE | re.DOTALL)
        listed = block[1].split() if block else re.findall(r"^tool (\S+)$", self.text, re.MULTILINE)
        if not listed and (self.folder / "main.go").exists():
            listed = ["."]
        return {_program(self.name, package): package for package in listed}

    @property
    def linker_flags(self) -> str:
        """Linker flags. Without the version flags Kubernetes reports a version that clients cannot
        parse. Raises ClusterError."""
        if not any(package.startswith("k8s.io/kubernetes/") for package in self.packages.values()):
            return LINKER_FLAGS
        version = re.search(r"\bk8s\.io/kubernetes (v(\d+)\.(\d+)\S*)", self.text)
        if version is None:
            raise ClusterError(f"{self.folder}/go.mod does not require k8s.io/kubernetes")
        values = {"gitVersion": version[1], "gitMajor": version[2], "gitMinor": version[3]}
        flags = (f"-X {VERSION_PACKAGE}.{key}={value}" for key, value in values.items())
        return " ".join((LINKER_FLAGS, *flags))

    @property
    def output(self) -> Path:
        """Output folder for its programs, one for each version."""
        digest = hashlib.sha256(f"{self.linker_flags}\0{_system()}".encode())
        for file in sorted(self.folder.iterdir()):
            digest.update(file.read_bytes())
        return cache() / "binaries" / f"{self.name}-{digest.hexdigest()[:12]}"


def modules() -> dict[str, Module]:
    """All modules under e2e/tools, by name."""
    return {folder.name: Module(folder.name) for folder in sorted(TOOLS.iterdir())}


def program(name: str) -> Path:
    """Return the path of a program, building it if it is missing. Raises ClusterError."""
    for module in modules().values():
        if name in module.packages:
            return ensure(module, [name]) / name
    raise ClusterError(f"program {name} is not built by any module under e2e/tools")


def ensure(module: Module, programs: Iterable[str] | None = None) -> Path:
    """Build the missing ones of these programs (default: all); return the module's output folder.

    Raises ClusterError.
    """
    required = list(module.packages if programs is None else programs)
    with locked(f"build-{module.name}"):
        missing = [name for name in required if not (module.output / name).exists()]
        if missing:
            key = f"build-{module.name}" if len(missing) > 1 else f"build-{missing[0]}"
            with step(key, f"building {', '.join(missing)}"):
                _build(module, missing)
    return module.output


def manifests(name: str) -> Path:
    """Return the folder of a module's manifests, downloading them if missing. Raises ClusterError.

    For modules without programs. Go checks what it downloads against the module's go.sum.
    """
    module = modules()[name]
    package, folder = MANIFESTS[name]
    with locked(f"build-{name}"):
        if not (module.output / folder).exists():
            store = cache() / "go" / name
            store.mkdir(parents=True, exist_ok=True)
            command, environment = _go(module, store)
            with step(f"download-{name}", f"downloading the manifests of {name}"):
                downloaded = subprocess.run(
                    [*command, "mod", "download", package],
                    cwd=module.folder,
                    env=environment,
                    check=False,
                )
            if downloaded.returncode:
                raise ClusterError(f"go mod download failed: {package}")
            _copy_manifests(module, store)
            shutil.rmtree(store)
    return module.output / folder


def tools_directory() -> Path:
    """Return one folder with links to the programs that users and tests call."""
    outputs = [ensure(module) for name, module in modules().items() if name in COMMAND_LINE_TOOLS]
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
    """Return the installed Go's version, None if Go is not installed."""
    go = go_command()
    if go is None:
        return None
    result = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    version = re.match(r"go(\d+)\.(\d+)", result.stdout)
    return (int(version[1]), int(version[2])) if version else None


def go_command() -> str | None:
    """Return the path of `go`: from PATH, or its usual path where root's PATH is too short."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def minimum_go_version() -> tuple[int, int]:
    """Return the oldest Go that builds all modules, directly or with a toolchain it downloads."""
    return max(module.go for name, module in modules().items() if name not in LONG_TESTS_ONLY)


def _build(module: Module, programs: Iterable[str]) -> None:
    module.output.mkdir(parents=True, exist_ok=True)
    packages = [module.packages[name] for name in programs]
    # Go's caches take gigabytes for one build, so they are removed after it and kept out of the
    # user's own Go caches. After a failed build they stay for the next attempt.
    store = cache() / "go" / module.name
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=module.output) as temporary:
        command, environment = _go(module, store)
        flags = ("-trimpath", "-ldflags", module.linker_flags, "-o", f"{temporary}/")
        result = subprocess.run(
            [*command, "build", *flags, *packages], cwd=module.folder, env=environment, check=False
        )
        if result.returncode:
            raise ClusterError(f"go build failed: {', '.join(programs)}")
        for file in Path(temporary).iterdir():
            file.rename(module.output / PROGRAM_NAMES.get(file.name, file.name))
    _copy_manifests(module, store)
    shutil.rmtree(store)


def _copy_manifests(module: Module, store: Path) -> None:
    if module.name not in MANIFESTS:
        return
    package, folder = MANIFESTS[module.name]
    version = re.search(rf"^\s*{re.escape(package)} (v\S+)", module.text, re.MULTILINE)
    if version is None:
        raise ClusterError(f"{module.folder}/go.mod does not require {package}")
    source = store / "modules" / f"{package}@{version[1]}" / folder
    shutil.copytree(source, module.output / folder, dirs_exist_ok=True)


def _go(module: Module, store: Path) -> tuple[list[str], Mapping[str, str]]:
    go = go_command()
    if go and (go_version() or (0, 0)) >= min(module.go, minimum_go_version()):
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
        # By default Go makes the module cache read-only, and it could not be removed.
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
    return PROGRAM_NAMES.get(name, name)
