"""Serve models as the files of one repository of a hub, to requests with a token.

    python hub.py FILES_URL TOKEN NAME=PATH...

It listens on port 8080. FILES_URL is another URL of it, to which it redirects for the files.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fake_hub import fake_hub

PORT = 8080


def main(files_url: str, token: str, files: Sequence[str]) -> None:
    """Serve until the process ends."""
    with fake_hub("0.0.0.0", PORT, files_url) as hub:
        hub.token = token
        named = (file.partition("=") for file in files)
        hub.push({name: Path(path).read_bytes() for name, _, path in named})
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
