"""What is known of the memory that a server's model needs, and of its GPUs. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise

from pydantic import ValidationError

from slotkeeper import __version__
from slotkeeper.api import quantity
from slotkeeper.api.extra_args import flags_of
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer, LlamaServerSpec
from slotkeeper.api.serving import MAX_SLOTS
from slotkeeper.api.speculative import SIMPLE
from slotkeeper.api.status import MemoryStatus
from slotkeeper.desired import inspection
from slotkeeper.desired.download_job import hash_of
from slotkeeper.llamacpp.argv import ALL_LAYERS, BATCH_TOKENS, embeddings_batch
from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.fit import most_slots
from slotkeeper.llamacpp.memory.load import Gpus, Load
from slotkeeper.llamacpp.memory.plan import Parts, plan
from slotkeeper.llamacpp.memory.record import RecordError, decode
from slotkeeper.llamacpp.memory.verdict import fullest, judge
from slotkeeper.reconcile.observe.gpu_nodes import UnknownMemory, unread_memory
from slotkeeper.reconcile.observe.problem import Problem

MAX_UNPLANNABLE = 1024
"""Characters."""

MAX_INT64 = 2**63 - 1
"""The largest number in a status. A header may state sizes for which a plan is larger."""

MAX_GPUS = 32
"""Of a replica: plans for more take too long, and llama.cpp's CUDA backend has 16 devices."""

_BATCH = ("-b", "--batch-size")
_MICRO_BATCH = ("-ub", "--ubatch-size")
_BATCH_TOKENS = 2048
"""llama-server's default."""

CHANGES_MEMORY = frozenset(
    (
        *("--swa-full", "-nkvo", "--no-kv-offload", "-ot", "--override-tensor", "-dev", "--device"),
        *("--override-kv", "--moe-cache-mib", "-ncffn", "--n-cpu-ffn", "-mmdev", "--mmproj-device"),
        *("--spec-draft-type-k", "-ctkd", "--cache-type-k-draft"),
        *("--spec-draft-type-v", "-ctvd", "--cache-type-v-draft"),
        *("--spec-draft-override-tensor", "-otd", "--override-tensor-draft"),
        *("--spec-draft-device", "-devd", "--device-draft", "--spec-draft-n-ubatch"),
        *("--spec-draft-cpu-moe", "-cmoed", "--cpu-moe-draft"),
        *("--spec-draft-n-cpu-moe", "--spec-draft-ncmoe", "-ncmoed", "--n-cpu-moe-draft"),
    )
)
"""Flags in extraArgs that the planner does not know."""


@dataclass(frozen=True)
class Header:
    """What the headers of the model's files state, as it is kept in the status."""

    record: str = ""
    unplannable: str = ""
    """Why there is no record."""


@dataclass(frozen=True)
class Files:
    """What a server loads. Small, as a key of caches: the sizes of files take a hundred times the
    memory of their record."""

    record: str
    projector_on_gpu: bool

    @property
    def parts(self) -> Parts:
        """The sizes."""
        return replace(_parts(self.record), projector_on_gpu=self.projector_on_gpu)


@dataclass(frozen=True)
class Choice:
    """What was chosen for `auto`; None for fields with a number."""

    context_per_slot: int | None = None
    layers: int | None = None


@dataclass(frozen=True)
class MemoryFacts:
    """What is known of a server's memory."""

    files: str
    """Hash of the sources of its files."""
    settings: str
    """Hash of the settings on which its plan depends."""
    header: Header | None = None
    """None before the headers were read."""
    failure: Problem | None = None
    """Why they could not be read; None if they may still be."""
    delay: Problem | None = None
    """What the Job that reads them waits for."""
    gpu_bytes: int | None = None
    """Memory of each GPU; None where it is not known."""
    gpu_unknown: UnknownMemory | None = None
    """Why it is not known."""
    choice: Choice = field(default_factory=Choice)
    is_recorded: bool = True
    """Whether the status has the choice: no replica gets one that a restart of the operator might
    change."""
    unchosen: Problem | None = None
    """Why there is no choice for `auto`, which may still be made; None with one, or without
    `auto`."""


