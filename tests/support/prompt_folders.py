"""The folder of a replica's prompt files in a test, with its time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prompt_states import COMPATIBLE, HOUR_NS, IDENTITY, SECOND_NS, name, state, write_part
from slotkeeper.node_folder import Limits
from slotkeeper.prompt_files.folder import Folder, Removals
from slotkeeper.prompt_files.record import Content
from slotkeeper.prompt_files.storage import Storage

NOW = 1000 * HOUR_NS
LIMITS = Limits(10**9, 0)


@dataclass
class PromptFolder:
    """A folder, and the agents of one identity."""

    root: Path
    now: int = NOW
    limits: Limits = LIMITS
    identity: str = IDENTITY
    model: str = ""
    storages: list[Storage] = field(default_factory=list)
    sleep: Callable[[float], None] = lambda _: None

    @property
    def path(self) -> Path:
        """The folder of the identity."""
        return self.root / self.identity

    @property
    def files(self) -> set[str]:
        """Names of the files of the identity, without its mark."""
        return {each.name for each in self.path.iterdir()} - {".used"}

    def folder(self) -> Folder:
        """A further agent of the identity."""
        self.storages.append(Storage(self.root, self.sleep))
        return Folder(self.storages[-1], self.identity, self.limits, lambda: self.model)

    def prepare(self) -> Folder:
        """An agent whose folder has been prepared."""
        folder = self.folder()
        folder.prepare(self.now)
        return folder

    def save(
        self,
        number: int,
        content: bytes = b"",
        *,
        tokens: int = 10,
        part: str = "",
        once: bool = False,
    ) -> Removals:
        """Save a slot to a file, a second after the one before."""
        content = content or state(tokens)
        part = part or f"{name(number)}.part"
        write_part(self.path, part, content, self.now)
        return self.commit(number, content, tokens=tokens, part=part, once=once)

    def commit(
        self,
        number: int,
        content: bytes,
        *,
        tokens: int = 10,
        part: str = "",
        once: bool = False,
    ) -> Removals:
        """Commit what has been written."""
        self.now += SECOND_NS
        part = part or f"{name(number)}.part"
        stated = Content(len(content), tokens, (1,), COMPATIBLE)
        return self.folder().commit(part, name(number), stated, self.now, once=once)

    def use(self, number: int, is_given_up: Callable[[], bool] = lambda: False) -> int:
        """Read a file, a second after what was done before."""
        self.now += SECOND_NS
        return self.folder().use(name(number), self.now, is_given_up)

    def listed(self) -> list[int]:
        """Numbers of the files that can be restored, the last used first."""
        return [int(file.name, 16) for file in self.folder().list().files]

    def close(self) -> None:
        for each in self.storages:
            each.close()
