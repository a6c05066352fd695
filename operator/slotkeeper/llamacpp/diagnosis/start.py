"""Which devices a llama-server uses, according to the start of its log.

A build with RPC logs `offloaded 19/19 layers to GPU` without any GPU: only the buffers of the
model, and the devices that llama.cpp lists, show where it computes. It logs both from level 4 on.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from slotkeeper.llamacpp.diagnosis.accelerators import LAYERS_NOT_OFFLOADED, NO_DEVICE_FOUND
from slotkeeper.llamacpp.diagnosis.diagnose import (
    FROM_FILE,
    TABLE,
    Diagnosis,
    diagnose,
    quoted,
)
from slotkeeper.llamacpp.diagnosis.row import Subject

MAX_DEVICES = 16
"""Of a message."""

MAX_LOG = 64 * 1024
"""Characters of a log's start that are searched."""

_MAX_LINE = 1000

# `device_info:` of llama-server, and `using device` of older builds and of llama.cpp itself.
_LISTED = re.compile(
    r" - (?P<name>[A-Za-z]{1,20}[0-9]{0,3}\S{0,80}) {0,20}: (?P<text>.{0,200}) "
    r"\([0-9]{1,9} MiB, [0-9]{1,9} MiB free\)$"
)
_USED = re.compile(r"using device (?P<name>\S{1,80}) \((?P<text>[^()]{0,200})")
_COUNTED = re.compile(
    r"found (?P<count>[0-9]{1,4}) (?:CUDA|ROCm|MUSA|SYCL|Vulkan) devices", re.IGNORECASE
)
_BUFFER = re.compile(r"load_tensors: {1,20}(?P<name>\S{1,80}) (?:model )?buffer size =")
_CHAT_TEMPLATE = re.compile(r"chat template, ")
"""In the line from which on the log contains an example of the model's chat template, of any text
and with lines of its own. Devices and buffers were logged before."""

_OFFLOADED = re.compile(r"offloaded (?P<on_gpu>[0-9]{1,4})/(?P<all>[0-9]{1,4}) layers to GPU")

_HOST = re.compile(r"^(?:CPU|BLAS|ACCEL|AMX)|_Host$", re.IGNORECASE)
"""Names of devices and buffers that are no accelerator."""

_REMOTE = re.compile(r"^RPC")
"""Names of devices and buffers of workers."""


_EXPLAINING = tuple(row for row in TABLE if row.is_survived and row.subject is Subject.ACCELERATOR)
"""Why a llama-server that runs uses the CPU."""


@dataclass(frozen=True)
class StartReport:
    """What the start of a log shows."""

    devices: tuple[str, ...] = ()
    """The accelerators of the pod itself, such as `CUDA0 (NVIDIA L4)`."""
    layers: tuple[int, int] | None = None
    """The model's layers on devices, and all; None if not logged."""
    diagnosis: Diagnosis | None = None
    """Why the accelerator is not used as requested."""

    @property
    def is_conclusive(self) -> bool:
        """Whether the log shows where llama-server computes."""
        return bool(self.devices) or self.diagnosis is not None

    @property
    def summary(self) -> str:
        """The devices, for users."""
        names = ", ".join(self.devices[:MAX_DEVICES])
        return f"{names}, {self.layers[0]}/{self.layers[1]} layers" if self.layers else names


def read_start(log: str, layers: int) -> StartReport:
    """Return what the start of a log shows; `layers`: the value of --n-gpu-layers.

    Never raises, whatever the log is.
    """
    own = (line for line in log[:MAX_LOG].splitlines() if not FROM_FILE.search(line))
    lines = [line[:_MAX_LINE] for line in takewhile(_is_not_of_template, own)]
    devices, listed = _devices(lines)
    offloaded = _offloaded(lines)
    buffers = [found["name"] for found in _matches(_BUFFER, lines)]
    used = [name for name in buffers if not _HOST.search(name) and not _REMOTE.search(name)]
    if not devices and used:
        devices = tuple(dict.fromkeys(used))
    if devices:
        lacking = _lacking(offloaded, layers, idle=bool(buffers) and not used)
        return StartReport(devices, offloaded and offloaded[0], lacking)
    if lacking := _lacking(offloaded, layers, idle=False):
        return StartReport(diagnosis=lacking)
    if found := diagnose("\n".join(lines), rows=_EXPLAINING):
        return StartReport(diagnosis=found)
    if listed or buffers:
        shown = ", ".join(dict.fromkeys(listed or buffers))
        line = quoted(f"devices: {shown}")
        return StartReport(diagnosis=Diagnosis(NO_DEVICE_FOUND, line))
    return StartReport()


def _is_not_of_template(line: str) -> bool:
    return not _CHAT_TEMPLATE.search(line)


def _devices(lines: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """The pod's own accelerators, and the names of all devices that are listed."""
    found: dict[str, str] = {}
    names = []
    for line in lines:
        if match := _LISTED.search(line) or _USED.search(line):
            name = match["name"]
            names.append(name)
            if not _HOST.search(name) and not _REMOTE.search(name):
                found.setdefault(name, quoted(f"{name} ({match['text'].strip()})"))
        elif (counted := _COUNTED.search(line)) and int(counted["count"]):
            found.setdefault("", quoted(counted[0][len("found ") :]))
    if len(found) > 1:
        # Their names say more than their number.
        found.pop("", None)
    return tuple(found.values()), names


def _offloaded(lines: Iterable[str]) -> tuple[tuple[int, int], str] | None:
    """Layers on devices, all layers, and the line, of the first model that is loaded."""
    found = [
        ((int(match["on_gpu"]), int(match["all"])), quoted(match.string))
        for match in _matches(_OFFLOADED, lines)
    ]
    return found[0] if found else None


def _lacking(
    offloaded: tuple[tuple[int, int], str] | None, layers: int, *, idle: bool
) -> Diagnosis | None:
    """The diagnosis where fewer layers are on devices than requested. `idle`: no part is."""
    if not layers:
        return None
    if offloaded and offloaded[0][0] < min(layers, offloaded[0][1]):
        return Diagnosis(LAYERS_NOT_OFFLOADED, offloaded[1])
    if idle:
        return Diagnosis(LAYERS_NOT_OFFLOADED, "the whole model is in main memory")
    return None


def _matches(pattern: re.Pattern[str], lines: Iterable[str]) -> Iterator[re.Match[str]]:
    return filter(None, map(pattern.search, lines))
