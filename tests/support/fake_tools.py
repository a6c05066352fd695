"""Programs in place of docker, podman and buildah."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = """\
#!{python}
import json, pathlib, sys, time
folder = pathlib.Path({folder!r})
arguments = sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([pathlib.Path(sys.argv[0]).name, *arguments]) + "\\n")
if "--file" in arguments:
    text = pathlib.Path(arguments[arguments.index("--file") + 1]).read_text()
    (folder / "containerfile").write_text(text)
failures = json.loads((folder / "failures").read_text())
key = "inspect" if "inspect" in arguments else arguments[0]
if key in failures:
    if failures[key] is None:
        print("started", flush=True)
        (folder / "started").touch()
        time.sleep(60)
    print("first line", file=sys.stderr)
    print(failures[key], file=sys.stderr)
    sys.exit(125)
if key == "info":
    print((folder / "info").read_text())
if "--digestfile" in arguments:
    pathlib.Path(arguments[arguments.index("--digestfile") + 1]).write_text("sha256:" + 64 * "d")
elif key == "push":
    print("1: digest: sha256:" + 64 * "d" + " size: 1234")
"""


@dataclass
class FakeTools:
    """Programs in place of docker, podman and buildah, which record their arguments."""

    folder: Path

    def install(self, *names: str) -> None:
        """Put programs with these names on the PATH."""
        program = PROGRAM.format(python=sys.executable, folder=str(self.folder))
        for name in names:
            path = self.folder / "bin" / name
            path.write_text(program)
            path.chmod(0o755)

    def fail(self, **failures: str | None) -> None:
        """Let commands fail with a message, or hang if it is None."""
        (self.folder / "failures").write_text(json.dumps(failures))

    def stored_in(self, info: str) -> None:
        """Set what `info` prints."""
        (self.folder / "info").write_text(info)

    @property
    def calls(self) -> list[list[str]]:
        calls = self.folder / "calls"
        return (
            [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
        )

    def call(self, command: str) -> list[str]:
        """The only call of a command."""
        [call] = [call for call in self.calls if call[1] == command]
        return call

    @property
    def containerfile(self) -> str:
        """The text of the last Containerfile."""
        return (self.folder / "containerfile").read_text()
