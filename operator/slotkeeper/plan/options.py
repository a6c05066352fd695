"""The command line of `slotkeeper plan`."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from slotkeeper import flags, logs
from slotkeeper.api import flash_attention, quantity
from slotkeeper.api.model_url import HUB_ENDPOINT, is_local
from slotkeeper.download import options as download
from slotkeeper.download.address import host_of, redact
from slotkeeper.download.token import Token, read_value
from slotkeeper.flags import PlanFlags
from slotkeeper.llamacpp.argv import ALL_LAYERS
from slotkeeper.llamacpp.kv_cache import BITS_PER_VALUE
from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.load import Gpus, Load

COMMAND = "slotkeeper plan"

EXIT_CODES = """\
examples:
  slotkeeper plan model.gguf --gpu 16Gi
  slotkeeper plan hf://ORG/REPOSITORY:Q4_K_M --gpu 24Gi,24Gi --slots 8 --context 8192

exit status:
  0   the plan is printed; with --slots and --context, they fit
  1   permanent error: not found, forbidden, not a GGUF file, an architecture that is not planned, …
  2   invalid command line
  3   --slots and --context do not fit
  75  too many failures of the network or the server

environment:
  HF_ENDPOINT  hub of hf:// URLs (default: https://huggingface.co)
"""

SCHEMES = ("http://", "https://", "hf://", "s3://", "oci://")

AUTOMATIC = "auto"

MAX_GPUS = 128

MIN_GPU_MEMORY = 256 * 1024**2
"""Less is a number without its unit: any GPU has more."""


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    model: str
    """URL, or path of a file."""
    mmproj: str | None
    draft: str | None
    load: Load
    """With one slot and 4096 tokens, if they are not set."""
    slots: int | None
    context: int | None
    automatic_layers: bool
    """Whether to choose the number of layers on GPUs."""
    plot: bool
    token_hosts: frozenset[str]
    download: download.Options

    @property
    def token(self) -> Token | None:
        """The token for hosts. Raises OSError."""
        if self.download.token_file is None:
            return None
        value = read_value(self.download.token_file)
        return Token(value, self.token_hosts, self.download.allow_http_token)


def is_url(name: str) -> bool:
    """Whether this is a URL, not the path of a file."""
    return name.startswith(SCHEMES)


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """Parse the command line. Exits with status 2 if it is invalid."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    names = [name for name in (arguments.model, arguments.mmproj, arguments.draft) if name]
    for name in names:
        if is_local(name) or ("://" in name and not is_url(name)):
            parser.error(
                f"{redact(name)}: only files, and URLs that begin with {', '.join(SCHEMES)}"
            )
    hub = environ.get("HF_ENDPOINT") or HUB_ENDPOINT
    return Options(
        model=arguments.model,
        mmproj=arguments.mmproj,
        draft=arguments.draft,
        load=_load(parser, arguments),
        slots=arguments.slots,
        context=arguments.context,
        automatic_layers=arguments.gpu_layers == AUTOMATIC,
        plot=arguments.plot,
        token_hosts=frozenset(host_of(name, hub).lower() for name in names if is_url(name)),
        download=_download(parser, arguments),
    )


