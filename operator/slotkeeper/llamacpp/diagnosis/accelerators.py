"""Rows about GPUs: their code, their driver, their devices and their memory.

The texts are those of llama.cpp b11434 (ggml-cuda.cu, common.cuh, ggml-vulkan.cpp, llama-model.cpp,
llama-kv-cache.cpp, llama-context.cpp), of the CUDA runtime, of NVIDIA's container toolkit and of
the Linux kernel module.
"""

from slotkeeper.llamacpp.diagnosis.row import Row, Subject, line_with

_GPU = Subject.ACCELERATOR

UVM_UNIT = """\
[Unit]
Description=Load nvidia-uvm before pods start
After=nvidia-persistenced.service
Before=kubelet.service containerd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/modprobe nvidia_uvm
ExecStart=-/usr/bin/nvidia-modprobe -u -c=0

[Install]
WantedBy=multi-user.target
"""
"""A systemd unit that loads the kernel module and creates its device files at each boot."""

COMPUTE_ARCH_NOT_BUILT = Row(
    "ComputeArchNotBuilt",
    _GPU,
    "has no device code compatible with CUDA arch",
    pattern=line_with(r"has no device code compatible with (?:CUDA|HIP) arch"),
    meaning="llama.cpp was built without code for the compute capability of this GPU",
    remedy="use an image that is built for it (CUDA_DOCKER_ARCH or CMAKE_CUDA_ARCHITECTURES), and "
    "set gpu.computeArch",
)
NO_KERNEL_IMAGE = Row(
    "NoKernelImage",
    _GPU,
    "no kernel image is available for execution on the device",
    pattern=line_with(r"no kernel image is available|device kernel image is invalid"),
    meaning="the image contains neither code for this GPU nor PTX that the driver can compile",
    remedy="set gpu.computeArch, and an image that is built for it; for an old GPU, an image of an "
    "older CUDA version",
)
PTX_NOT_SUPPORTED = Row(
    "PtxNotSupported",
    _GPU,
    "the provided PTX was compiled with an unsupported toolchain",
    pattern=line_with(r"provided PTX was compiled with an unsupported toolchain"),
    meaning="the image has only PTX for this GPU, from a newer CUDA version than the driver "
    "supports",
    remedy="update the node's driver, or use an image with code of its own for the GPU",
)
DRIVER_TOO_OLD = Row(
    "DriverTooOld",
    _GPU,
    "CUDA driver version is insufficient for CUDA runtime version",
    pattern=line_with(
        r"CUDA driver version is insufficient|unsatisfied condition: cuda ?>="
        r"|forward compatibility was attempted on non supported"
    ),
    is_survived=True,
    meaning="the image needs a newer CUDA version than the node's driver supports",
    remedy="update the driver of the node, or use an image of an older CUDA version",
)
DRIVER_MISMATCH = Row(
    "DriverMismatch",
    _GPU,
    "Driver/library version mismatch",
    pattern=line_with(
        r"driver/library version mismatch|unsupported display driver / cuda driver combination"
    ),
    is_survived=True,
    meaning="the driver's libraries were updated, and the kernel still runs the old module; or the "
    "image brings a libcuda of its own",
    remedy="drain and reboot the node; check that the image contains no libcuda.so.1",
)
FABRIC_MANAGER_NOT_RUNNING = Row(
    "FabricManagerNotRunning",
    _GPU,
    "failed to initialize CUDA: system not yet initialized",
    pattern=line_with(r"failed to initialize CUDA: system not yet initialized"),
    is_survived=True,
    meaning="GPUs with NVSwitch do not work until NVIDIA's fabric manager runs",
    remedy="start nvidia-fabricmanager on the node, of the same version as the driver",
)
CUDA_INIT_FAILED = Row(
    "CudaInitFailed",
    _GPU,
    "failed to initialize CUDA: unknown error",
    pattern=line_with(
        r"failed to initialize CUDA: (?:unknown error|initialization error"
        r"|OS call failed)|CUDA_ERROR_UNKNOWN"
    ),
    is_survived=True,
    meaning="the kernel module nvidia_uvm is not loaded on the node, or /dev/nvidia-uvm is missing",
    remedy="run modprobe nvidia_uvm on the node, load it at each boot by a systemd unit, and "
    "delete the pod",
    details="A unit that loads it before pods start, as "
    "`/etc/systemd/system/nvidia-uvm.service`; then `systemctl enable --now nvidia-uvm`:\n\n"
    f"```ini\n{UVM_UNIT}```\n\n"
    "If the module is loaded, reload it: `rmmod nvidia_uvm && modprobe nvidia_uvm`, with no "
    "process on the GPU.",
)
DRIVER_UNREACHABLE = Row(
    "DriverUnreachable",
    _GPU,
    "nvidia-container-cli: initialization error; unresolvable CDI devices; NVIDIA-SMI has failed",
    pattern=line_with(
        r"couldn't communicate with the NVIDIA driver|nvidia-container-cli[.a-z]{0,9}: "
        r"(?:initialization|detection|device|driver|mount) error(?!: nvml error: driver/library)"
        r"|unresolvable CDI devices|nvml error: driver not loaded"
    ),
    meaning="the container runtime cannot talk to the GPU's driver on this node",
    remedy="check nvidia-smi on the node, install or load the driver, generate the CDI "
    "specification again (nvidia-ctk cdi generate), and restart the device plugin",
)
DRIVER_LIBRARY_MISSING = Row(
    "DriverLibraryMissing",
    _GPU,
    "libcuda.so.1: cannot open shared object file",
    pattern=line_with(r"lib(?:cuda|nvidia-ml)\.so[.0-9]{0,9}: cannot open shared object file"),
    meaning="the container runtime did not add the driver's libraries to the container",
    remedy="set placement.runtimeClassName (nvidia), or make NVIDIA's runtime the default of the "
    "node; check that the pod requests gpu.resourceName",
)
DEVICE_FORBIDDEN = Row(
    "DeviceForbidden",
    _GPU,
    "failed to initialize ROCm; /dev/kfd: permission denied",
    pattern=line_with(
        r"failed to initialize ROCm|/dev/(?:kfd|dri)\S{0,40}.{0,40}permission denied"
        r"|permission denied.{0,40}/dev/(?:kfd|dri)"
    ),
    is_survived=True,
    meaning="ROCm finds no GPU: the user of the container may not open /dev/kfd and /dev/dri, or "
    "they are not in the container",
    remedy="set gpu.supplementalGroups to the groups of these files on the node (render, video), "
    "as numbers, and gpu.resourceName to amd.com/gpu",
)
NO_VULKAN_DEVICE = Row(
    "NoVulkanDevice",
    _GPU,
    "ggml_vulkan: No devices found.",
    pattern=line_with(r"ggml_vulkan: No devices found|ggml_vulkan: Error: Vulkan 1\.2 required"),
    is_survived=True,
    meaning="Vulkan finds no GPU in the container",
    remedy="check gpu.resourceName; the image needs a Vulkan driver (for NVIDIA, the capability "
    "graphics in NVIDIA_DRIVER_CAPABILITIES; for others, Mesa with libglvnd), and the user access "
    "to /dev/dri: gpu.supplementalGroups",
)

