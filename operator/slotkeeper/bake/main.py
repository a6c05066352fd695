"""`slotkeeper bake`: build an image with a model in it."""

import json
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from slotkeeper import logs
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.bake import commands
from slotkeeper.bake.errors import BakeError
from slotkeeper.bake.labels import BakedFile, baked_file, labels
from slotkeeper.bake.options import Options, parse
from slotkeeper.bake.tools import EPOCH, MODELS_FOLDER, TOOLS, Build, Tool
from slotkeeper.download.download import download_all
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.lock import file_lock
from slotkeeper.download.main import EXIT_FAILURE, EXIT_RETRY, EXIT_STOPPED, environment_of
from slotkeeper.download.redaction import Redaction
from slotkeeper.download.storage import free_bytes
from slotkeeper.download.token import Token, read_value
from slotkeeper.error_text import describe
from slotkeeper.flags import BakeFlags, DownloadFlags
from slotkeeper.llamacpp.gguf import GgufMetadata, read_metadata

EXIT_INTERRUPTED = 130

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Download the files, build the image, push it. --help describes the exit status."""
    options = parse(argv)
    logs.configure(options.download.log_format, options.download.log_level)
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        with Redaction(options.download.secret_files).of_logs():
            return _bake_and_report(options)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _bake_and_report(options: Options) -> int:
    """Return the exit status."""
    try:
        print(_bake(options), end="")
    except DownloadError as error:
        log.error("%s: %s%s", error.reason, error.message, _flags_for(error.message))
        return EXIT_RETRY if error.transient else EXIT_FAILURE
    except BakeError as error:
        log.error("%s", error)
        return EXIT_FAILURE
    except OSError as error:
        log.error("%s: %s", error.filename or options.folder, describe(error))
        return EXIT_FAILURE
    except (KeyboardInterrupt, _Stopped) as error:
        log.error(
            "interrupted; run the same command again to continue: downloaded files are in %s",
            options.folder,
        )
        return EXIT_STOPPED if isinstance(error, _Stopped) else EXIT_INTERRUPTED
    return 0


def _bake(options: Options) -> str:
    """Bake the image; return what to put into the LlamaServer, as YAML."""
    tool = _tool(options)
    storage = tool.storage(commands.output(tool.info()))
    _require_base(tool, options)
    options.folder.mkdir(parents=True, exist_ok=True)
    with file_lock(options.folder / ".bake.lock"):
        files = _download(options, tool, storage)
        _require_space(tool, storage, sum(file.size for file in files))
        image = _build(options, tool, files)
    return _fields(image, files)


def _tool(options: Options) -> Tool:
    names = [options.tool] if options.tool else list(TOOLS)
    for name in names:
        if shutil.which(name):
            return TOOLS[name]
    raise BakeError(
        f"no {' or '.join(names)} on the PATH: install one of them, such as buildah with "
        f"`apt-get install buildah`, or name another one with {BakeFlags.TOOL}"
    )


def _require_base(tool: Tool, options: Options) -> None:
    """Pull the base image unless it is there already, before gigabytes are downloaded."""
    # A local image may be of another platform.
    if options.platform is None and commands.succeeds(tool.inspect(options.base)):
        return
    try:
        commands.run(tool.pull(options.base, options.platform))
    except BakeError as error:
        raise BakeError(
            f"no base image {options.base}: {error}; name an image of llama-server with "
            f"{BakeFlags.BASE}, or {_access(tool, error)}"
        ) from None


def _download(options: Options, tool: Tool, storage: Path | None) -> Sequence[BakedFile]:
    token = None
    if options.download.token_file:
        value = read_value(options.download.token_file)
        token = Token(value, options.token_hosts, options.download.allow_http_token)
    one_disk = storage is not None and _same_disk(options.folder, storage)
    share = 1 + tool.copies if one_disk else 1
    with environment_of(options.download, token) as environment:
        # Before the first byte: the files must fit several times.
        limits = replace(environment.limits, free_bytes=lambda folder: free_bytes(folder) // share)
        try:
            download_all(options.download.files, replace(environment, limits=limits))
        except DownloadError as error:
            if error.reason != Reason.INSUFFICIENT_STORAGE:
                raise
            raise BakeError(
                f"{error.message}; {_space(tool, storage)}, so that only 1/{share} of the free "
                f"bytes counts: free some, or choose another disk with {BakeFlags.CACHE_DIR}"
            ) from error
    return [baked_file(file) for file in options.download.files]


def _require_space(tool: Tool, storage: Path | None, size: int) -> None:
    if storage is None or not storage.exists():
        return  # on another machine, such as the virtual machine of Docker Desktop
    free = free_bytes(storage)
    if free < tool.copies * size:
        raise BakeError(
            f"insufficient storage: {_space(tool, storage)}, {tool.copies * size} bytes, but "
            f"{free} are free: remove images with `{tool.name} rmi`, and run this command again"
        )


def _space(tool: Tool, storage: Path | None) -> str:
    return (
        f"{tool.name} needs {tool.copies} times the size of the files while it builds"
        f"{f' in {storage}' if storage else ''}, besides the downloaded files"
    )


def _same_disk(one: Path, other: Path) -> bool:
    return other.exists() and one.stat().st_dev == other.stat().st_dev


def _build(options: Options, tool: Tool, files: Sequence[BakedFile]) -> str:
    """Build the image; push it if requested. Return its name, with the digest if it is known."""
    names = [name for file in files for name in file.names]
    if tool.keeps_times:
        for name in names:
            _set_time(options.folder / name)
    model = options.folder / files[0].names[0]
    build = Build(
        image=options.image,
        base=options.base,
        platform=options.platform,
        files=names,
        labels=labels(files, options.base, _metadata(model)),
    )
    with tempfile.TemporaryDirectory() as folder:
        containerfile = Path(folder) / "Containerfile"
        containerfile.write_text(tool.containerfile(build), encoding="utf-8")
        commands.run(tool.build(build, containerfile, options.folder))
        size = sum(file.size for file in files)
        log.info("built %s: %d bytes of models on %s", options.image, size, options.base)
        if not options.push:
            log.info("not pushed: `%s push %s` does it", tool.name, options.image)
            return options.image
        digest_file = Path(folder) / "digest"
        try:
            printed = commands.run(tool.push(options.image, digest_file))
        except BakeError as error:
            raise BakeError(
                f"{error}; the image is built: {_access(tool, error)}, and run this command again"
            ) from None
        return f"{options.repository}@{tool.digest(printed, digest_file)}"


def _access(tool: Tool, error: BakeError) -> str:
    """Return what gives access to a registry that a command has failed for."""
    if any(text in str(error) for text in _NO_TLS):
        return f"allow the registry without TLS ({tool.insecure_registries}), or use one with TLS"
    return f"log in to the registry with `{tool.name} login`"


_NO_TLS = ("server gave HTTP response to HTTPS client", "first record does not look like a TLS")
"""What the programs, which are written in Go, print if a registry responds without TLS."""


def _set_time(path: Path) -> None:
    """Set the modification time. The next run then verifies the file once more, since its record
    has the old one; it is not set again."""
    if path.stat().st_mtime_ns != int(EPOCH):
        os.utime(path, ns=(int(EPOCH), int(EPOCH)))


def _metadata(path: Path) -> GgufMetadata:
    with path.open("rb") as file:
        return read_metadata(file)


def _fields(image: str, files: Sequence[BakedFile]) -> str:
    """Return the fields of the LlamaServer's spec.

    As a patch they remove the SHA-256 of a server, which a file in an image must not have.
    """
    urls = {file.field: f"image://{MODELS_FOLDER}/{file.names[0]}" for file in files}
    lines = ["spec:", f"  image: {image}", "  model:", f"    url: {urls.pop('model')}"]
    lines += ["    sha256: null", "    partsSha256: null"]
    if mmproj := urls.pop("mmproj", None):
        lines.append(f"    mmproj: {{url: {json.dumps(mmproj)}, sha256: null}}")
    if urls:
        lines.append("    adapters:")
        lines.extend(f"      - url: {url}" for url in urls.values())
    return "\n".join(lines) + "\n"


def _flags_for(message: str) -> str:
    """Return the flags for the fields of a LlamaServer that a message of the download names."""
    flags = [flag for field, names in _FLAGS.items() if field in message for flag in names]
    verb = "flag for this is" if len(flags) == 1 else "flags for this are"
    return f"; the {verb} {' and '.join(flags)}" if flags else ""


_FLAGS = {
    "tokenSecretRef": (DownloadFlags.TOKEN_FILE, BakeFlags.TOKEN_HOST),
    "maxFileSize": (DownloadFlags.MAX_FILE_BYTES,),
    "s3.secretRef": (DownloadFlags.S3_CREDENTIALS,),
    "s3.region": (DownloadFlags.S3_REGION,),
    "caConfigMapRef": (DownloadFlags.CA_FILE,),
    "oci.plainHttp": (DownloadFlags.PLAIN_HTTP_REGISTRIES,),
}


class _Stopped(BaseException):
    """SIGTERM."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _Stopped
