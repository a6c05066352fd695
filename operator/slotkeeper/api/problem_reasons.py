"""Reasons of conditions. No pydantic: the image of the download container has none."""

from enum import StrEnum


class Reason(StrEnum):
    """Values of a condition's `reason`."""

    # As specified.
    SERVING = "Serving"
    DOWNLOADED = "Downloaded"
    PREFETCHED = "Prefetched"
    PROVIDED = "Provided"
    MINIMUM_REPLICAS_AVAILABLE = "MinimumReplicasAvailable"
    BALANCER_AVAILABLE = "BalancerAvailable"
    VALID_METRIC_FOUND = "ValidMetricFound"
    AS_EXPECTED = "AsExpected"
    ACTIVE = "Active"
    # In progress, or switched off.
    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    STARTING = "Starting"
    LOADING_MODEL = "LoadingModel"
    ROLLING_OUT = "RollingOut"
    WAITING_FOR_DELETION = "WaitingForDeletion"
    WAITING_FOR_SECRET = "WaitingForSecret"  # noqa: S105 (a reason)
    SCHEDULING_GATED = "SchedulingGated"
    SCALED_TO_ZERO = "ScaledToZero"
    SUSPENDED = "Suspended"
    SCALING_DISABLED = "ScalingDisabled"
    NO_REPLICA = "NoReplica"
    RESTORE_SLOWER = "RestoreSlower"
    # The model cannot be downloaded.
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_FORBIDDEN = "ModelForbidden"
    MODEL_DOWNLOAD_REJECTED = "ModelDownloadRejected"
    MODEL_CHECKSUM_MISMATCH = "ModelChecksumMismatch"
    MODEL_NOT_GGUF = "ModelNotGGUF"
    MODEL_UNREACHABLE = "ModelUnreachable"
    MODEL_SERVER_ERROR = "ModelServerError"
    MODEL_DOWNLOAD_INCOMPLETE = "ModelDownloadIncomplete"
    MODEL_URL_NOT_ALLOWED = "ModelURLNotAllowed"
    MODEL_ADDRESS_NOT_ALLOWED = "ModelAddressNotAllowed"
    MODEL_TOKEN_INVALID = "ModelTokenInvalid"  # noqa: S105 (a reason)
    MODEL_TOKEN_NOT_ALLOWED = "ModelTokenNotAllowed"  # noqa: S105 (a reason)
    MODEL_CA_INVALID = "ModelCAInvalid"
    MODEL_CERTIFICATE_NOT_TRUSTED = "ModelCertificateNotTrusted"
    MODEL_TOO_MANY_REDIRECTS = "ModelTooManyRedirects"
    MODEL_SIZE_UNKNOWN = "ModelSizeUnknown"
    MODEL_TOO_LARGE = "ModelTooLarge"
    MODEL_SPLIT = "ModelSplit"
    MODEL_AMBIGUOUS = "ModelAmbiguous"
    MODEL_TYPE_MISMATCH = "ModelTypeMismatch"
    INSUFFICIENT_STORAGE = "InsufficientStorage"
    STORAGE_ERROR = "StorageError"
    MODEL_DOWNLOAD_FAILED = "ModelDownloadFailed"
    # Pods do not run.
    NO_MATCHING_NODE = "NoMatchingNode"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    CREATE_CONTAINER_ERROR = "CreateContainerError"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    OOM_KILLED = "OOMKilled"
    FAILED_CREATE = "FailedCreate"
    REPLICA_UNRESPONSIVE = "ReplicaUnresponsive"
    # Balancers do not serve.
    NO_LEADER = "NoLeader"
    NO_SLOTS = "NoSlots"
    STALE_ENDPOINTS = "StaleEndpoints"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 (a reason)
    # Prompts are not restored from files.
    NOT_HONORED = "NotHonored"
    FOLDER_FULL = "FolderFull"
    UNREACHABLE = "Unreachable"
    # Beginnings of prompts are not computed.
    PROMPT_INVALID = "PromptInvalid"
    PRIMING_FAILED = "PrimingFailed"
    # The accelerators of replicas, as llamacpp.diagnosis finds.
    DEVICES_FOUND = "DevicesFound"
    LOG_UNAVAILABLE = "LogUnavailable"
    COMPUTE_ARCH_NOT_BUILT = "ComputeArchNotBuilt"
    NO_KERNEL_IMAGE = "NoKernelImage"
    PTX_NOT_SUPPORTED = "PtxNotSupported"
    DRIVER_TOO_OLD = "DriverTooOld"
    DRIVER_MISMATCH = "DriverMismatch"
    FABRIC_MANAGER_NOT_RUNNING = "FabricManagerNotRunning"
    CUDA_INIT_FAILED = "CudaInitFailed"
    DRIVER_UNREACHABLE = "DriverUnreachable"
    DRIVER_LIBRARY_MISSING = "DriverLibraryMissing"
    DEVICE_FORBIDDEN = "DeviceForbidden"
    NO_VULKAN_DEVICE = "NoVulkanDevice"
    WEIGHTS_OUT_OF_MEMORY = "WeightsOutOfMemory"
    KV_CACHE_OUT_OF_MEMORY = "KvCacheOutOfMemory"
    COMPUTE_OUT_OF_MEMORY = "ComputeOutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    XID_ERROR = "XidError"
    LAYERS_NOT_OFFLOADED = "LayersNotOffloaded"
    NO_DEVICE_FOUND = "NoDeviceFound"
    # Whether the model fits into the GPUs, by a plan.
    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    AUTO_NOT_CHOSEN = "AutoNotChosen"
    NOT_PLANNED = "NotPlanned"
    READING_HEADER = "ReadingHeader"
    GPU_MEMORY_UNKNOWN = "GpuMemoryUnknown"
    HEADER_UNAVAILABLE = "HeaderUnavailable"
    # Other problems.
    KNOWN_VULNERABLE_BUILD = "KnownVulnerableBuild"
    SPECULATION_INACTIVE = "SpeculationInactive"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    DUPLICATE_MODEL = "DuplicateModel"
    UNKNOWN_MODEL = "UnknownModel"
    EXCEEDS_BUDGET = "ExceedsBudget"
    INVALID_SPEC = "InvalidSpec"
    NO_IMAGE_FOR_GPU = "NoImageForGPU"
    NODE_CACHE_NOT_ALLOWED = "NodeCacheNotAllowed"
    NODE_CACHE_UNAVAILABLE = "NodeCacheUnavailable"
    NAME_CONFLICT = "NameConflict"
    APPLY_REJECTED = "ApplyRejected"
    FIELD_CONFLICT = "FieldConflict"


