"""The command line of `slotkeeper download`."""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from slotkeeper import flags, logs
from slotkeeper.api.split_model import part_count
from slotkeeper.download.download import RetryPolicy
from slotkeeper.download.files import File
from slotkeeper.download.sources.s3 import ENTRIES
from slotkeeper.download.storage import MAX_FILE_BYTES
from slotkeeper.flags import DownloadFlags

SCHEMES = "http://, https://, hf://, s3://, oci:// or pvc://"

EXIT_CODES = """\
exit status:
  0    all files are in place and verified
  1    permanent error: not found, forbidden, wrong checksum, not GGUF, insufficient storage, …
  2    invalid command line
  75   too many failures of the network or the server; the next start resumes the download
  143  stopped by SIGTERM; the next start resumes the download

environment:
  HF_ENDPOINT  hub of hf:// URLs (default: https://huggingface.co)
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY
               proxies, and hosts that are connected to without them (default: none)
  SLOTKEEPER_CA_CERTIFICATES
               certificates of private authorities in PEM format, besides those of --ca-file
"""


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    files: Sequence[File]
    """The model is the first, unless it is in llama-server's image."""
    token_file: Path | None
    token_hosts_file: Path | None
    allow_http_token: bool
    s3_endpoint: str | None
    s3_region: str
    s3_virtual_hosts: bool
    s3_credentials: Path | None
    s3_session_token: Path | None
    plain_http_registries: bool
    ca_file: Path | None
    ca_config_map: str | None
    """What the file is from, for messages: NAME/ENTRY."""
    guarded_namespace: str | None
    """None to connect to any address."""
    allowed_addresses: tuple[str, ...]
    trusted_proxies: frozenset[str]
    max_file_bytes: int
    max_total_bytes: int | None
    always_verify: bool
    inspect: bool
    node_cache: Path | None
    tries: int
    termination_log: Path
    progress_port: int | None
    log_format: str
    log_level: str

    @property
    def secret_files(self) -> Iterator[Path]:
        """The files with what no message may contain."""
        if self.token_file:
            yield self.token_file
        if self.s3_credentials:
            yield from (self.s3_credentials / name for name in ENTRIES if name != "hosts")
        if self.s3_session_token:
            yield self.s3_session_token


def parse(argv: Sequence[str]) -> Options:
    """Parse the command line. Exits with status 2 if it is invalid."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for file in arguments.files:
        if "path" not in file:
            parser.error(f"{file['role']} requires --to")
    if (arguments.token_file is None) != (arguments.token_hosts_file is None):
        parser.error("--token-file and --token-hosts-file require each other")
    return options_of(parser, arguments)


def options_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Options:
    """Return the options, in which each file has a path. Exits with status 2 if they are
    invalid."""
    files: list[dict[str, Any]] = arguments.files
    roles = [file["role"] for file in files]
    if not roles:
        parser.error("at least one file is required")
    if "model" in roles[1:]:
        parser.error("at most one --model is allowed, before all other files")
    for role, flag in _AT_MOST_ONE.items():
        if roles.count(role) > 1:
            parser.error(f"at most one {flag} is allowed")
    for file in files:
        _require_parts(parser, file)
    return Options(
        files=[File(**file) for file in files],
        token_file=arguments.token_file,
        token_hosts_file=arguments.token_hosts_file,
        allow_http_token=arguments.allow_http_token,
        s3_endpoint=arguments.s3_endpoint,
        s3_region=arguments.s3_region,
        s3_virtual_hosts=arguments.s3_virtual_hosts,
        s3_credentials=arguments.s3_credentials,
        s3_session_token=arguments.s3_session_token,
        plain_http_registries=arguments.plain_http_registries,
        ca_file=arguments.ca_file,
        ca_config_map=arguments.ca_config_map,
        guarded_namespace=arguments.address_guard,
        allowed_addresses=tuple(arguments.allowed_addresses),
        trusted_proxies=frozenset(arguments.trusted_proxy),
        max_file_bytes=arguments.max_file_bytes,
        max_total_bytes=arguments.max_total_bytes,
        always_verify=arguments.always_verify,
        inspect=arguments.inspect,
        node_cache=arguments.node_cache,
        tries=arguments.tries,
        termination_log=arguments.termination_log,
        progress_port=arguments.progress_port,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
    )


_AT_MOST_ONE = {
    "model.mmproj": DownloadFlags.MMPROJ,
    "speculative.draft": DownloadFlags.DRAFT,
}


def _require_parts(parser: argparse.ArgumentParser, file: dict[str, Any]) -> None:
    count = part_count(file["url"])
    if part_count(file["path"].name) != count:
        parser.error(f"{file['role']}: --to must have the ending of the URL of a split model")
    if "parts_sha256" in file and len(file["parts_sha256"]) != count:
        parser.error(f"{file['role']}: --parts-sha256 must have a value for each of {count} files")
    if "sha256" in file and count > 1:
        parser.error(f"{file['role']}: a split model requires --parts-sha256, not --sha256")


class _AddFile(argparse.Action):
    """Adds a file; the options up to the next URL apply to it."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        role = _ROLES.get(self.dest, f"model.{self.dest}")
        if self.dest == "adapters":
            role += f"[{sum(file['role'].startswith(role) for file in namespace.files)}]"
        namespace.files.append({"role": role, "url": values})


