"""The command line of `slotkeeper download`: which files, and where to."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from slotkeeper import logs
from slotkeeper.download.download import File, RetryPolicy
from slotkeeper.flags import DownloadFlags

EXIT_CODES = """\
exit status:
  0    all files are in place and checked
  1    one cannot be had like this: not found, forbidden, wrong checksum, no GGUF, no room, …
  2    the command line is wrong
  75   the network or the server failed too often; a later start goes on where this one ended
  143  stopped by SIGTERM; a later start goes on where this one ended
"""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    files: Sequence[File]
    """The model first."""
    token_file: Path | None
    tries: int
    termination_log: Path
    log_format: str
    log_level: str


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; one that is wrong ends the process with status 2."""
    parser = _parser()
    said = parser.parse_args(argv)
    files: list[dict[str, Any]] = said.files
    roles = [file["role"] for file in files]
    if roles.count("model") != 1 or roles[0] != "model":
        parser.error("there must be one --model, before all other files")
    if roles.count("model.mmproj") > 1:
        parser.error("there must not be more than one --mmproj")
    for file in files:
        if "path" not in file:
            parser.error(f"{file['role']} must have a --to")
    return Options(
        files=[File(**file) for file in files],
        token_file=said.token_file,
        tries=said.tries,
        termination_log=said.termination_log,
        log_format=said.log_format,
        log_level=said.log_level,
    )


class _Begin(argparse.Action):
    """A URL begins a file; what follows, up to the next URL, is about this one."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        role = f"model.{self.dest}" if self.dest != "model" else self.dest
        if self.dest == "adapters":
            role += f"[{sum(file['role'].startswith(role) for file in namespace.files)}]"
        namespace.files.append({"role": role, "url": values})


class _OfFile(argparse.Action):
    """Says something of the file that began last."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if not namespace.files or self.dest in namespace.files[-1]:
            parser.error(f"{option_string} must follow the URL that it is for, once")
        namespace.files[-1][self.dest] = values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "slotkeeper download",
        description="Download a GGUF model and what belongs to it, resuming after breaks; check "
        "each file; put it in place; say what the model is.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(files=[])
    url: dict[str, Any] = {"action": _Begin, "metavar": "URL", "default": argparse.SUPPRESS}
    parser.add_argument(DownloadFlags.MODEL, **url, help="http:// or https:// URL of the model")
    parser.add_argument(DownloadFlags.MMPROJ, **url, help="URL of its projector")
    parser.add_argument(DownloadFlags.ADAPTER, dest="adapters", **url, help="URL of a LoRA adapter")
    about: dict[str, Any] = {"action": _OfFile, "default": argparse.SUPPRESS}
    parser.add_argument(
        DownloadFlags.SHA256,
        **about,
        type=_sha256,
        metavar="HEX",
        help="what the sha256 of the file before must be",
    )
    parser.add_argument(
        DownloadFlags.TO,
        **about,
        dest="path",
        type=Path,
        metavar="PATH",
        help="where the file before is to be",
    )
    parser.add_argument(
        DownloadFlags.TOKEN_FILE,
        type=Path,
        metavar="PATH",
        help="file with a bearer token for the hosts of all URLs",
    )
    parser.add_argument(
        DownloadFlags.TRIES,
        type=int,
        metavar="N",
        default=RetryPolicy.tries,
        help="tries in a row without a new byte before giving up (default: %(default)s)",
    )
    parser.add_argument(
        DownloadFlags.TERMINATION_LOG,
        type=Path,
        metavar="PATH",
        default=Path("/dev/termination-log"),
        help="existing file that gets as JSON what the model is, or the reason of a failure "
        "(default: %(default)s)",
    )
    logs.add_flags(parser)
    return parser


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("expected 64 hex digits")
    return text.lower()