@dataclass(frozen=True)
class Verdict:
    """Whether a server's model fits into its GPUs."""

    reason: Reason
    message: str
    needed_bytes: int | None = None
    """Of the fullest GPU."""
    slots: int | None = None
    """How many would fit."""
    remedy: str = ""
    """What would make it known; empty where the message says it, or nothing would."""

    @property
    def fits(self) -> bool | None:
        """None where it is not known."""
        return {Reason.FITS: True, Reason.DOES_NOT_FIT: False}.get(self.reason)


def recorded(server: LlamaServer) -> MemoryStatus:
    """The part of the status as read; empty where it is missing or malformed."""
    try:
        return MemoryStatus.model_validate(server.status.get("memory") or {})
    except ValidationError:
        # An operator of another release has written it.
        return MemoryStatus()


def recorded_header(server: LlamaServer) -> Header | None:
    """The headers in the status, where they are of the current files and can be read."""
    before = recorded(server)
    if before.files != inspection.sources(server):
        return None
    if before.unplannable and before.release == __version__:
        return Header(unplannable=before.unplannable)
    return Header(before.record) if before.record and is_record(before.record) else None


def has_new_header(server: LlamaServer, facts: MemoryFacts | None) -> bool:
    """Whether headers are known that the status, as it was read, does not have."""
    return facts is not None and facts.header is not None and recorded_header(server) is None


@lru_cache(maxsize=2048)
def is_record(text: str) -> bool:
    """Whether a text is a record of the sizes of files."""
    try:
        decode(text)
    except RecordError:
        return False
    return True


def given_memory(server: LlamaServer) -> int | None:
    """The memory of each GPU as the spec states it, in bytes."""
    size = server.spec.gpu.memory
    return None if size is None else int(quantity.parse(size))


def settings(server: LlamaServer) -> str:
    """Return a hash of all settings on which the plan depends, and the choice of nodes.

    Without defaults: a field that a new release adds must change no choice.
    """
    spec = server.spec
    gpu = spec.gpu.model_dump(mode="json", exclude={"supplemental_groups"}, exclude_defaults=True)
    return hash_of(
        [
            inspection.sources(server),
            [spec.slots, spec.context_per_slot, spec.kv_cache_type, spec.flash_attention],
            gpu,
            [spec.pods_per_replica, spec.embeddings is not None, spec.extra_args],
            spec.speculative and spec.speculative.model_dump(mode="json", exclude_defaults=True),
            spec.model.mmproj and spec.model.mmproj.offload,
            dict(spec.placement.node_selector),
        ]
    )


def is_worth_reading(server: LlamaServer, facts: MemoryFacts) -> bool:
    """Whether the headers would tell whether the model fits."""
    return (
        facts.gpu_bytes is not None
        and inspection.is_possible(server)
        and _not_planned(server) is None
    )


def verdict(server: LlamaServer, facts: MemoryFacts) -> Verdict:
    """Whether the model with all its slots fits into the GPUs.

    | what is known | reason |
    |---|---|
    | a file is in llama-server's image, or a setting is not planned | NotPlanned |
    | no memory of a GPU | GpuMemoryUnknown |
    | the headers could not be read | HeaderUnavailable |
    | they are not read yet | ReadingHeader |
    | they tell no sizes | NotPlanned |
    | all | Fits, or DoesNotFit |
    """
    if facts.unchosen and facts.unchosen.reason is Reason.DOES_NOT_FIT:
        return Verdict(Reason.DOES_NOT_FIT, facts.unchosen.message)
    known = knowledge(server, facts)
    if isinstance(known, Verdict):
        return known
    try:
        return _judged(*known)
    except UnplannableError as error:
        return Verdict(Reason.NOT_PLANNED, f"memory is not planned: {error}")


def knowledge(server: LlamaServer, facts: MemoryFacts) -> tuple[Files, Load] | Verdict:
    """Return what a plan requires, or the verdict without a plan."""
    if why := _not_planned(server):
        return Verdict(Reason.NOT_PLANNED, f"memory is not planned: {why}")
    header, size = facts.header, facts.gpu_bytes
    if size is None:
        unknown = facts.gpu_unknown or unread_memory(server)
        return Verdict(Reason.GPU_MEMORY_UNKNOWN, unknown.why, remedy=unknown.remedy)
    if header is None:
        return _without_header(facts)
    try:
        if header.unplannable:
            raise UnplannableError(header.unplannable)
        return _files(server, header.record), load_of(server, size)
    except UnplannableError as error:
        return Verdict(Reason.NOT_PLANNED, f"memory is not planned: {error}")


