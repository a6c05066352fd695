"""Builds images without Docker: with buildah, in a storage of its own.

Where Docker builds a Containerfile with `FROM debian:SUITE-slim`, that is Docker Hub's image. Here
it is a base image of the same name that debootstrap creates from the host's Debian mirror.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from provider.constants import REGISTRY
from provider.paths import cache, locked, write
from provider.prerequisites import PATH
from provider.progress import ClusterError, step

BASE = re.compile(r"(?:(?:docker\.io/)?(?:library/)?)?debian:(\w+)-slim")
CERTIFICATES = "/etc/ssl/certs"
RUN = Path("/run/slotkeeper-images")
COMPRESSION = ("--compression-format", "zstd", "--compression-level", "1")
"""A layer is compressed to be read once, so speed counts: this takes a third of gzip's time."""
REGISTRIES = f"""\
unqualified-search-registries = ["localhost"]
short-name-mode = "permissive"

# The registry of the tests.
[[registry]]
location = "{REGISTRY}"
insecure = true
"""


def normalize(reference: str) -> str:
    """Return an image's full name, completed as Docker and the kubelet do."""
    name, tag = _split(reference)
    first, _, rest = name.partition("/")
    if not rest:
        name = f"docker.io/library/{name}"
    elif first != "localhost" and not set(first) & set(".:"):
        name = f"docker.io/{name}"
    return f"{name}{tag or ':latest'}"


def bases(containerfile: str) -> list[str]:
    """Return the Debian suites named by the text's FROM lines, each once.

    A line may name an ARG, `${NAME}`, whose default is then the suite.
    """
    defaults = dict(re.findall(r"^\s*ARG\s+(\w+)=(\S+)", containerfile, re.MULTILINE))
    froms = re.findall(
        r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", containerfile, re.MULTILINE | re.IGNORECASE
    )
    names = (re.sub(r"\$\{(\w+)\}", lambda arg: defaults.get(arg[1], ""), each) for each in froms)
    suites = [match[1] for name in names if (match := BASE.fullmatch(name))]
    return list(dict.fromkeys(suites))


def build(image: str, containerfile: Path, context: Path, arguments: Sequence[str] = ()) -> None:
    """Build an image, with unchanged layers from the cache. Raises ClusterError.

    `arguments` are KEY=VALUE pairs for the Containerfile's ARG lines.
    """
    for suite in bases(containerfile.read_text()):
        _ensure_base(suite)
    name = normalize(image)
    with locked("images"), step(f"image-{_slug(name)}", f"building the image {image}"):
        _buildah(
            *("bud", "--quiet", "--pull-never", "--layers"),
            # RUN lines download with the host's CA certificates, which do not stay in the image.
            *(
                ("--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro")
                if Path(CERTIFICATES).exists()
                else ()
            ),
            *(part for argument in arguments for part in ("--build-arg", argument)),
            *("--file", str(containerfile), "--tag", name, str(context)),
        )


def image_id(image: str) -> str | None:
    """Return the id of a built image, None if there is no image of this name."""
    output = _buildah("images", "--json", "--no-trunc")
    entries: list[dict[str, object]] = json.loads(output) or []
    full_name = normalize(image)
    for entry in entries:
        names = entry.get("names") or []
        if isinstance(names, list) and full_name in names:
            return str(entry["id"])
    return None


@contextmanager
def archive(images: Sequence[str]) -> Iterator[Path]:
    """Create a temporary OCI archive of these images, in which shared layers are stored once."""
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        layout = Path(folder) / "layout"
        with locked("images"):
            for image in images:
                name = normalize(image)
                _buildah("push", "--quiet", *COMPRESSION, name, f"oci:{layout}:{name}")
        packed = Path(folder) / "images.tar"
        with tarfile.open(packed, "w") as tar:
            tar.add(layout, arcname=".")
        yield packed


