"""Every reason that a condition may have: one table for the code, the tests and the reference."""

from slotkeeper.api import memory_reasons, prompt_reasons
from slotkeeper.api.conditions import ConditionType
from slotkeeper.api.problem_reasons import ACCELERATOR_REASONS, Reason
from slotkeeper.api.reason_doc import ReasonDoc, Severity

READY = ConditionType.READY
MODEL = ConditionType.MODEL_READY
REPLICAS = ConditionType.REPLICAS_READY
BALANCER = ConditionType.BALANCER_READY
SCALING = ConditionType.SCALING_ACTIVE
PROMPTS = ConditionType.PROMPT_CACHE_ACTIVE
PRIMED = ConditionType.PROMPTS_PRIMED
ACCELERATOR = ConditionType.ACCELERATOR_READY
MEMORY = ConditionType.FITS_MEMORY
DEGRADED = ConditionType.DEGRADED


_GOOD = Severity.GOOD
_IN_PROGRESS = Severity.IN_PROGRESS
_PROBLEM = Severity.PROBLEM
_PODS = (REPLICAS, BALANCER)
# A replica without its model is not ready either.
_MODEL = (MODEL, REPLICAS)

TABLE = (
    ReasonDoc(
        (READY,),
        (Reason.SERVING,),
        _GOOD,
        "requests are served by replicas, or gateway pods, of the current spec",
    ),
    ReasonDoc(
        (MODEL,),
        (Reason.DOWNLOADED,),
        _GOOD,
        "the model is downloaded, and verified if `sha256` is set",
    ),
    ReasonDoc(
        (MODEL,),
        (Reason.PREFETCHED,),
        _GOOD,
        "the model is downloaded, and verified if `sha256` is set, and no replica has read it "
        "yet: see `model.prefetch`. With `model.cache.node` that was on one node, and it may have "
        "been removed for others since",
    ),
    ReasonDoc(
        (MODEL,),
        (Reason.PROVIDED,),
        _GOOD,
        "the model is on a claim (`pvc://`), where it was found and verified, or in llama-server's "
        "image (`image://`)",
    ),
    ReasonDoc(
        (REPLICAS,),
        (Reason.MINIMUM_REPLICAS_AVAILABLE,),
        _GOOD,
        "the desired number of replicas is ready; with `autoscaling`, at least `minReplicas`",
    ),
    ReasonDoc(
        (BALANCER,),
        (Reason.BALANCER_AVAILABLE,),
        _GOOD,
        "at least one balancer of the current spec accepts requests, which is enough",
    ),
    ReasonDoc(
        (SCALING,),
        (Reason.VALID_METRIC_FOUND,),
        _GOOD,
        "demand determines the number of replicas",
    ),
    ReasonDoc((DEGRADED,), (Reason.AS_EXPECTED,), _GOOD, "no problems detected"),
    ReasonDoc(
        (PROMPTS, PRIMED),
        (Reason.ACTIVE,),
        _GOOD,
        "prompts are saved to files and restored from them; for `PromptsPrimed`, new replicas "
        "compute the beginnings of prompts",
    ),
    ReasonDoc(
        (ACCELERATOR,),
        (Reason.DEVICES_FOUND,),
        _GOOD,
        "the log of a replica shows that it uses its GPUs; the message contains their names",
    ),
    ReasonDoc((READY, MODEL, REPLICAS), (Reason.PENDING,), _IN_PROGRESS, "no pod has started yet"),
    ReasonDoc(
        (MODEL,),
        (Reason.DOWNLOADING,),
        _IN_PROGRESS,
        "a replica, or the Job of `model.prefetch`, is downloading the model, or verifies it on a "
        "claim",
    ),
    ReasonDoc(
        (*_PODS, SCALING, PROMPTS, PRIMED, ACCELERATOR),
        (Reason.STARTING,),
        _IN_PROGRESS,
        "pods are starting; for `ScalingActive`, `PromptCacheActive` and `PromptsPrimed`, there is "
        "no report from a balancer yet; for `AcceleratorReady`, no log of a replica has been read "
        "yet",
    ),
    ReasonDoc((REPLICAS,), (Reason.LOADING_MODEL,), _IN_PROGRESS, "llama-server loads the model"),
    ReasonDoc(
        _PODS,
        (Reason.ROLLING_OUT,),
        _IN_PROGRESS,
        "pods are being replaced by pods of the current spec; for `BalancerReady`, none of these "
        "is ready yet",
    ),
    ReasonDoc(_PODS, (Reason.SCHEDULING_GATED,), _IN_PROGRESS, "pods wait for Kueue, or a gate"),
    ReasonDoc(
        (MODEL, REPLICAS),
        (Reason.SCALED_TO_ZERO,),
        _IN_PROGRESS,
        "the desired number of replicas is 0. With `autoscaling`, Ready is True: the next request "
        "starts a replica",
    ),
    ReasonDoc(
        (MODEL, *_PODS, SCALING, PROMPTS, PRIMED, ACCELERATOR, MEMORY),
        (Reason.SUSPENDED,),
        _IN_PROGRESS,
        "`suspend` is true",
    ),
    ReasonDoc((SCALING,), (Reason.SCALING_DISABLED,), _IN_PROGRESS, "`autoscaling` is not set"),
    ReasonDoc((PROMPTS, ACCELERATOR), (Reason.NO_REPLICA,), _IN_PROGRESS, "no replica is ready"),
    ReasonDoc(
        (ACCELERATOR,),
        (Reason.LOG_UNAVAILABLE,),
        _IN_PROGRESS,
        "the start of a replica's log cannot be read, or does not show devices: the message "
        "contains why. The chart's value `rbac.podLogs` lets the operator read logs",
    ),
    ReasonDoc(
        (PROMPTS,),
        (Reason.RESTORE_SLOWER,),
        _IN_PROGRESS,
        "to read a prompt's file takes longer than to compute the prompt, as measured: a faster "
        "volume may help",
    ),
    ReasonDoc(
        (READY, MODEL, *_PODS),
        (Reason.WAITING_FOR_SECRET,),
        _IN_PROGRESS,
        "the volumes of a pod, which include a Secret, are not mounted yet",
    ),
    ReasonDoc(
        (READY,),
        (Reason.WAITING_FOR_DELETION,),
        _IN_PROGRESS,
        "objects of a deleted server with the same name are still terminating",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_NOT_FOUND, Reason.MODEL_FORBIDDEN, Reason.MODEL_DOWNLOAD_REJECTED),
        _PROBLEM,
        "the message contains the URL and the HTTP status: correct `model.url`, or set "
        "`model.tokenSecretRef`",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_CHECKSUM_MISMATCH,),
        _PROBLEM,
        "the file's SHA-256 is not `sha256`; the file is not served",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_NOT_GGUF,),
        _PROBLEM,
        "the file at the URL is not a GGUF file, often a web page",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_UNREACHABLE, Reason.MODEL_SERVER_ERROR, Reason.MODEL_DOWNLOAD_INCOMPLETE),
        _PROBLEM,
        "the download is retried with exponential back-off, up to five minutes apart",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_URL_NOT_ALLOWED, Reason.MODEL_TOO_MANY_REDIRECTS, Reason.MODEL_SIZE_UNKNOWN),
        _PROBLEM,
        "the URL, or the response to it, is not suitable for a download",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_ADDRESS_NOT_ALLOWED,),
        _PROBLEM,
        "a host of a URL, of a redirect, or a proxy has only addresses that downloads [may not "
        "connect to](../concepts/model-sources.md#addresses)",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_TOKEN_INVALID,),
        _PROBLEM,
        "the Secret's entry in `model.tokenSecretRef` contains no token, or more than a token; or "
        "an entry of the Secret in `model.s3.secretRef` is not an access key",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_TOKEN_NOT_ALLOWED,),
        _PROBLEM,
        "the host of a URL is not in the entry `hosts` of the Secret in `model.tokenSecretRef` or "
        "`model.s3.secretRef`, or the URL is http:// outside of the cluster: the token is not "
        "sent, and the access key not used",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_CA_INVALID,),
        _PROBLEM,
        "the ConfigMap in `model.download.caConfigMapRef`, or its entry, is missing or contains no "
        "certificate in PEM format",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_CERTIFICATE_NOT_TRUSTED,),
        _PROBLEM,
        "the certificate of the model host is of an unknown authority, of another host, or has "
        "expired",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_TOO_LARGE,),
        _PROBLEM,
        "a file is larger than `model.download.maxFileSize`, or than the whole cache of a node",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_SPLIT,),
        _PROBLEM,
        "a file of a split model is of another model, or has another place in it; or a file is one "
        "of a split model, and `model.url` is not that of the first",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_AMBIGUOUS,),
        _PROBLEM,
        "a repository, an artifact or an image has several files that the URL may mean; the "
        "message lists them: use a URL that names one",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_TYPE_MISMATCH,),
        _PROBLEM,
        "according to its GGUF header, a file is not what its field is for: a model, a projector, "
        "or an adapter of the model's architecture",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.INSUFFICIENT_STORAGE, Reason.STORAGE_ERROR),
        _PROBLEM,
        "the node's disk, or the volume of `model.cache.claimName`, is full or fails; or all files "
        "of the node's cache are in use",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.MODEL_DOWNLOAD_FAILED,),
        _PROBLEM,
        "the download container terminated without a reason",
    ),
    ReasonDoc(
        (REPLICAS,),
        (Reason.NO_MATCHING_NODE,),
        _PROBLEM,
        "no node has GPUs of `gpu.computeArch`, or with `gpu.minMemory`; the message lists what "
        "the cluster has",
    ),
    ReasonDoc(
        _PODS,
        (Reason.UNSCHEDULABLE,),
        _PROBLEM,
        "no node fits; for GPUs, for example `waiting for 1 nvidia.com/gpu`",
    ),
    ReasonDoc(
        (MODEL, *_PODS),
        (Reason.IMAGE_PULL_BACK_OFF,),
        _PROBLEM,
        "the message contains the image: correct `image`, or the chart's `images`",
    ),
    ReasonDoc(
        (MODEL, *_PODS),
        (Reason.CREATE_CONTAINER_ERROR,),
        _PROBLEM,
        "an object in `podTemplate` does not exist; the message contains its name",
    ),
    ReasonDoc(
        _PODS,
        (Reason.CRASH_LOOP_BACK_OFF,),
        _PROBLEM,
        "the message contains the program's exit code, and the line of its log that states why; or "
        "the signal that ended it",
    ),
    ReasonDoc(
        (MODEL, *_PODS),
        (Reason.OOM_KILLED,),
        _PROBLEM,
        "a container used more memory than its limit; the message contains the limit's field",
    ),
    ReasonDoc(
        (READY, MODEL, *_PODS),
        (Reason.SECRET_NOT_FOUND,),
        _PROBLEM,
        "the volumes of a pod have not been mounted for a minute, or ten if some are disks: create "
        "the Secret in `model.tokenSecretRef`, `model.s3.secretRef`, "
        "`balancer.apiKeys.secretName` or `podTemplate`, with its entries; of a gateway, in "
        "`apiKeys.secretRef` or `tls.secretName`. If it exists, the pod's events show the cause",
    ),
    ReasonDoc(
        _MODEL,
        (Reason.NODE_CACHE_UNAVAILABLE,),
        _PROBLEM,
        "the cache of a pod's node has had no folder for the pod for a minute: the chart's "
        "DaemonSet does not run on the node. Check `nodeCache.nodeSelector` and "
        "`nodeCache.tolerations`, or keep replicas off the node by `nodeSelector`",
    ),
    ReasonDoc(
        _PODS,
        (Reason.FAILED_CREATE,),
        _PROBLEM,
        "a quota, a LimitRange, an admission policy or Pod Security rejects the pods: change it, "
        "or set "
        "`resources`, `model.download.resources`, `workers.resources` or `balancer.resources`",
    ),
    ReasonDoc(
        (REPLICAS,),
        (Reason.REPLICA_UNRESPONSIVE,),
        _PROBLEM,
        "a llama-server runs, and no longer responds on `/health` or `/slots`. It gets no "
        "requests, and is restarted after `unresponsiveSeconds`",
    ),
    ReasonDoc(
        (BALANCER,),
        (Reason.NO_LEADER,),
        _PROBLEM,
        "all balancers respond, and none is the leader: check their logs, and that they reach the "
        "API server and each other",
    ),
    ReasonDoc(
        (BALANCER,),
        (Reason.STALE_ENDPOINTS,),
        _PROBLEM,
        "for two minutes a balancer has not been able to read the replicas and access rules from "
        "the API server: check the network, and its ServiceAccount, Role and RoleBinding",
    ),
    ReasonDoc(
        (BALANCER,),
        (Reason.NO_SLOTS,),
        _PROBLEM,
        "a replica is ready, and the balancer has no slots to dispatch to: check its log, and that "
        "it reaches port 8080 of the replicas",
    ),
    ReasonDoc(
        (SCALING,),
        (Reason.METRICS_UNAVAILABLE,),
        _PROBLEM,
        "no metrics from any balancer since `lastTransitionTime`: the number of replicas is kept",
    ),
    *prompt_reasons.PROBLEMS,
    *memory_reasons.TABLE,
    ReasonDoc(
        (ACCELERATOR,),
        ACCELERATOR_REASONS,
        _PROBLEM,
        "a GPU, its driver or its memory keeps a replica from running, or from using the GPU; the "
        "message contains the meaning and the remedy, as [troubleshooting](../troubleshooting.md) "
        "does",
    ),
    ReasonDoc(
        (DEGRADED,),
        (Reason.KNOWN_VULNERABLE_BUILD,),
        _PROBLEM,
        "llama-server is of a build with [published vulnerabilities]"
        "(../troubleshooting.md#known-vulnerable-builds) that the server is exposed to: use a "
        "newer image, or accept them by the annotation `slotkeeper.dev/accepted-advisories`",
    ),
    ReasonDoc(
        (DEGRADED,),
        (Reason.DUPLICATE_MODEL,),
        _PROBLEM,
        "two LlamaServers that a gateway selects have the same model name; the older one is used: "
        "set another `model.alias`. Or an external backend has the model name of a LlamaServer or "
        "of an earlier backend, which is used",
    ),
    ReasonDoc(
        (DEGRADED,),
        (Reason.UNKNOWN_MODEL,),
        _PROBLEM,
        "`defaultModel`, an alias, a route, a fallback or a shadow of a gateway refers to a model "
        "that neither a selected LlamaServer nor an external backend serves. Requests for the name "
        "are rejected with status 404; routes and fallbacks use their other models",
    ),
    ReasonDoc(
        (REPLICAS,),
        (Reason.EXCEEDS_BUDGET,),
        _PROBLEM,
        "a replica never fits into the `budget` of the server's gateway, alone or beside the "
        "`minReplicas` of the other servers. Requests are rejected after ten seconds with status "
        "503: raise the budget, or lower the GPUs or the memory that a replica requests",
    ),
    ReasonDoc(
        (READY, MODEL, *_PODS, SCALING),
        (Reason.INVALID_SPEC,),
        _PROBLEM,
        "the spec breaks a rule; the message contains the field and what is allowed",
    ),
    ReasonDoc(
        (READY, MODEL, *_PODS, SCALING),
        (Reason.NODE_CACHE_NOT_ALLOWED,),
        _PROBLEM,
        "`model.cache.node` is true, and the operator was installed without the chart value "
        "`nodeCache.enabled`; or `promptCache.node` is true without `nodeCache.promptsPath`: "
        "change one of the two. Running pods are kept until then",
    ),
    ReasonDoc(
        (READY, MODEL, *_PODS, SCALING),
        (Reason.NO_IMAGE_FOR_GPU,),
        _PROBLEM,
        "the chart's `images` have none for the GPUs, or none for all that `gpu.computeArch: auto` "
        "found; the message contains the value to set. Running pods are kept until then",
    ),
    ReasonDoc(
        (READY,),
        (Reason.NAME_CONFLICT,),
        _PROBLEM,
        "an object with the name of a child exists, and is not owned by this server; the message "
        "contains the commands that resolve it",
    ),
    ReasonDoc(
        (READY,),
        (Reason.APPLY_REJECTED,),
        _PROBLEM,
        "the API server, an admission policy or a webhook rejects a child; the message contains "
        "the reason",
    ),
    ReasonDoc(
        (DEGRADED,),
        (Reason.SPECULATION_INACTIVE,),
        _PROBLEM,
        "replicas serve without the speculative decoding of `speculative`, for example since the "
        "draft has other tokens than the model: llama-server's log has the cause",
    ),
    ReasonDoc(
        (DEGRADED,),
        (Reason.FIELD_CONFLICT,),
        _PROBLEM,
        "another field manager, which the message names, repeatedly sets a field of a child: stop "
        "one of the two. Corrections back off, up to five minutes apart",
    ),
)

_SEVERITIES = {reason: row.severity for row in TABLE for reason in row.reasons}


def severity(reason: Reason) -> Severity:
    """Return the severity of a reason."""
    return _SEVERITIES[reason]


def is_allowed(condition: str, reason: str) -> bool:
    """Whether a condition of this type may have this reason."""
    rows = [row for row in TABLE if reason in row.reasons]
    if any(condition in row.conditions for row in rows):
        return True
    # Ready takes its reason from a condition that is not True, Degraded from any problem.
    if condition == DEGRADED:
        return any(row.severity is Severity.PROBLEM for row in rows)
    parts = {MODEL, REPLICAS, BALANCER}
    return condition == READY and any(
        row.severity is not Severity.GOOD and parts & {*row.conditions} for row in rows
    )