def _without_header(facts: MemoryFacts) -> Verdict:
    if facts.failure:
        message = f"the headers of the model's files could not be read: {facts.failure.message}"
        return Verdict(Reason.HEADER_UNAVAILABLE, message)
    message = "waiting for the headers of the model's files"
    if facts.delay:
        message += f": {facts.delay.message}"
    return Verdict(Reason.READING_HEADER, message)


def load_of(server: LlamaServer, gpu_bytes: int) -> Load:
    """Return the settings of a server's llama-servers, with GPUs of this size. Raises
    UnplannableError."""
    spec = server.spec
    gpu = spec.gpu
    if gpu.count * spec.pods_per_replica > MAX_GPUS:
        raise UnplannableError(f"more than {MAX_GPUS} GPUs of a replica are not planned")
    used = 1 if gpu.split_mode == "none" else gpu.count * spec.pods_per_replica
    remote = max(used - gpu.count, 0)
    shares = () if gpu.split_mode == "none" else tuple(gpu.tensor_split or ())
    batch, micro = _batches(spec)
    draft = spec.speculative.draft if spec.speculative else None
    return Load(
        spec.slots,
        spec.context_tokens,
        spec.kv_cache_type,
        spec.flash_attention != "disabled",
        batch=batch,
        micro_batch=micro,
        embeddings=spec.embeddings is not None,
        gpus=Gpus(
            (gpu_bytes,) * used,
            ALL_LAYERS if gpu.layer_count is None else gpu.layer_count,
            gpu.split_mode,
            shares,
            gpu.cpu_moe_layers or 0,
            draft_layers=ALL_LAYERS
            if draft is None or draft.gpu_layers is None
            else draft.gpu_layers,
            remote=remote,
        ),
    )


@lru_cache(maxsize=64)
def _parts(record: str) -> Parts:
    return decode(record)


@lru_cache(maxsize=2048)
def _judged(files: Files, load: Load) -> Verdict:
    """The verdict on a plan. Raises UnplannableError."""
    parts = files.parts
    found = judge(parts, load)
    planned = plan(parts, load)
    gpu = fullest(planned, load.gpus.memory)
    return Verdict(
        Reason.FITS if found.fits else Reason.DOES_NOT_FIT,
        found.message,
        min(planned.gpus[gpu].total, MAX_INT64),
        min(most_slots(parts, load), MAX_SLOTS),
    )


def _files(server: LlamaServer, record: str) -> Files:
    """Return what a record's server loads."""
    projector = server.spec.model.mmproj
    return Files(record, projector is None or projector.offload)


def _not_planned(server: LlamaServer) -> str | None:
    """Why a server is not planned, whatever its model is."""
    spec = server.spec
    if not inspection.is_possible(server):
        return "a file of the model is in llama-server's image"
    if spec.model.adapters:
        return "model.adapters are not planned"
    speculative = spec.speculative
    if speculative and not speculative.is_ngram and speculative.type != SIMPLE:
        return f"speculative.type {speculative.type} is not planned"
    if found := sorted(flags_of(spec.extra_args) & CHANGES_MEMORY):
        return f"{found[0]} in extraArgs is not planned"
    return None


def _batches(spec: LlamaServerSpec) -> tuple[int, int]:
    """Return the tokens of a batch, and those that are computed at once. Raises UnplannableError
    unless the values in extraArgs are numbers."""
    if spec.embeddings:
        batch = embeddings_batch(spec.embeddings.pooling, spec.context_tokens)
        return batch, batch
    batch = _value(spec.extra_args, _BATCH, _BATCH_TOKENS)
    if batch == 0:
        raise UnplannableError(f"extraArgs have 0 after {' or '.join(_BATCH)}")
    # As in llama-server, 0 is the whole batch.
    return batch, min(_value(spec.extra_args, _MICRO_BATCH, BATCH_TOKENS) or batch, batch)


def _value(extra_args: Sequence[str], flags: Iterable[str], default: int) -> int:
    if flags_of(extra_args).isdisjoint(flags):
        return default
    values = [value for flag, value in pairwise(extra_args) if flag.replace("_", "-") in flags]
    if not values or not (values[-1].isascii() and values[-1].isdecimal()):
        raise UnplannableError(f"extraArgs have no number after {' or '.join(flags)}")
    return min(int(values[-1][:10]), 2**31 - 1)
