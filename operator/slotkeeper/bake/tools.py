"""The programs that build images: their command lines."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper.bake.errors import BakeError

MODELS_FOLDER = "/models"
"""In the image."""

EPOCH = "0"
"""Timestamp of all files: the layer's digest then depends on the files only, so that a registry
that has the layer does not receive it again, on top of whatever base."""


@dataclass(frozen=True)
class Build:
    """What to build."""

    image: str
    base: str
    platform: str | None
    files: Sequence[str]
    """Names of the files in the context."""
    labels: Mapping[str, str]
    """With values that need no escapes between quotation marks."""


@dataclass(frozen=True)
class Tool:
    """One of the programs. Its commands, as sequences of arguments."""

    name: str
    copies: int
    """How often the files are on its disk while it builds, at most: measured for buildah, as one
    copy in the container, one in TMPDIR and one in the new layer."""
    build_flags: tuple[str, ...] = ()
    copy_flags: tuple[str, ...] = ()
    annotates: bool = True
    insecure_registries: str = "`insecure = true` in /etc/containers/registries.conf"
    """Where registries without TLS are allowed."""
    keeps_times: bool = False
    """Whether the layer contains the modification times of the files."""

    def containerfile(self, build: Build) -> str:
        """Return the text of the Containerfile: a single layer, readable by every user.

        One instruction for all labels: buildah commits an image for each.
        """
        copy = " ".join(("COPY", *self.copy_flags, "--chmod=0444", *build.files))
        labels = " ".join(f'{key}="{value}"' for key, value in build.labels.items())
        return f"FROM {build.base}\n{copy} {MODELS_FOLDER}/\nLABEL {labels}\n"

    def info(self) -> list[str]:
        """The command that prints the folder of the images."""
        formats = {"docker": "{{.DockerRootDir}}", "podman": "json"}
        template = ("--format", formats[self.name]) if self.name in formats else ()
        return [self.name, "info", *template]

    def storage(self, output: str) -> Path | None:
        """Return the folder of the images from the output of `info`, None if it has none."""
        if self.name == "docker":
            return _absolute(output.strip())
        try:
            tree = json.loads(output)
        except ValueError:
            return None
        match tree:
            case {"store": {"GraphRoot": str(folder)} | {"graphRoot": str(folder)}}:
                return _absolute(folder)
            case _:
                return None

    def inspect(self, image: str) -> list[str]:
        """The command that succeeds if the image is in the tool's storage."""
        if self.name == "buildah":
            return [self.name, "inspect", "--type", "image", image]
        return [self.name, "image", "inspect", image]

    def pull(self, image: str, platform: str | None) -> list[str]:
        """The command that pulls an image."""
        return [self.name, "pull", *_platform(platform), image]

    def build(self, build: Build, containerfile: Path, context: Path) -> list[str]:
        """The command that builds the image."""
        return [
            *(self.name, "build", *self.build_flags, *_platform(build.platform)),
            *(_pairs("--annotation", build.labels) if self.annotates else ()),
            *("--file", str(containerfile), "--tag", build.image, str(context)),
        ]

    def push(self, image: str, digest_file: Path) -> list[str]:
        """The command that pushes the image, and writes or prints its digest."""
        if self.name == "docker":
            return [self.name, "push", image]
        # Weights hardly get smaller, so the speed of unpacking on the nodes counts.
        compression = ("--compression-format", "zstd", "--compression-level", "1")
        return [self.name, "push", *compression, "--digestfile", str(digest_file), image]

    def digest(self, output: str, digest_file: Path) -> str:
        """Return the digest of the pushed image, `sha256:…`. Raises BakeError."""
        text = digest_file.read_text(encoding="utf-8") if digest_file.exists() else output
        digests = re.findall(r"sha256:[0-9a-f]{64}", text)
        if not digests:
            raise BakeError(f"{self.name} push reported no digest; the image is pushed")
        return str(digests[-1])


_REPRODUCIBLE = ("--layers", "--timestamp", EPOCH)

TOOLS = {
    "buildah": Tool("buildah", copies=3, build_flags=_REPRODUCIBLE),
    "podman": Tool("podman", copies=3, build_flags=_REPRODUCIBLE),
    "docker": Tool(
        "docker",
        copies=2,
        build_flags=("--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}"),
        copy_flags=("--link",),
        annotates=False,
        insecure_registries="`insecure-registries` in /etc/docker/daemon.json",
        keeps_times=True,
    ),
}
"""By name, in the order in which they are looked for."""


def _absolute(folder: str) -> Path | None:
    return Path(folder) if folder.startswith("/") else None


def _platform(platform: str | None) -> tuple[str, ...]:
    return ("--platform", platform) if platform else ()


def _pairs(flag: str, values: Mapping[str, str]) -> Iterator[str]:
    for key, value in values.items():
        yield from (flag, f"{key}={value}")