ACCELERATOR_REASONS = (
    Reason.COMPUTE_ARCH_NOT_BUILT,
    Reason.NO_KERNEL_IMAGE,
    Reason.PTX_NOT_SUPPORTED,
    Reason.DRIVER_TOO_OLD,
    Reason.DRIVER_MISMATCH,
    Reason.FABRIC_MANAGER_NOT_RUNNING,
    Reason.CUDA_INIT_FAILED,
    Reason.DRIVER_UNREACHABLE,
    Reason.DRIVER_LIBRARY_MISSING,
    Reason.DEVICE_FORBIDDEN,
    Reason.NO_VULKAN_DEVICE,
    Reason.WEIGHTS_OUT_OF_MEMORY,
    Reason.KV_CACHE_OUT_OF_MEMORY,
    Reason.COMPUTE_OUT_OF_MEMORY,
    Reason.GPU_OUT_OF_MEMORY,
    Reason.XID_ERROR,
    Reason.LAYERS_NOT_OFFLOADED,
    Reason.NO_DEVICE_FOUND,
)
"""Why the accelerators of replicas are not used as requested. A test compares them with the table
of diagnoses, which this folder does not import."""

DOWNLOAD_REASONS = frozenset(
    {
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_FORBIDDEN,
        Reason.MODEL_DOWNLOAD_REJECTED,
        Reason.MODEL_CHECKSUM_MISMATCH,
        Reason.MODEL_NOT_GGUF,
        Reason.MODEL_UNREACHABLE,
        Reason.MODEL_SERVER_ERROR,
        Reason.MODEL_DOWNLOAD_INCOMPLETE,
        Reason.MODEL_URL_NOT_ALLOWED,
        Reason.MODEL_ADDRESS_NOT_ALLOWED,
        Reason.MODEL_TOKEN_INVALID,
        Reason.MODEL_TOKEN_NOT_ALLOWED,
        Reason.MODEL_CA_INVALID,
        Reason.MODEL_CERTIFICATE_NOT_TRUSTED,
        Reason.MODEL_TOO_MANY_REDIRECTS,
        Reason.MODEL_SIZE_UNKNOWN,
        Reason.MODEL_TOO_LARGE,
        Reason.MODEL_SPLIT,
        Reason.MODEL_AMBIGUOUS,
        Reason.MODEL_TYPE_MISMATCH,
        Reason.INSUFFICIENT_STORAGE,
        Reason.STORAGE_ERROR,
    }
)
"""Reasons that the download container may report in its termination message."""

PERMANENT = frozenset(
    {
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_FORBIDDEN,
        Reason.MODEL_DOWNLOAD_REJECTED,
        Reason.MODEL_CHECKSUM_MISMATCH,
        Reason.MODEL_NOT_GGUF,
        Reason.MODEL_URL_NOT_ALLOWED,
        Reason.MODEL_ADDRESS_NOT_ALLOWED,
        Reason.MODEL_TOKEN_INVALID,
        Reason.MODEL_TOKEN_NOT_ALLOWED,
        Reason.MODEL_CA_INVALID,
        Reason.MODEL_CERTIFICATE_NOT_TRUSTED,
        Reason.MODEL_TOO_MANY_REDIRECTS,
        Reason.MODEL_SIZE_UNKNOWN,
        Reason.MODEL_TOO_LARGE,
        Reason.MODEL_SPLIT,
        Reason.MODEL_AMBIGUOUS,
        Reason.MODEL_TYPE_MISMATCH,
        Reason.IMAGE_PULL_BACK_OFF,
        Reason.CREATE_CONTAINER_ERROR,
        Reason.SECRET_NOT_FOUND,
        Reason.NAME_CONFLICT,
        Reason.APPLY_REJECTED,
        Reason.EXCEEDS_BUDGET,
        Reason.DOES_NOT_FIT,
    }
)
"""Problems that do not resolve themselves. The others may: a GPU is released, a cluster autoscaler
adds a node (even of a kind that does not exist yet), the host of a model is available again."""

PERMANENT_WHEN_LOOPING = frozenset(
    {Reason.CRASH_LOOP_BACK_OFF, Reason.MODEL_DOWNLOAD_FAILED, Reason.OOM_KILLED}
)
"""Permanent only after a retry: a container that failed once may succeed the next time."""