def build_single_program(image: str, program: Path) -> None:
    """Build an image that contains only one static program, if there is no such image yet."""
    if image_id(image) is not None:
        return
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        context = Path(folder)
        shutil.copy2(program, context / program.name)
        text = f'FROM scratch\nCOPY {program.name} /\nENTRYPOINT ["/{program.name}"]\n'
        write(context / "Containerfile", text)
        build(image, context / "Containerfile", context)


def _ensure_base(suite: str) -> None:
    name = f"localhost/debian:{suite}-slim"
    with locked("images"):
        if image_id(name) is not None:
            return
        with step(f"base-{suite}", f"creating the base image debian:{suite}-slim with debootstrap"):
            container = _buildah("from", "scratch").strip()
            try:
                root = _buildah("mount", container).strip()
                _debootstrap(suite, Path(root))
                _buildah("config", "--cmd", "bash", container)
                _buildah("commit", "--quiet", container, name)
            finally:
                _buildah("rm", container)


def _debootstrap(suite: str, root: Path) -> None:
    command = ("debootstrap", "--variant=minbase", "--include=ca-certificates", suite)
    result = subprocess.run(
        [*command, str(root), _mirror()],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ClusterError(f"debootstrap {suite}: {result.stdout[-2000:]}{result.stderr[-2000:]}")
    for folder in ("var/lib/apt/lists", "var/cache/apt/archives"):
        for file in (root / folder).rglob("*"):
            if file.is_file():
                file.unlink()


def _mirror() -> str:
    """Return the Debian mirror that the host's apt uses. Raises ClusterError."""
    command = ("apt-get", "indextargets", "--format", "$(ORIGIN)\t$(COMPONENT)\t$(REPO_URI)")
    targets = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in targets.stdout.splitlines():
        origin, component, address = line.split("\t")
        if origin == "Debian" and component == "main" and "security" not in address:
            return address
    raise ClusterError("no Debian mirror in apt's sources: run apt-get update")


def buildah_command() -> list[str]:
    """Return buildah's command line for the storage of these images."""
    store = ("--root", str(_folder() / "store"), "--runroot", str(RUN))
    driver = "overlay" if supports_overlayfs(_folder()) else "vfs"
    return ["buildah", *store, "--storage-driver", driver]


def buildah_environment() -> dict[str, str]:
    """Return buildah's environment: `build` keeps its layers, as with Docker."""
    registries = _folder() / "registries.conf"
    if not registries.exists() or registries.read_text() != REGISTRIES:
        write(registries, REGISTRIES)
    return _environment() | {
        "CONTAINERS_REGISTRIES_CONF": str(registries),
        "BUILDAH_LAYERS": "true",
    }


def _buildah(*arguments: str) -> str:
    result = subprocess.run(
        [*buildah_command(), *arguments],
        env=buildah_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ClusterError(
            f"buildah {arguments[0]} failed:\n{result.stdout[-6000:]}{result.stderr[-6000:]}"
        )
    return result.stdout


def supports_overlayfs(folder: Path) -> bool:
    """Whether overlayfs can be mounted over the folder: not if the folder is on one itself."""
    command = ("stat", "--file-system", "--format=%T", str(folder))
    kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return kind not in {"overlayfs", "tmpfs"}


def _environment() -> dict[str, str]:
    # The isolation that needs neither a container runtime nor a separate network.
    return os.environ | {"BUILDAH_ISOLATION": "chroot", "PATH": f"{PATH}:{os.environ['PATH']}"}


def _folder() -> Path:
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _split(reference: str) -> tuple[str, str]:
    """Split a reference into its name and its `:TAG` or `@DIGEST`, which may be empty."""
    name, at, digest = reference.partition("@")
    if at:
        return name, f"@{digest}"
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", f"{colon}{tag}"


def _slug(name: str) -> str:
    # Without the tag, which changes with every change of the sources.
    return re.sub(r"\W+", "-", _split(name)[0])
