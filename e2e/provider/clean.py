"""The end of everything that e2e/cluster ever made on this machine."""

import shutil
import subprocess
from pathlib import Path

from provider.images import RUN
from provider.kind import Kind
from provider.namespaces import mounted_below
from provider.native import Native
from provider.places import RUNNING, Place, cache, states
from provider.prerequisites import installed
from provider.progress import say


def clean() -> None:
    """Take all clusters down, and remove their states, our images and the programs."""
    names = {folder.name for base in (RUNNING, states()) for folder in _folders(base)}
    for name in sorted(names):
        place = Place(name)
        kind = Kind(place)
        say(f"taking {name} down")
        if kind.exists():
            kind.down()
        else:
            Native(place).down()
    if packages := installed():
        # Other things on the machine may have begun to stand on them.
        say(f"Debian packages stay; if nothing needs them: apt-get purge {' '.join(packages)}")
    for folder in (cache(), RUN):
        if folder.exists():
            for mount in reversed(mounted_below(folder)):
                subprocess.run(["umount", "--lazy", mount], check=True)
            shutil.rmtree(folder)


def _folders(base: Path) -> list[Path]:
    return [folder for folder in base.iterdir() if folder.is_dir()] if base.exists() else []
