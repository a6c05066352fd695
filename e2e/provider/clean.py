"""Removes everything that e2e/cluster created on this machine."""

import shutil
import subprocess
from pathlib import Path

from provider.images import RUN
from provider.kind import Kind
from provider.namespaces import mounted_below
from provider.native import Native
from provider.paths import RUN_DIRECTORY, ClusterPaths, cache, state_directory
from provider.prerequisites import installed
from provider.progress import print_progress


def clean() -> None:
    """Take all clusters down and remove their state, the built images and the built programs."""
    bases = (RUN_DIRECTORY, state_directory())
    names = {folder.name for base in bases for folder in _folders(base)}
    for name in sorted(names):
        paths = ClusterPaths(name)
        kind = Kind(paths)
        print_progress(f"taking down cluster {name}")
        if kind.exists():
            kind.down()
        else:
            Native(paths).down()
    if packages := installed():
        # Other software on the machine may depend on them by now.
        purge = f"apt-get purge {' '.join(packages)}"
        print_progress(f"keeping installed Debian packages; to remove them: {purge}")
    for folder in (cache(), RUN):
        if folder.exists():
            for mount in reversed(mounted_below(folder)):
                subprocess.run(["umount", "--lazy", mount], check=True)
            shutil.rmtree(folder)


def _folders(base: Path) -> list[Path]:
    return [folder for folder in base.iterdir() if folder.is_dir()] if base.exists() else []
