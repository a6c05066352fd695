"""The command line of `slotkeeper bake`."""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slotkeeper import logs
from slotkeeper.api.model_url import (
    HUB_ENDPOINT,
    bucket_and_key,
    hub_address,
    is_local,
    oci_reference,
)
from slotkeeper.api.split_model import part_count, part_suffix
from slotkeeper.bake.tools import TOOLS
from slotkeeper.download import options as download
from slotkeeper.download.address import host_of, redact, require_allowed, source_id
from slotkeeper.download.errors import DownloadError
from slotkeeper.flags import BakeFlags

BASE = "ghcr.io/ggml-org/llama.cpp:server"
"""llama.cpp's own image for CPUs."""

SCHEMES = "http://, https://, hf://, s3:// or oci://"
"""Of the URLs that can be downloaded."""

EXIT_CODES = """\
example:
  slotkeeper bake --model hf://ORG/REPOSITORY:Q4_K_M --image registry.example.com/team/qwen:1 --push

exit status:
  0    the image is built, and pushed with --push
  1    permanent error: not found, forbidden, wrong checksum, no base image, insufficient storage, …
  2    invalid command line
  75   too many failures of the network or the server; the next run resumes the download
  130  interrupted; the next run resumes the download
  143  stopped by SIGTERM; the next run resumes the download

environment:
  HF_ENDPOINT     hub of hf:// URLs (default: https://huggingface.co)
  XDG_CACHE_HOME  parent of the default of --cache-dir (default: ~/.cache)
"""

_DOMAIN = r"(?:localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(?::[0-9]{1,5})?"
_REPOSITORY = r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
_TAG = r"[a-zA-Z0-9_][-.a-zA-Z0-9_]{0,127}"
_IMAGE = rf"({_DOMAIN}/{_REPOSITORY})(?::{_TAG})?"
_BASE = rf"(?:{_DOMAIN}/)?{_REPOSITORY}(?::{_TAG})?(?:@sha256:[0-9a-f]{{64}})?"
_PLATFORM = "[a-z0-9]+/[a-z0-9]+(?:/[a-z0-9]+)?"


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    image: str
    base: str
    tool: str | None
    """None: the first one that is installed."""
    platform: str | None
    push: bool
    folder: Path
    """For the files of this image, in the cache folder."""
    token_hosts: frozenset[str]
    """Lower-case names of the hosts that may receive the token."""
    download: download.Options

    @property
    def repository(self) -> str:
        """The image without its tag."""
        match = re.fullmatch(_IMAGE, self.image)
        return match[1] if match else self.image


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """Parse the command line. Exits with status 2 if it is invalid."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not re.fullmatch(_IMAGE, arguments.image):
        parser.error(
            f"{BakeFlags.IMAGE} must be REGISTRY/REPOSITORY:TAG, in lower case, such as "
            "registry.example.com/team/qwen:1; for Docker Hub, docker.io/team/qwen:1"
        )
    if not re.fullmatch(_BASE, arguments.base):
        parser.error(f"{BakeFlags.BASE} is not the name of an image: {arguments.base!r}")
    if arguments.platform and not re.fullmatch(_PLATFORM, arguments.platform):
        parser.error(f"{BakeFlags.PLATFORM} must be OS/ARCHITECTURE, such as linux/amd64")
    files = arguments.files
    if not files or files[0]["role"] != "model":
        parser.error("--model is required, before all other files")
    for file in files:
        _require_downloadable(parser, file["url"])
    cache = arguments.cache_dir or _default_cache(environ)
    urls = [redact(file["url"]) for file in files]
    folder = cache / source_id("\n".join(urls))[:16]
    for file in files:
        file["path"] = folder / file_name(file["role"], file["url"])
    hub = environ.get("HF_ENDPOINT") or HUB_ENDPOINT
    hosts = {host_of(file["url"], hub) for file in files} | set(arguments.token_hosts)
    return Options(
        image=arguments.image,
        base=arguments.base,
        tool=arguments.tool,
        platform=arguments.platform,
        push=arguments.push,
        folder=folder,
        token_hosts=frozenset(host.lower() for host in hosts),
        download=download.options_of(parser, arguments),
    )


def _require_downloadable(parser: argparse.ArgumentParser, url: str) -> None:
    """Exit with status 2 for a URL that cannot be downloaded: before the base image is pulled."""
    own = "COPY it with a Containerfile of your own, see examples/model-in-image.yaml"
    if is_local(url):
        parser.error(f"{redact(url)}: only files that can be downloaded; otherwise, {own}")
    scheme = url.partition("://")[0] if "://" in url else ""
    if form := _FORMS.get(scheme):
        pattern, parsed = form[0], form[1](url)
        if parsed is None:
            parser.error(f"{redact(url)} is not of the form {pattern}")
    elif scheme in ("http", "https"):
        try:
            require_allowed(url)
        except DownloadError as error:
            parser.error(error.message)
    else:
        parser.error(
            f"{redact(url)} is not a URL that begins with {SCHEMES}; if it is a local file, {own}"
        )


_FORMS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "hf": ("hf://ORG/REPOSITORY/FILE.gguf or hf://ORG/REPOSITORY:QUANTIZATION", hub_address),
    "s3": ("s3://BUCKET/KEY", bucket_and_key),
    "oci": ("oci://REGISTRY/REPOSITORY:TAG", oci_reference),
}


def file_name(role: str, url: str) -> str:
    """Return the name of a file in the image from its field and its URL: model.gguf, mmproj.gguf
    or adapter-0.gguf. llama-server finds the files of a split model by the end of the name."""
    name = role.removeprefix("model.").replace("adapters[", "adapter-").removesuffix("]")
    return f"{name}{part_suffix(1, part_count(url))}.gguf"


def _default_cache(environ: Mapping[str, str]) -> Path:
    parent = environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache") / "slotkeeper-bake"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "slotkeeper bake",
        description="Build an image that contains a GGUF model, on top of an image of llama-server."
        " The model is downloaded and verified as by `slotkeeper download`, with the same options, "
        "and is one layer of the image. Prints what a LlamaServer needs to use it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    download.set_no_container(parser)
    parser.add_argument(
        BakeFlags.IMAGE,
        required=True,
        metavar="NAME",
        help="name of the new image, REGISTRY/REPOSITORY:TAG",
    )
    parser.add_argument(
        BakeFlags.BASE,
        default=BASE,
        metavar="IMAGE",
        help="image of llama-server (default: %(default)s)",
    )
    parser.add_argument(
        BakeFlags.PLATFORM,
        metavar="OS/ARCHITECTURE",
        help="platform of the nodes, such as linux/amd64 (default: that of this machine)",
    )
    parser.add_argument(
        BakeFlags.TOOL,
        choices=list(TOOLS),
        help="program that builds the image (default: the first one that is installed)",
    )
    parser.add_argument(
        BakeFlags.PUSH,
        action="store_true",
        help="push the image, with the credentials of the tool's own login",
    )
    parser.add_argument(
        BakeFlags.CACHE_DIR,
        type=Path,
        metavar="FOLDER",
        help="folder for downloaded files, which are kept (default: ~/.cache/slotkeeper-bake)",
    )
    download.add_flags(parser, SCHEMES)
    parser.add_argument(
        BakeFlags.TOKEN_HOST,
        dest="token_hosts",
        action="append",
        default=[],
        metavar="HOST",
        help="host that may receive the token besides those in the URLs, such as the server that "
        "issues a registry's tokens; repeatable",
    )
    logs.add_flags(parser)
    return parser
