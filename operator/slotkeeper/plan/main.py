"""`slotkeeper plan`: how many slots with how much context fit into GPUs."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from slotkeeper import logs
from slotkeeper.download.address import redact
from slotkeeper.download.download import Environment
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.main import EXIT_FAILURE, EXIT_RETRY, environment_of
from slotkeeper.download.redaction import Redaction
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.gguf_layout import Layout
from slotkeeper.llamacpp.gguf_use import Kind, Use
from slotkeeper.llamacpp.memory.dimensions import Dimensions, UnplannableError
from slotkeeper.llamacpp.memory.fit import most_layers
from slotkeeper.llamacpp.memory.load import Load
from slotkeeper.llamacpp.memory.plan import Parts
from slotkeeper.llamacpp.memory.projector import Projector, read_projector
from slotkeeper.llamacpp.memory.read import read_dimensions
from slotkeeper.llamacpp.memory.verdict import judge
from slotkeeper.plan import report
from slotkeeper.plan.headers import Headers, headers
from slotkeeper.plan.options import COMMAND, Options, parse

EXIT_DOES_NOT_FIT = 3

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Read the headers, and print the plan. --help describes the exit status."""
    options = parse(argv)
    logs.configure(options.download.log_format, options.download.log_level, command=COMMAND)
    with Redaction(options.download.secret_files).of_logs():
        try:
            return _plan(options)
        except DownloadError as error:
            log.error("%s: %s", error.reason, error.message)
            return EXIT_RETRY if error.transient else EXIT_FAILURE
        except _NoPlan as error:
            log.error("%s", error)
            return EXIT_FAILURE


class _NoPlan(Exception):  # noqa: N818 (it is reported as a message)
    """There is no plan for a file; the text names it."""


@dataclass(frozen=True)
class _Files:
    """What the headers of all files state."""

    parts: Parts
    model: Layout
    draft: Layout | None


def _plan(options: Options) -> int:
    files = _read(options)
    parts = files.parts
    with _errors(options.model):
        print(report.describe(parts.model))
        for note in _notes(files, options):
            print(f"note: {note}")
        load = _with_layers(parts, options)
        if not options.slots or not options.context:
            contexts = [options.context] if options.context else report.contexts(parts.model)
            slots = [options.slots] if options.slots else report.SLOTS
            print("", report.slots_by_context(parts, load, slots, contexts), sep="\n")
            status = 0
        else:
            print("", report.breakdown(parts, load), sep="\n")
            status = _verdict(parts, load)
        if options.plot and load.gpus.memory:
            print("", report.bars(parts, load), sep="\n")
    return status


def _verdict(parts: Parts, load: Load) -> int:
    """Print whether it fits; return the exit status."""
    if not load.gpus.memory:
        print("", report.main_memory(parts, load), sep="\n")
        return 0
    verdict = judge(parts, load)
    print("", verdict.message, sep="\n")
    return 0 if verdict.fits else EXIT_DOES_NOT_FIT


def _with_layers(parts: Parts, options: Options) -> Load:
    load = options.load
    every = len(parts.model.layers) + 1
    layers = most_layers(parts, load) if options.automatic_layers else load.gpus.layers
    if load.gpus.memory and (options.automatic_layers or layers < every):
        print(f"layers on GPUs: {layers} of {every}")
    return replace(load, gpus=replace(load.gpus, layers=layers))


def _notes(files: _Files, options: Options) -> Iterator[str]:
    trained = files.parts.model.trained_context
    if options.context and 0 < trained < options.context:
        yield f"the context is {options.context}, but the model was trained for {trained} tokens"
    if options.draft and files.draft:
        use = Use(Kind.MODEL, vocabulary=files.model.vocabulary)
        if mismatch := use.mismatch(files.draft):
            yield f"{redact(options.draft)} is {mismatch}: llama-server would serve without it"


def _read(options: Options) -> _Files:
    with (
        tempfile.TemporaryDirectory() as folder,
        environment_of(options.download, options.token) as environment,
    ):
        source = _Source(Path(folder), environment)
        model, layout = source.model(options.model)
        projector = source.projector(options.mmproj) if options.mmproj else None
        draft, draft_layout = source.model(options.draft) if options.draft else (None, None)
        return _Files(Parts(model, projector, draft=draft), layout, draft_layout)


@dataclass(frozen=True)
class _Source:
    """Where headers are read from, and put."""

    folder: Path
    environment: Environment

    def model(self, name: str) -> tuple[Dimensions, Layout]:
        with _errors(name):
            found = self._headers(name, "model")
            return read_dimensions(found.files), found.layout

    def projector(self, name: str) -> Projector:
        with _errors(name):
            return read_projector(self._headers(name, "model.mmproj").files[0])

    def _headers(self, name: str, role: str) -> Headers:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return headers(name, role, folder, self.environment)


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Name the file in errors that do not."""
    try:
        yield
    except UnplannableError as error:
        raise _NoPlan(f"{redact(name)}: {error}") from None
    except OSError as error:
        raise _NoPlan(f"{error.filename or name}: {describe(error)}") from None
