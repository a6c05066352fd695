"""Programs that a tested script calls."""

from pathlib import Path


def program(path: Path, script: str) -> None:
    """Write a program that runs this text in sh, in place of one that may exist."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
