"""Rows about everything but GPUs: the container, its image, the model, a request; and the build."""

from slotkeeper.llamacpp.diagnosis.row import Row, Subject, line_with

_REPLICA = Subject.REPLICA

OOM_KILLED = Row(
    "OOMKilled",
    _REPLICA,
    "reason OOMKilled; exit code 137",
    pattern=line_with(r"\bOOMKilled\b"),
    meaning="the container used more main memory than its limit",
    remedy="increase resources.limits.memory, or decrease slots or contextPerSlot",
)
ILLEGAL_INSTRUCTION = Row(
    "IllegalInstruction",
    _REPLICA,
    "exit code 132; Illegal instruction",
    pattern=line_with(r"\bIllegal instruction\b"),
    exit_codes=frozenset({132}),
    meaning="the image is built for CPUs with instructions that this node's lacks, such as AVX2 or "
    "AVX-512",
    remedy="use an image with code for all CPUs (GGML_BACKEND_DL and GGML_CPU_ALL_VARIANTS), or "
    "other nodes (placement.nodeSelector); in a virtual machine, pass the host's CPU model through",
)
UNKNOWN_ARCHITECTURE = Row(
    "UnknownModelArchitecture",
    _REPLICA,
    "unknown model architecture",
    pattern=line_with(r"unknown (?:model )?architecture"),
    meaning="this build of llama.cpp does not know the model's architecture: the model is newer, "
    "or made for another program",
    remedy="use an image with a newer build",
)
RPC_SERVER_MISSING = Row(
    "RpcServerMissing",
    _REPLICA,
    "the image has no ggml-rpc-server; exit code 127",
    pattern=line_with(r"the image has no ggml-rpc-server"),
    meaning="the image is built without RPC, which workers need",
    remedy="use an image that is built with GGML_RPC=ON, and has ggml-rpc-server on its PATH or in "
    "/app",
)
SHARED_LIBRARY_MISSING = Row(
    "SharedLibraryMissing",
    _REPLICA,
    "error while loading shared libraries; exit code 127",
    pattern=line_with(r"error while loading shared libraries"),
    meaning="the image lacks a library that its program is linked with",
    remedy="use another build of the image, and report it to those who built it",
)
COMMAND_NOT_FOUND = Row(
    "CommandNotFound",
    _REPLICA,
    "exec: executable file not found in $PATH; exit code 127 or 128",
    pattern=line_with(
        r"executable file not found in \$PATH|exec: .{1,100}: no such file or directory"
        r"|\b(?:sh|bash): .{1,100}: (?:command )?not found$"
    ),
    exit_codes=frozenset({127}),
    meaning="the image lacks the program that the container starts",
    remedy="use an image whose entrypoint is llama-server; with workers, one with ggml-rpc-server",
)
DECODE_FAILED = Row(
    "DecodeFailed",
    _REPLICA,
    "failed to decode the batch, n_batch = 0, ret = -1",
    pattern=line_with(
        r"n_batch = 0, ret =|failed to decode[^=]{0,80}ret = -[0-9]"
        r"|(?:Compute error|Invalid input batch)\. (?:off|i) ="
    ),
    is_survived=True,
    meaning="llama.cpp could not compute a batch at all: its size is 0, or the GPU does not work",
    remedy="set --batch-size and --ubatch-size in extraArgs to at least 1, or leave them out; "
    "check nvidia-smi on the node, and load the driver's kernel modules or reboot",
)
KV_CACHE_FULL = Row(
    "KvCacheFull",
    _REPLICA,
    "failed to find free space in the KV cache; failed to decode the batch, n_batch = 1, ret = 1",
    pattern=line_with(
        r"failed to find free space in the KV cache|failed to decode the batch"
        r"|Context size has been exceeded\. off =|failed to find a memory slot for batch"
    ),
    quote=line_with(r"failed to decode the batch|Context size has been exceeded"),
    is_survived=True,
    meaning="a batch did not fit into the KV cache, not even in smaller parts, so that its "
    "requests failed",
    remedy="increase contextPerSlot, or let clients send and request less",
)
COMPUTE_ARCH_NOT_GIVEN = Row(
    "ComputeArchNotGiven",
    Subject.BUILD,
    "a target CUDA architecture must be explicitly provided via environment variable "
    "CUDA_DOCKER_ARCH",
    pattern=line_with(
        r"target CUDA architecture must be explicitly|CMAKE_CUDA_ARCHITECTURES must be "
        r"(?:non-empty|valid)|Unsupported gpu architecture"
    ),
    meaning="the build of an image with CUDA was not told for which compute capability, or for one "
    "that its CUDA version does not know",
    remedy="set CUDA_DOCKER_ARCH, such as compute_75 for a T4, or with CMake "
    "CMAKE_CUDA_ARCHITECTURES=75; for an old GPU, build with an older CUDA version",
)
COMPILER_MISSING = Row(
    "CompilerMissing",
    Subject.BUILD,
    "nvcc not found; Could not find nvcc, please set CUDAToolkit_ROOT",
    pattern=line_with(
        r"Could not find nvcc|nvcc: (?:command )?not found|No CMAKE_CUDA_COMPILER could be "
        r"found|Failed to find nvcc"
    ),
    meaning="the build of an image with GGML_CUDA=ON finds no CUDA compiler",
    remedy="build in an image with the CUDA toolkit (nvidia/cuda:…-devel), or put nvcc on the PATH "
    "and set CUDACXX",
)

DRIVER_STUB_MISSING = Row(
    "DriverStubMissing",
    Subject.BUILD,
    "cannot find -lcuda",
    pattern=line_with(r"cannot find -lcuda\b|undefined reference to `?cuMem"),
    meaning="the linker finds no libcuda, which is part of the driver and not of the build's image",
    remedy="link with the stub of the CUDA toolkit (/usr/local/cuda/lib64/stubs); do not copy it "
    "into the image, where the container runtime adds the real one",
)

ROWS: tuple[Row, ...] = (
    OOM_KILLED,
    ILLEGAL_INSTRUCTION,
    UNKNOWN_ARCHITECTURE,
    RPC_SERVER_MISSING,
    SHARED_LIBRARY_MISSING,
    COMPUTE_ARCH_NOT_GIVEN,
    # Before any other command.
    COMPILER_MISSING,
    DRIVER_STUB_MISSING,
    COMMAND_NOT_FOUND,
    # After those that end a replica: it goes on after these.
    DECODE_FAILED,
    KV_CACHE_FULL,
)
