"""Each row of the table is found in a real log, and nothing that a log contains breaks it."""

import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.llamacpp.diagnosis import others
from slotkeeper.llamacpp.diagnosis.accelerators import LAYERS_NOT_OFFLOADED, UVM_UNIT
from slotkeeper.llamacpp.diagnosis.diagnose import (
    MAX_QUOTE,
    MAX_TEXT,
    TABLE,
    diagnose,
    diagnose_end,
)
from slotkeeper.llamacpp.diagnosis.row import Subject
from slotkeeper.llamacpp.diagnosis.start import StartReport, read_start

FOLDER = Path(__file__).parent / "diagnosis"
LOGS = sorted((FOLDER / "logs").glob("*.txt"))
ALL_LAYERS = 999


def text(path: Path) -> str:
    """An excerpt, without its first line, which names its source."""
    source, _, excerpt = path.read_text().partition("\n")
    assert source.startswith("source: ")
    return excerpt


def start(name: str, layers: int = ALL_LAYERS) -> StartReport:
    return read_start(text(FOLDER / "starts" / f"{name}.txt"), layers)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_real_log_has_its_diagnosis(path: Path) -> None:
    excerpt = text(path)

    found = diagnose(excerpt)

    assert found
    assert found.reason == path.name.partition(".")[0]
    assert found.line
    assert found.line.removeprefix("…") in excerpt


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_only_the_end_of_a_log_and_a_prefix_change_nothing(path: Path) -> None:
    lines = text(path).splitlines()
    noise = ["0.00.000.001 I srv  llama_server: initializing ..."] * 20

    found = diagnose("\r\n".join([*noise, *(f"0.00.380.603 E {line}" for line in lines)]))

    assert found
    assert found.reason == path.name.partition(".")[0]
    assert not found.line.startswith("0.00")


def test_each_row_has_a_log() -> None:
    reasons = Counter(row.reason for row in TABLE)

    assert set(reasons.values()) == {1}
    # It has to be compared with what was requested.
    without = {LAYERS_NOT_OFFLOADED.reason}
    assert {path.name.partition(".")[0] for path in LOGS} == {*reasons} - without


@pytest.mark.parametrize(
    ("code", "reason"), [(132, "IllegalInstruction"), (127, "CommandNotFound"), (1, None)]
)
def test_an_exit_code_is_a_sign_where_the_log_has_none(code: int, reason: str | None) -> None:
    found = diagnose("0.00.000.001 I srv  llama_server: initializing ...", code)

    assert (found and found.reason) == reason
    assert found is None or not found.line


def test_a_log_comes_before_the_exit_code() -> None:
    missing = text(FOLDER / "logs" / "SharedLibraryMissing.txt")

    found = diagnose(missing, 127)

    assert found
    assert found.row is others.SHARED_LIBRARY_MISSING


def test_memory_is_quoted_with_its_size() -> None:
    found = diagnose(text(FOLDER / "logs" / "WeightsOutOfMemory.txt"))

    assert found
    assert "allocating 144817.04 MiB on device 0" in found.line
    assert found.advice.startswith("the model's weights do not fit into the memory of the GPU; use")


def test_a_request_that_fails_is_no_reason_of_what_comes_later() -> None:
    full = text(FOLDER / "logs" / "KvCacheFull.txt")
    lost = text(FOLDER / "logs" / "XidError.txt")

    found = diagnose(full + lost)

    assert found
    assert found.reason == "XidError"


@pytest.mark.parametrize("survived", ["NoDeviceFound", "KvCacheFull", "CudaInitFailed"])
def test_what_a_program_survives_is_no_reason_of_its_end(survived: str) -> None:
    before = text(FOLDER / "logs" / f"{survived}.txt")
    unknown = text(FOLDER / "logs" / "UnknownModelArchitecture.txt")
    assertion = "src/llama-context.cpp:2384: GGML_ASSERT(n_outputs_max <= 1) failed\n"

    found = diagnose_end(before + unknown)

    assert found
    assert found.reason == "UnknownModelArchitecture"
    assert diagnose_end(before + assertion, 134) is None


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_last_line_explains_an_end_also_if_a_program_may_survive_it(path: Path) -> None:
    sign = next(row.pattern for row in TABLE if row.reason == path.name.partition(".")[0])
    assert sign

    found = diagnose_end(next(filter(sign.search, text(path).splitlines())))

    assert found
    assert found.reason == path.name.partition(".")[0]


def test_of_a_long_line_the_part_with_the_sign_is_quoted() -> None:
    found = diagnose(text(FOLDER / "logs" / "DriverUnreachable.txt"))

    assert found
    assert found.line.startswith("…")
    assert "nvidia-container-cli.real: initialization error: driver error" in found.line


def test_main_memory_is_not_that_of_the_gpu() -> None:
    assert diagnose("llama_model_load: error loading model: unable to allocate CPU buffer") is None


def test_the_remedy_for_uvm_is_a_unit_of_systemd() -> None:
    assert "ExecStart=/sbin/modprobe nvidia_uvm" in UVM_UNIT
    assert "[Install]" in UVM_UNIT


def test_texts_end_without_a_full_stop_and_name_no_other_program() -> None:
    for row in TABLE:
        for part in (row.sign, row.meaning, row.remedy):
            assert part == part.strip(" .;") or part.endswith("found.")
            assert "\n" not in part


# The start of a log.


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("cuda-b10145", "CUDA0 (NVIDIA GeForce RTX 5090)"),
        ("cuda-eight-gpus", "CUDA0, CUDA1, 62/62 layers"),
        ("vulkan", "1 Vulkan devices, 33/33 layers"),
    ],
)
def test_the_devices_of_a_start_are_found(name: str, summary: str) -> None:
    report = start(name)

    assert report.diagnosis is None
    assert report.summary == summary
    assert report.is_conclusive


