"""Images without Docker: buildah builds and keeps them, in a storage of our own.

A Containerfile that says `FROM debian:SUITE-slim` means Docker Hub's image where Docker builds it.
Here it means a base of the same name that debootstrap makes from the host's own Debian mirror.
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

from provider.places import cache, locked, write
from provider.prerequisites import PATH
from provider.progress import ClusterError, step

BASE = re.compile(r"(?:(?:docker\.io/)?(?:library/)?)?debian:(\w+)-slim")
CERTIFICATES = "/etc/ssl/certs"
RUN = Path("/run/slotkeeper-images")
QUICK = ("--compression-format", "zstd", "--compression-level", "1")
"""Layers are packed to be read once: in a third of the time that gzip takes."""
REGISTRIES = 'unqualified-search-registries = ["localhost"]\nshort-name-mode = "permissive"\n'


def normalised(reference: str) -> str:
    """An image's full name, as Docker and the kubelet understand a short one."""
    name, tag = _split(reference)
    first, _, rest = name.partition("/")
    if not rest:
        name = f"docker.io/library/{name}"
    elif first != "localhost" and not set(first) & set(".:"):
        name = f"docker.io/{name}"
    return f"{name}{tag or ':latest'}"


def bases(containerfile: str) -> list[str]:
    """The Debian suites whose bases the text's FROM lines name, each once."""
    froms = re.findall(
        r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", containerfile, re.MULTILINE | re.IGNORECASE
    )
    suites = [found[1] for name in froms if (found := BASE.fullmatch(name))]
    return list(dict.fromkeys(suites))


def build(image: str, containerfile: Path, context: Path, arguments: Sequence[str] = ()) -> None:
    """Build an image; what did not change comes from the cache.

    `arguments` are KEY=VALUE pairs for the Containerfile's ARG lines.
    """
    for suite in bases(containerfile.read_text()):
        _ensure_base(suite)
    name = normalised(image)
    with locked("images"), step(f"image-{_slug(name)}", f"building the image {image}"):
        _buildah(
            *("bud", "--quiet", "--pull-never", "--layers"),
            # Downloads in RUN lines trust what the host trusts, and the image keeps nothing of it.
            *(
                ("--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro")
                if Path(CERTIFICATES).exists()
                else ()
            ),
            *(part for argument in arguments for part in ("--build-arg", argument)),
            *("--file", str(containerfile), "--tag", name, str(context)),
        )


def identity(image: str) -> str | None:
    """The id of a built image, None where there is none of this name."""
    found = _buildah("images", "--json", "--no-trunc")
    listed: list[dict[str, object]] = json.loads(found) or []
    wanted = normalised(image)
    for entry in listed:
        names = entry.get("names") or []
        if isinstance(names, list) and wanted in names:
            return str(entry["id"])
    return None


@contextmanager
def archive(images: Sequence[str]) -> Iterator[Path]:
    """A tar file in OCI's layout with all of these images; shared layers are in it once."""
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        layout = Path(folder) / "layout"
        with locked("images"):
            for image in images:
                name = normalised(image)
                _buildah("push", "--quiet", *QUICK, name, f"oci:{layout}:{name}")
        packed = Path(folder) / "images.tar"
        with tarfile.open(packed, "w") as tar:
            tar.add(layout, arcname=".")
        yield packed


def single_program(image: str, program: Path) -> None:
    """Build an image that holds nothing but one static program."""
    if identity(image) is not None:
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
        if identity(name) is not None:
            return
        with step(f"base-{suite}", f"making the base image debian:{suite}-slim by debootstrap"):
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
    made = subprocess.run(
        [*command, str(root), _mirror()],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise ClusterError(f"debootstrap {suite}: {made.stdout[-2000:]}{made.stderr[-2000:]}")
    for folder in ("var/lib/apt/lists", "var/cache/apt/archives"):
        for file in (root / folder).rglob("*"):
            if file.is_file():
                file.unlink()


def _mirror() -> str:
    """The Debian mirror that the host's own apt uses."""
    asked = ("apt-get", "indextargets", "--format", "$(ORIGIN)\t$(COMPONENT)\t$(REPO_URI)")
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    for line in found.stdout.splitlines():
        origin, component, address = line.split("\t")
        if origin == "Debian" and component == "main" and "security" not in address:
            return address
    raise ClusterError("apt knows no Debian mirror: run apt-get update")


def _buildah(*arguments: str) -> str:
    store = ("--root", str(_folder() / "store"), "--runroot", str(RUN))
    registries = _folder() / "registries.conf"
    if not registries.exists():
        write(registries, REGISTRIES)
    done = subprocess.run(
        ["buildah", *store, *_storage_driver(), *arguments],
        env=_environment() | {"CONTAINERS_REGISTRIES_CONF": str(registries)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(
            f"buildah {arguments[0]} failed:\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
        )
    return done.stdout


def _storage_driver() -> Sequence[str]:
    return ("--storage-driver", "overlay" if stackable(_folder()) else "vfs")


def stackable(folder: Path) -> bool:
    """Whether overlays can be mounted over the folder; not where it is part of one itself."""
    asked = ("stat", "--file-system", "--format=%T", str(folder))
    kind = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return kind not in {"overlayfs", "tmpfs"}


def _environment() -> dict[str, str]:
    # The isolation that needs neither a runtime nor a network of its own.
    return os.environ | {"BUILDAH_ISOLATION": "chroot", "PATH": f"{PATH}:{os.environ['PATH']}"}


def _folder() -> Path:
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _split(reference: str) -> tuple[str, str]:
    """A reference's name and its `:TAG` or `@DIGEST`, which may be empty."""
    name, at, digest = reference.partition("@")
    if at:
        return name, f"@{digest}"
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", f"{colon}{tag}"


def _slug(name: str) -> str:
    # Without the tag, which may change with every source.
    return re.sub(r"\W+", "-", _split(name)[0])
