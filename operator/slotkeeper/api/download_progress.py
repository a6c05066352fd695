"""The progress of a download, which its container serves as JSON. No pydantic: the downloader
writes it."""

from typing import Literal

PATH = "/progress"
MAX_BYTES = 2048
"""Of a response's body."""

Phase = Literal["Checking", "Downloading", "Verifying", "Waiting"]
"""What a download does: it resolves and requests a file, or receives it, or reads a file that is in
place, or waits for another pod that downloads the same file to the same volume."""