@pytest.mark.parametrize(
    ("name", "reason", "line"),
    [
        ("cpu-b10145", "NoDeviceFound", "devices: CPU"),
        # It logs that all layers are on a GPU.
        ("cpu-b11669-with-rpc", "NoDeviceFound", "devices: CPU"),
        ("layers-0-of-29", "LayersNotOffloaded", "load_tensors: offloaded 0/29 layers to GPU"),
        ("layers-78-of-81", "LayersNotOffloaded", "llm_load_tensors: offloaded 78/81 layers"),
        ("init-failed", "CudaInitFailed", "ggml_cuda_init: failed to initialize CUDA"),
        ("no-vulkan-device", "NoVulkanDevice", "ggml_vulkan: No devices found."),
    ],
)
def test_a_start_without_its_devices_says_why(name: str, reason: str, line: str) -> None:
    report = start(name)

    assert report.diagnosis
    assert report.diagnosis.reason == reason
    assert report.diagnosis.line.startswith(line)


@pytest.mark.parametrize(("layers", "enough"), [(0, True), (78, True), (79, False), (999, False)])
def test_as_many_layers_as_requested_are_enough(layers: int, enough: bool) -> None:
    assert (start("layers-78-of-81", layers).diagnosis is None) == enough


def test_a_start_that_shows_no_devices_is_not_conclusive() -> None:
    report = start("default-level-b11669")

    assert report == StartReport()
    assert not report.is_conclusive


def test_a_model_in_main_memory_beside_a_device_is_not_offloaded() -> None:
    log = text(FOLDER / "starts" / "cuda-b10145.txt")

    report = read_start(log + "load_tensors:   CPU_Mapped model buffer size = 100.00 MiB\n", 99)

    assert report.diagnosis
    assert report.diagnosis.row is LAYERS_NOT_OFFLOADED


def test_devices_of_workers_are_not_the_pods_own() -> None:
    log = """\
0.00.070.257 I cmn  common_param: device_info:
0.00.070.265 I cmn  common_param:   - RPC0[10.0.0.7:50052]: 10.0.0.7:50052 (321 MiB, 313 MiB free)
0.00.070.273 I cmn  common_param:   - CPU     : AMD EPYC (24105 MiB, 24105 MiB free)
0.00.876.628 I load_tensors: RPC0[10.0.0.7:50052] model buffer size =  2862.99 MiB
"""

    report = read_start(log, ALL_LAYERS)

    assert report.diagnosis
    assert report.diagnosis.reason == "NoDeviceFound"
    assert report.diagnosis.line == "devices: RPC0[10.0.0.7:50052], CPU"


@pytest.mark.parametrize(
    "line",
    [
        "  - CUDA0   : NVIDIA L4 (23034 MiB, 22000 MiB free)",
        "using device CUDA0 (NVIDIA L4)",
        "load_tensors:   CUDA0 model buffer size = 10.00 MiB",
        "load_tensors: offloaded 1/33 layers to GPU",
        "ggml_cuda_init: found 2 CUDA devices:",
        "failed to initialize ROCm",
    ],
)
@pytest.mark.parametrize(
    "before",
    [
        "0.00.392.168 I print_info: general.name          = x",
        "0.00.368.587 I llama_model_loader: - kv   1:    general.name str              = x",
        "0.01.513.690 I srv          init: init: chat template, example_format: 'system: x\n",
    ],
)
def test_texts_of_the_models_file_are_no_signs(before: str, line: str) -> None:
    log = text(FOLDER / "starts" / "cpu-b11669-with-rpc.txt")

    report = read_start(f"{log}{before} {line}\n{log}", ALL_LAYERS)

    assert report.diagnosis
    assert report.diagnosis.line == "devices: CPU"
    assert not report.devices


def test_the_end_of_a_model_with_the_name_of_an_error_is_not_explained_by_it() -> None:
    name = "0.00.392.168 I print_info: general.name          = CUDA error: out of memory"
    assert diagnose(name) is None


# Anything else.

ANY = st.one_of(
    st.binary().map(lambda data: data.decode(errors="replace")),
    st.text(),
    st.lists(st.sampled_from([line for path in LOGS for line in text(path).splitlines()])).map(
        "\n".join
    ),
)


@given(ANY, st.none() | st.integers(-1, 300), st.integers(0, 999))
def test_any_text_is_read_without_an_error(log: str, code: int | None, layers: int) -> None:
    found = diagnose(log, code)
    report = read_start(log, layers)

    for each in filter(None, (found, report.diagnosis)):
        assert len(each.line) <= MAX_QUOTE
        assert not {"\0", "\n", "\r", "\x1b"} & {*each.line}


@pytest.mark.parametrize(
    "unit",
    ["a", " ", "\n", "exec: ", "sh: x: ", "/dev/kfd ", " - CUDA0 : ", "using device x (", "load_"],
)
def test_the_time_is_bounded_by_the_size(unit: str) -> None:
    huge = unit * (20 * MAX_TEXT // len(unit))

    began = time.process_time()
    diagnose(huge)
    read_start(huge, ALL_LAYERS)

    assert time.process_time() - began < 2


def test_rows_about_builds_and_replicas_are_no_accelerators() -> None:
    subjects = {row.reason: row.subject for row in TABLE}

    assert subjects["CompilerMissing"] is Subject.BUILD
    assert subjects["OOMKilled"] is Subject.REPLICA
    assert subjects["CudaInitFailed"] is Subject.ACCELERATOR