def _download(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> download.Options:
    arguments.files = [{"role": "model", "url": "", "path": Path("model.gguf")}]
    return download.options_of(parser, arguments)


def _load(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Load:
    memory = arguments.gpu
    shares = arguments.tensor_split
    if shares and len(shares) != len(memory):
        parser.error(f"{PlanFlags.TENSOR_SPLIT} must have a share for each GPU of {PlanFlags.GPU}")
    if shares and not any(shares):
        parser.error(f"{PlanFlags.TENSOR_SPLIT} must have a share above 0")
    if arguments.gpu_layers is not None and not memory:
        parser.error(f"{PlanFlags.GPU_LAYERS} requires {PlanFlags.GPU}")
    if arguments.draft_gpu_layers is not None and not (memory and arguments.draft):
        parser.error(f"{PlanFlags.DRAFT_GPU_LAYERS} requires {PlanFlags.GPU} and {PlanFlags.DRAFT}")
    if arguments.cpu_moe_layers and not memory:
        parser.error(f"{PlanFlags.CPU_MOE_LAYERS} requires {PlanFlags.GPU}")
    if arguments.embeddings and arguments.draft:
        parser.error(f"{PlanFlags.DRAFT} must not be set with {PlanFlags.EMBEDDINGS}")
    layers = arguments.gpu_layers
    if layers == AUTOMATIC and not (arguments.slots and arguments.context):
        parser.error(
            f"{PlanFlags.GPU_LAYERS} {AUTOMATIC} requires {PlanFlags.SLOTS} and "
            f"{PlanFlags.CONTEXT}: how many layers fit depends on them"
        )
    _require_valid(parser, arguments)
    try:
        load = Load(
            arguments.slots or 1,
            arguments.context or 4096,
            arguments.kv_cache_type,
            arguments.flash_attention != "disabled",
            gpus=Gpus(
                memory,
                layers if isinstance(layers, int) else ALL_LAYERS,
                arguments.split_mode,
                shares,
                arguments.cpu_moe_layers,
                ALL_LAYERS if arguments.draft_gpu_layers is None else arguments.draft_gpu_layers,
            ),
        )
        if arguments.embeddings:
            batch = load.context_per_slot
            load = replace(load, batch=batch, micro_batch=batch, embeddings=True)
    except UnplannableError as error:
        parser.error(str(error))
    return load


def _require_valid(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Require what the API requires of a server with these settings."""
    mode = arguments.flash_attention
    if not flash_attention.allows_cache(mode, arguments.kv_cache_type):
        parser.error(flash_attention.FOR_CACHE)
    if not flash_attention.allows_split(mode, arguments.split_mode):
        parser.error(flash_attention.FOR_SPLIT)


class _Once(argparse.Action):
    """Stores a value, and rejects a second one: argparse would silently ignore the first."""

    def __init__(self, *args: Any, example: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._example = example
        self._set = False

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if self._set:
            instead = f": write {option_string} {self._example}" if self._example else ""
            raise argparse.ArgumentError(self, f"must not be repeated{instead}")
        self._set = True
        setattr(namespace, self.dest, values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        COMMAND,
        description="Plan the memory of a model: print how many slots with how much context fit "
        "into GPUs. Of the model, only the GGUF header is read.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    download.set_no_container(parser)
    # Headers are neither limited in size nor verified.
    parser.set_defaults(max_file_bytes=2**62, max_total_bytes=None, always_verify=False)
    parser.add_argument(
        "model", metavar="FILE_OR_URL", help=f"path, or {', '.join(SCHEMES)} URL of the model"
    )
    parser.add_argument(
        PlanFlags.GPU,
        action=_Once,
        example="15Gi,15Gi",
        type=_sizes,
        default=(),
        metavar="SIZE,SIZE…",
        help="memory of each GPU, such as 16Gi,16Gi (default: no GPU)",
    )
    parser.add_argument(
        PlanFlags.SLOTS,
        action=_Once,
        type=flags.positive,
        metavar="N",
        help="slots (default: 1, 2, 4, … 64)",
    )
    parser.add_argument(
        PlanFlags.CONTEXT,
        action=_Once,
        type=flags.positive,
        metavar="TOKENS",
        help="context of a slot (default: 4096, and twice as much up to the model's)",
    )
    _add_load(parser)
    parser.add_argument(
        PlanFlags.PLOT,
        action="store_true",
        help="print the largest context of each number of slots as bars",
    )
    download.add_source_flags(parser)
    logs.add_flags(parser)
    return parser


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        PlanFlags.KV_CACHE_TYPE,
        action=_Once,
        choices=list(BITS_PER_VALUE),
        default="f16",
        help="data type of the KV cache (default: %(default)s)",
    )
    parser.add_argument(
        PlanFlags.FLASH_ATTENTION,
        action=_Once,
        choices=["auto", "enabled", "disabled"],
        default="auto",
        help="auto: as if enabled, which it is on most GPUs (default: %(default)s)",
    )
    parser.add_argument(
        PlanFlags.GPU_LAYERS,
        action=_Once,
        type=_layers,
        metavar="N|auto",
        help="layers on the GPUs; auto: as many as fit (default: all)",
    )
    parser.add_argument(
        PlanFlags.SPLIT_MODE,
        action=_Once,
        choices=["layer", "row", "tensor", "none"],
        default="layer",
        help="split of the model across several GPUs (default: %(default)s)",
    )
    parser.add_argument(
        PlanFlags.TENSOR_SPLIT,
        action=_Once,
        example="3,1",
        type=_shares,
        default=(),
        metavar="SHARE,SHARE…",
        help="proportion of the model on each GPU (default: that of their memory)",
    )
    parser.add_argument(
        PlanFlags.CPU_MOE_LAYERS,
        action=_Once,
        type=flags.count,
        default=0,
        metavar="N",
        help="first layers whose experts are in main memory (default: 0)",
    )
    parser.add_argument(
        PlanFlags.EMBEDDINGS, action="store_true", help="serve embeddings instead of text"
    )
    parser.add_argument(
        PlanFlags.MMPROJ,
        action=_Once,
        metavar="FILE_OR_URL",
        help="multimodal projector of the model",
    )
    parser.add_argument(
        PlanFlags.DRAFT,
        action=_Once,
        metavar="FILE_OR_URL",
        help="draft model for speculative decoding",
    )
    parser.add_argument(
        PlanFlags.DRAFT_GPU_LAYERS,
        action=_Once,
        type=flags.count,
        metavar="N",
        help="layers of the draft on the GPUs (default: all)",
    )


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(map(_size, text.split(",")))
    if len(sizes) > MAX_GPUS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_GPUS} sizes")
    return sizes


def _size(text: str) -> int:
    size = quantity.bytes_argument(text)
    if size < MIN_GPU_MEMORY:
        raise argparse.ArgumentTypeError(
            f"{text} is less than 256Mi: write the unit, as in 16Gi or 15360Mi"
        )
    return size


def _layers(text: str) -> int | str:
    return text if text == AUTOMATIC else flags.count(text)


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError("must be numbers such as 3,1") from None
    if not all(0 <= share <= 1_000_000 for share in shares):
        raise argparse.ArgumentTypeError("must be numbers from 0 to 1000000")
    return shares