_ROLES = {"model": "model", "draft": "speculative.draft"}


class _SetOfFile(argparse.Action):
    """Sets an option of the last file."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if not namespace.files or self.dest in namespace.files[-1]:
            parser.error(f"{option_string} must follow the URL of its file, at most once")
        namespace.files[-1][self.dest] = self.const or values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "slotkeeper download",
        description="Download a GGUF model with its projector, adapters and draft. Resumes "
        "interrupted downloads, verifies each file, renames it into place, and reports the "
        "model's metadata. Files of pvc:// URLs are verified at their target paths, and not "
        "written.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    parser.add_argument(
        DownloadFlags.TO,
        action=_SetOfFile,
        default=argparse.SUPPRESS,
        dest="path",
        type=Path,
        metavar="PATH",
        help="target path of the preceding file; of a split model, with the ending of its URL, "
        "such as -00001-of-00003.gguf",
    )
    parser.add_argument(
        DownloadFlags.DRAFT,
        action=_AddFile,
        metavar="URL",
        default=argparse.SUPPRESS,
        help="URL of its draft model",
    )
    parser.add_argument(
        DownloadFlags.SAME_VOCABULARY,
        action=_SetOfFile,
        nargs=0,
        const=True,
        default=argparse.SUPPRESS,
        help="reject the preceding file if it has another vocabulary than the model",
    )
    parser.add_argument(
        DownloadFlags.TOKEN_HOSTS_FILE,
        type=Path,
        metavar="PATH",
        help="file with the names of the hosts that may receive the token, separated by spaces, "
        "commas or new lines",
    )
    parser.add_argument(
        DownloadFlags.CA_CONFIG_MAP,
        metavar="NAME/ENTRY",
        help=f"ConfigMap that {DownloadFlags.CA_FILE} is from, for messages (default: none)",
    )
    parser.add_argument(
        DownloadFlags.TERMINATION_LOG,
        type=Path,
        metavar="PATH",
        default=Path("/dev/termination-log"),
        help="existing file for the result as JSON: the model's metadata, or the reason of the "
        "failure (default: %(default)s)",
    )
    parser.add_argument(
        DownloadFlags.PROGRESS_PORT,
        type=_port,
        metavar="PORT",
        help="port for GET /progress: bytes, speed and time left as JSON (default: none)",
    )
    parser.add_argument(
        DownloadFlags.INSPECT,
        action="store_true",
        help="download no files, only read their headers, and report the sizes on which "
        "llama-server's memory depends",
    )
    parser.add_argument(
        DownloadFlags.NODE_CACHE,
        type=Path,
        metavar="FOLDER",
        help="folder of the targets that an agent of the node keeps within limits, which are in a "
        "file in it: mark the files as used, and request room from it (default: none)",
    )
    logs.add_flags(parser)
    return parser


def set_no_container(parser: argparse.ArgumentParser) -> None:
    """Set the options of an init container, for a command that has no flags for them."""
    parser.set_defaults(
        token_hosts_file=None,
        termination_log=Path(os.devnull),
        progress_port=None,
        inspect=False,
        node_cache=None,
        ca_config_map=None,
    )


def add_flags(parser: argparse.ArgumentParser, schemes: str = SCHEMES) -> None:
    """Add the flags of files and of their sources, which `slotkeeper bake` has too."""
    parser.set_defaults(files=[])
    url: dict[str, Any] = {"action": _AddFile, "metavar": "URL", "default": argparse.SUPPRESS}
    parser.add_argument(
        DownloadFlags.MODEL,
        **url,
        help=f"{schemes} URL of the model",
    )
    parser.add_argument(DownloadFlags.MMPROJ, **url, help="URL of its multimodal projector")
    parser.add_argument(DownloadFlags.ADAPTER, dest="adapters", **url, help="URL of a LoRA adapter")
    of_file: dict[str, Any] = {"action": _SetOfFile, "default": argparse.SUPPRESS}
    parser.add_argument(
        DownloadFlags.SHA256,
        **of_file,
        type=_sha256,
        metavar="HEX",
        help="expected SHA-256 of the preceding file",
    )
    parser.add_argument(
        DownloadFlags.PARTS_SHA256,
        **of_file,
        type=_several_sha256,
        metavar="HEX,HEX…",
        help="expected SHA-256 of each file of the preceding split model, whose first file its URL "
        "names",
    )
    add_source_flags(parser)
    parser.add_argument(
        DownloadFlags.MAX_FILE_BYTES,
        type=flags.positive,
        metavar="BYTES",
        default=MAX_FILE_BYTES,
        help="maximum size of each file (default: %(default)s)",
    )
    parser.add_argument(
        DownloadFlags.MAX_TOTAL_BYTES,
        type=flags.positive,
        metavar="BYTES",
        help="maximum size of all files together, which is checked before they are downloaded "
        "(default: no limit)",
    )
    parser.add_argument(
        DownloadFlags.ALWAYS_VERIFY,
        action="store_true",
        help="read and verify existing files even if they seem unchanged",
    )


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of sources, which `slotkeeper plan` has too."""
    parser.add_argument(
        DownloadFlags.TOKEN_FILE,
        type=Path,
        metavar="PATH",
        help="file with a bearer token for the hosts of all URLs",
    )
    parser.add_argument(
        DownloadFlags.ALLOW_HTTP_TOKEN,
        action="store_true",
        help="send the token by http:// too, to hosts that end with .svc or .svc.cluster.local",
    )
    parser.add_argument(
        DownloadFlags.S3_ENDPOINT,
        metavar="URL",
        help="object store of s3:// URLs (default: that of AWS in the region)",
    )
    parser.add_argument(
        DownloadFlags.S3_REGION,
        metavar="NAME",
        default="us-east-1",
        help="region of the object store, for signatures (default: %(default)s)",
    )
    parser.add_argument(
        DownloadFlags.S3_VIRTUAL_HOSTS,
        action="store_true",
        help="put the bucket into the host name instead of the path",
    )
    parser.add_argument(
        DownloadFlags.S3_CREDENTIALS,
        type=Path,
        metavar="FOLDER",
        help="folder with the files AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and hosts, the hosts "
        "that the access key may be used for (default: requests are not signed)",
    )
    parser.add_argument(
        DownloadFlags.S3_SESSION_TOKEN,
        type=Path,
        metavar="PATH",
        help="file with the session token of a temporary access key; it may be missing",
    )
    parser.add_argument(
        DownloadFlags.PLAIN_HTTP_REGISTRIES,
        action="store_true",
        help="access registries of oci:// URLs by http:// if their names end with .svc or "
        ".svc.cluster.local",
    )
    parser.add_argument(
        DownloadFlags.CA_FILE,
        type=Path,
        metavar="PATH",
        help="file with certificates of private authorities in PEM format",
    )
    parser.add_argument(
        DownloadFlags.ADDRESS_GUARD,
        metavar="NAMESPACE",
        help="connect to public addresses only, and to Services of this namespace (default: to any "
        "address)",
    )
    parser.add_argument(
        DownloadFlags.ALLOWED_ADDRESSES,
        type=flags.cidr,
        action="append",
        default=[],
        metavar="CIDR",
        help=f"private addresses that {DownloadFlags.ADDRESS_GUARD} allows too; repeatable",
    )
    parser.add_argument(
        DownloadFlags.TRUSTED_PROXY,
        action="append",
        default=[],
        metavar="URL",
        help="proxy that may have any address, if HTTP_PROXY or HTTPS_PROXY is this one; "
        "repeatable",
    )
    parser.add_argument(
        DownloadFlags.TRIES,
        type=int,
        metavar="N",
        default=RetryPolicy.tries,
        help="consecutive tries without progress before the download fails (default: %(default)s)",
    )


def _port(text: str) -> int:
    port = flags.count(text)
    if port > flags.MAX_PORT:
        raise argparse.ArgumentTypeError(f"must be {flags.MAX_PORT} or less")
    return port


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("expected 64 hex digits")
    return text.lower()


def _several_sha256(text: str) -> tuple[str, ...]:
    return tuple(map(_sha256, text.split(",")))