_ALLOCATION = r"allocating [0-9.]+ MiB on device|memory allocation of size [0-9]+ failed"
_LESS = "lower slots, contextPerSlot or gpu.layers, or set kvCacheType"

WEIGHTS_OUT_OF_MEMORY = Row(
    "WeightsOutOfMemory",
    _GPU,
    "error loading model: unable to allocate CUDA0 buffer",
    pattern=line_with(
        r"unable to allocate (?!CPU)\S{1,40} buffer"
        r"|alloc_tensor_range: failed to allocate (?!CPU)"
    ),
    quote=line_with(_ALLOCATION),
    meaning="the model's weights do not fit into the memory of the GPU",
    remedy="use a smaller quantization, more or larger GPUs (gpu.count, gpu.minMemory), or lower "
    "gpu.layers",
)
KV_CACHE_OUT_OF_MEMORY = Row(
    "KvCacheOutOfMemory",
    _GPU,
    "failed to allocate buffer for kv cache",
    pattern=line_with(r"failed to allocate buffer for (?:kv|rs) cache"),
    quote=line_with(_ALLOCATION),
    meaning="the weights fit into the memory of the GPU, and the KV cache of all slots does not",
    remedy=f"{_LESS} to a quantized type",
)
COMPUTE_OUT_OF_MEMORY = Row(
    "ComputeOutOfMemory",
    _GPU,
    "failed to allocate compute buffers",
    pattern=line_with(r"failed to allocate compute (?:pp |tg )?buffers"),
    quote=line_with(_ALLOCATION),
    meaning="weights and KV cache fit into the memory of the GPU, and the buffers for the "
    "computation do not",
    remedy=f"{_LESS} to a quantized type; --ubatch-size in extraArgs makes the buffers smaller",
)
GPU_OUT_OF_MEMORY = Row(
    "GpuOutOfMemory",
    _GPU,
    "CUDA error: out of memory",
    pattern=line_with(
        r"(?:CUDA|ROCm) error: out of memory|(?:cuda|hip)Malloc failed: out of memory"
        r"|ErrorOutOfDeviceMemory"
    ),
    quote=line_with(_ALLOCATION),
    meaning="the memory of the GPU is full, maybe with that of another process on a shared GPU",
    remedy=f"{_LESS} to a quantized type, so that some memory is left; check with nvidia-smi what "
    "else uses the GPU",
)
XID_ERROR = Row(
    "XidError",
    _GPU,
    "NVRM: Xid; CUDA error: an illegal memory access was encountered",
    pattern=line_with(
        r"NVRM: Xid|fallen off the bus|GPU is lost|CUDA error: (?:an illegal memory access"
        r"|unspecified launch failure|uncorrectable ECC error|the launch timed out"
        r"|an illegal instruction|misaligned address|hardware stack error)"
    ),
    meaning="the GPU or its driver has reported an error",
    remedy="find the Xid in the node's kernel log (dmesg) and in NVIDIA's list: 13 and "
    "31 are mostly of the program, 48, 63, 64, 74, 79, 94 and 95 of the hardware; then drain the "
    "node, and reset the GPU or reboot",
)
LAYERS_NOT_OFFLOADED = Row(
    "LayersNotOffloaded",
    _GPU,
    "offloaded 20/33 layers to GPU, with more in gpu.layers",
    meaning="llama-server keeps more of the model's layers on the CPU than gpu.layers says",
    remedy="check extraArgs for flags that move tensors to the CPU, and that the build supports "
    "the model's architecture on this GPU",
)
NO_DEVICE_FOUND = Row(
    "NoDeviceFound",
    _GPU,
    "no usable GPU found, --gpu-layers option will be ignored",
    pattern=line_with(
        r"no usable GPU found|not compiled with GPU offload support"
        r"|no (?:CUDA|ROCm)-capable device is detected"
    ),
    is_survived=True,
    meaning="llama-server found no GPU, and computes on the CPU",
    remedy="use an image that is built for the GPU (the default image is for CPUs: see the chart's "
    "images.llamaServerByComputeArch), and check that the container runtime adds the GPU "
    "(placement.runtimeClassName)",
)

ROWS: tuple[Row, ...] = (
    COMPUTE_ARCH_NOT_BUILT,
    NO_KERNEL_IMAGE,
    PTX_NOT_SUPPORTED,
    DRIVER_TOO_OLD,
    DRIVER_MISMATCH,
    FABRIC_MANAGER_NOT_RUNNING,
    CUDA_INIT_FAILED,
    # Before the missing library, which is that of the node in a message of the toolkit.
    DRIVER_UNREACHABLE,
    DRIVER_LIBRARY_MISSING,
    DEVICE_FORBIDDEN,
    NO_VULKAN_DEVICE,
    WEIGHTS_OUT_OF_MEMORY,
    KV_CACHE_OUT_OF_MEMORY,
    COMPUTE_OUT_OF_MEMORY,
    # After the three that say of what.
    GPU_OUT_OF_MEMORY,
    XID_ERROR,
    LAYERS_NOT_OFFLOADED,
    # After those that say why.
    NO_DEVICE_FOUND,
)
