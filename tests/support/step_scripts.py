"""Runs the steps of images/aws-image-builder with programs in place of those of a node."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "images/aws-image-builder"
STEPS = FOLDER / "steps"

BASICS = (
    *("bash", "sh", "mkdir", "touch", "rm", "head", "tr", "grep", "sort", "wc", "dirname", "cat"),
    *("sed", "mktemp", "base64", "sleep", "install", "stat", "sha256sum", "env"),
)
"""What each Linux has. Nothing else is on the PATH of a step."""


@dataclass
class Node:
    """A machine: a folder with its programs."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Link the basic programs."""
        self.bin.mkdir(parents=True)
        for name in BASICS:
            [path] = [
                each for each in map(Path, (f"/usr/bin/{name}", f"/bin/{name}")) if each.exists()
            ][:1]
            (self.bin / name).symlink_to(path)

    @property
    def bin(self) -> Path:
        """The only folder of the PATH."""
        return self.folder / "bin"

    @property
    def calls(self) -> Sequence[str]:
        """The calls of the installed programs, each as one line."""
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []

    def install(self, name: str, script: str = "") -> None:
        """Install a program that records its calls, and runs this text in bash."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>{self.folder}/calls\n{script}\n')
        path.chmod(0o755)

    def link(self, path: str) -> None:
        """Install a real program."""
        (self.bin / Path(path).name).symlink_to(path)

    def run(self, step: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a step, as Image Builder does: with bash, as a file."""
        variables: Mapping[str, str] = {
            "PATH": str(self.bin),
            "HOME": os.environ["HOME"],
            **self.environment,
            **environment,
        }
        return subprocess.run(
            ["/bin/bash", str(STEPS / f"{step}.sh")],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
