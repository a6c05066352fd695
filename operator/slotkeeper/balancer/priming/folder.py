"""The ConfigMap with beginnings, mounted as a folder."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from slotkeeper.api.primed_prompts import PromptKind, SpecPrompt
from slotkeeper.balancer.priming.beginnings import MAX_BYTES, Beginning, from_source
from slotkeeper.edge.mounted_folder import Signature, signature_of
from slotkeeper.error_text import describe

MAX_FILES = 32
_CHECK_SECONDS = 1.0

Found = dict[str, Beginning | str]
"""By the key: a beginning, or why there is none."""


class PromptFolder:
    """Calls `on_change` with what is in the folder, and with why nothing can be read."""

    def __init__(self, path: Path, on_change: Callable[[Found, str], None]) -> None:
        self._path = path
        self._on_change = on_change
        self._signature: Signature | None = None
        self._problem: str | None = None

    async def watch(self) -> None:
        """Check for changes every second. Never returns."""
        while True:
            await self.check()
            await asyncio.sleep(_CHECK_SECONDS)

    async def check(self) -> None:
        """Check for changes once. Disk I/O runs in a thread, not in the event loop."""
        try:
            signature, found = await asyncio.to_thread(
                _read_if_changed, self._path, self._signature
            )
        except OSError as error:
            self._signature = None
            problem = describe(error)
            if problem != self._problem:
                self._problem = problem
                self._on_change({}, problem)
            return
        self._signature = signature
        self._problem = None
        if found is not None:
            self._on_change(found, "")


def _read_if_changed(path: Path, last: Signature | None) -> tuple[Signature, Found | None]:
    # Taken before the files are read: a change in between is then detected by the next check.
    signature = signature_of(path)
    if signature == last:
        return signature, None
    found: Found = {}
    for name, *_ in signature:
        key = f"key {name}"
        if len(found) == MAX_FILES:
            found[key] = f"only the first {MAX_FILES} keys are used"
            break
        try:
            found[key] = from_source(key, _read(path / name))
        except ValueError as error:
            found[key] = str(error)
    return signature, found


def _read(path: Path) -> SpecPrompt:
    """Return the content of a file. Raises ValueError with the reason."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    is_chat = path.name.endswith(".json")
    return SpecPrompt(PromptKind.CHAT if is_chat else PromptKind.TEXT, text)
