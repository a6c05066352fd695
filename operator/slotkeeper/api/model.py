"""The model: `spec.model`."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from slotkeeper.api.download import Download
from slotkeeper.api.in_cluster import HTTP_URL
from slotkeeper.api.model_url import (
    CLAIM_URL,
    HUB_URL,
    IMAGE_URL,
    LOCAL,
    OCI_URL,
    S3_URL,
    TRAVERSAL,
    is_local,
)
from slotkeeper.api.oci import Oci
from slotkeeper.api.placement import Name
from slotkeeper.api.resources import DiskSize
from slotkeeper.api.s3 import S3
from slotkeeper.api.split_model import ANY_PART, FIRST_PART, MAX_PARTS, part_count
from slotkeeper.api.validation import ApiModel, Rule, matches

_ONLY_PART = r"-00001-of-00001[.]gguf([?#@]|$)"


def _authority(url: str) -> str:
    _, _, rest = url.partition("://")
    for end in "/?#":
        rest, _, _ = rest.partition(end)
    return rest


_Location = Annotated[
    str,
    Field(max_length=2048),
    matches(
        "(https?://[^/?#]|hf://|s3://|oci://|pvc://|image://).*",
        "must start with http:// or https:// and a host, such as https://example.com/model.gguf, "
        "or with hf://, s3://, oci://, pvc:// or image://",
    ),
    matches("[!-~]*", "must be printable ASCII without spaces: encode a space as %20"),
    Rule(
        "!self.matches(r'^https?://[^/?#]*@')",
        "must not contain a user name or password: they are visible in the resource",
        lambda url: not url.startswith("http") or "@" not in _authority(url),
    ),
    Rule(
        f"!self.matches(r'{LOCAL}') || self.matches(r'^({CLAIM_URL}|{IMAGE_URL})$')",
        "must be pvc://CLAIM/PATH with the name of a PersistentVolumeClaim, or image:///PATH "
        "with a path in llama-server's image: letters, digits, '-', '.', '_', '+', '@', '=', '~'",
        lambda url: not is_local(url) or re.fullmatch(f"{CLAIM_URL}|{IMAGE_URL}", url) is not None,
    ),
    Rule(
        f"!self.startsWith('hf://') || self.matches(r'^{HUB_URL}$')",
        "must be hf://ORG/REPOSITORY/FILE.gguf or hf://ORG/REPOSITORY:QUANTIZATION, optionally "
        "with @REVISION; for a file with other characters than letters, digits and '-._+=~()' in "
        "its name, use its https:// URL",
        lambda url: not url.startswith("hf://") or re.fullmatch(HUB_URL, url) is not None,
    ),
    Rule(
        f"!self.startsWith('s3://') || self.matches(r'^{S3_URL}$')",
        "must be s3://BUCKET/KEY; for a key with other characters than letters, digits, '/' and "
        "'-._+@=~', use a signed https:// URL",
        lambda url: not url.startswith("s3://") or re.fullmatch(S3_URL, url) is not None,
    ),
    Rule(
        f"!self.startsWith('oci://') || self.matches(r'^{OCI_URL}$')",
        "must be oci://REGISTRY/REPOSITORY:TAG, with @sha256:DIGEST after or instead of the tag, "
        "and then optionally /PATH of one of several files: letters, digits, '-', '.', '_', '+', "
        "'=', '~'; without tag, digest and path the tag is latest",
        lambda url: not url.startswith("oci://") or re.fullmatch(OCI_URL, url) is not None,
    ),
    Rule(
        f"!self.matches(r'{TRAVERSAL}')",
        "must not contain '/./' or '/../': such a path may be another one than it seems",
        lambda url: re.search(TRAVERSAL, url) is None,
    ),
]

ModelUrl = Annotated[
    _Location,
    Rule(
        f"!self.matches(r'{ANY_PART}') || self.matches(r'{FIRST_PART}')",
        "must be the first file of a split model, such as model-00001-of-00003.gguf: the others, "
        f"up to {MAX_PARTS} in all, are downloaded with it",
        lambda url: not re.search(ANY_PART, url) or re.search(FIRST_PART, url) is not None,
    ),
]

FileUrl = Annotated[
    _Location,
    Rule(
        f"!self.matches(r'{ANY_PART}') || self.matches(r'{_ONLY_PART}')",
        "must not be one file of several, such as lora-00001-of-00003.gguf: projectors, "
        "adapters and drafts must be single files. Merge them with `llama-gguf-split --merge`",
        lambda url: not re.search(ANY_PART, url) or re.search(_ONLY_PART, url) is not None,
    ),
]

MODEL_NAME = "[a-zA-Z0-9][-._:/@+a-zA-Z0-9]*"
ModelName = Annotated[
    str,
    Field(max_length=128),
    matches(
        MODEL_NAME,
        "must start with a letter or digit, and contain only letters, digits, '-', '.', '_', ':', "
        "'/', '@' and '+'",
    ),
]

Sha256 = Annotated[
    str,
    Field(max_length=64),
    matches("[0-9a-fA-F]{64}", "must be 64 hexadecimal digits, as printed by `sha256sum FILE`"),
]


class TokenSecret(ApiModel):
    """Secret with a bearer token for downloads. Its entry `hosts` must list the hosts that may
    receive the token."""

    name: Name
    """Name of the Secret in the server's namespace. Example: huggingface"""

    key: Annotated[
        str,
        Field(max_length=253),
        matches(
            "[-._a-zA-Z0-9]+",
            "must be the name of an entry of the Secret: letters, digits, '-', '_' and '.'",
        ),
        Rule(
            "self != 'hosts'",
            "must not be hosts: that entry lists the hosts that may receive the token",
            lambda key: key != "hosts",
        ),
    ] = "token"
    """Entry of the Secret that contains the token and nothing else. The entry `hosts` lists the
    names of the hosts that may receive it, separated by spaces or commas: a Secret without that
    entry is never sent. Default: token. Example: HF_TOKEN"""

    allow_http: bool = False
    """Whether the token is also sent by http://, which others can read, to hosts of the cluster:
    those whose names end with .svc or .svc.cluster.local. Default: false. Example: true"""


_NOT_VERIFIED_IN_IMAGE = (
    "with image://: a file in an image is not verified, use its digest in image"
)

NO_SHA256_IN_IMAGE = Rule(
    "!has(self.sha256) || !self.url.startsWith('image://')",
    f"must not have sha256 {_NOT_VERIFIED_IN_IMAGE}",
    lambda file: file.sha256 is None or not file.url.startswith("image://"),
)


class Projector(ApiModel):
    """Multimodal projector of a model that sees or hears: a GGUF file next to the model's."""

    rules: ClassVar = (NO_SHA256_IN_IMAGE,)

    url: FileUrl
    """URL of the GGUF file, of the same kinds as that of the model.
    Example: https://example.com/mmproj.gguf"""

    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 hexadecimal digits. Default: not verified.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""

    offload: bool = True
    """Whether the projector is on a GPU, if the server has one. false: in main memory, and the CPU
    computes it: images take seconds longer, and the GPU has more memory for the model. Default:
    true. Example: false"""


class Adapter(ApiModel):
    """LoRA adapter: a GGUF file that fine-tunes the model."""

    rules: ClassVar = (NO_SHA256_IN_IMAGE,)

    url: FileUrl
    """URL of the GGUF file, of the same kinds as that of the model.
    Example: https://example.com/legal-lora.gguf"""

    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 hexadecimal digits. Default: not verified.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""

    scale: Annotated[float, Field(ge=-100, le=100)] = 1.0
    """Weight of the adapter, -100 to 100. With 0 it is loaded, but applies only to requests that
    set their own weight. Default: 1. Example: 0.5"""


Verify = Annotated[Literal["Changed", "Always"], Field(json_schema_extra={"maxLength": 7})]


class Cache(ApiModel):
    """Storage of downloaded files."""

    rules: ClassVar = (
        Rule(
            "!has(self.claimName) || !has(self.sizeLimit)",
            "sizeLimit must not be set with claimName: a claim has its own size",
            lambda cache: cache.claim_name is None or cache.size_limit is None,
        ),
        Rule(
            "!has(self.node) || !self.node || !has(self.claimName) && !has(self.sizeLimit)",
            "claimName and sizeLimit must not be set with node: the files are on the node's disk, "
            "and the administrator sets their limit",
            lambda cache: not cache.node or (cache.claim_name is None and cache.size_limit is None),
        ),
    )

    claim_name: Name | None = None
    """Name of a PersistentVolumeClaim in the server's namespace. Files in it outlive pods, and are
    shared by all replicas and by other servers: each file is downloaded once. Replicas on several
    nodes need the access mode ReadWriteMany. Files are never removed. Default: each pod has its own
    files, which are deleted with it. Example: models"""

    node: bool = False
    """Whether files are in a folder of the node, which all replicas of the namespace on it share:
    each file is downloaded once for each node, and outlives pods. The least recently used files
    are removed while they exceed the administrator's limit, but never one that a pod of the node
    uses. The administrator must have allowed it (chart value nodeCache.enabled), and Pod Security
    must allow hostPath volumes in the namespace. Default: false. Example: true"""

    verify: Verify = "Changed"
    """When an existing file is read again to verify its SHA-256. Changed: if it was written since
    the last time, according to its times and size. Always: whenever a replica starts, which takes
    minutes for a large model. For a claim that others can write to: they can also write what is
    remembered of a file. Default: Changed. Example: Always"""

    size_limit: DiskSize | None = None
    """Maximum size of the files of one pod on its node's disk, a quantity from 1Mi to 16Ti.
    Kubernetes evicts a pod with larger files. Default: no limit. Example: 40Gi"""

    @property
    def outlives_pods(self) -> bool:
        """Whether files are kept when the pod that downloaded them is deleted."""
        return self.node or self.claim_name is not None


def _safe_for_token(url: str) -> str:
    return (
        f"(!{url}.startsWith('http://') || "
        f"self.tokenSecretRef.allowHttp && {url}.matches(r'^(?:{HTTP_URL})$'))"
    )


def _is_safe_for_token(model: Any) -> bool:
    if model.token_secret_ref is None:
        return True
    projectors = [model.mmproj] if model.mmproj else []
    urls = [file.url for file in (model, *projectors, *model.adapters)]
    urls += [model.download.hub_endpoint] if model.download.hub_endpoint else []
    return all(
        not url.startswith("http://")
        or (model.token_secret_ref.allow_http and re.fullmatch(HTTP_URL, url) is not None)
        for url in urls
    )


_IN_CLUSTER_REGISTRY = "^oci://[^/:]+[.]svc([.]cluster[.]local)?[:/]"


def _has_registry_in_cluster(model: Any) -> bool:
    projectors = [model.mmproj] if model.mmproj else []
    files = (model, *projectors, *model.adapters)
    return any(re.search(_IN_CLUSTER_REGISTRY, file.url) for file in files)


class Model(ApiModel):
    """The model, and the files that are loaded with it. All files are downloaded and verified
    before a replica starts, apart from those in llama-server's image."""

    rules: ClassVar = (
        Rule(
            f"!has(self.tokenSecretRef) || {_safe_for_token('self.url')} && "
            f"(!has(self.mmproj) || {_safe_for_token('self.mmproj.url')}) && "
            "(!has(self.adapters) || self.adapters.all(adapter, "
            f"{_safe_for_token('adapter.url')})) && "
            "(!has(self.download) || !has(self.download.hubEndpoint) || "
            f"{_safe_for_token('self.download.hubEndpoint')})",
            "must have only https:// URLs with tokenSecretRef, because others can read a token in "
            "http://. For hosts of the cluster, which end with .svc or .svc.cluster.local, set "
            "tokenSecretRef.allowHttp",
            _is_safe_for_token,
        ),
        NO_SHA256_IN_IMAGE,
        Rule(
            "!has(self.oci) || !self.oci.plainHttp || "
            f"self.url.matches(r'{_IN_CLUSTER_REGISTRY}') || "
            f"(has(self.mmproj) && self.mmproj.url.matches(r'{_IN_CLUSTER_REGISTRY}')) || "
            "(has(self.adapters) && self.adapters.exists(adapter, "
            f"adapter.url.matches(r'{_IN_CLUSTER_REGISTRY}')))",
            "must have an oci:// URL of a registry in the cluster with oci.plainHttp: one whose "
            "name ends with .svc or .svc.cluster.local",
            lambda model: not model.oci.plain_http or _has_registry_in_cluster(model),
        ),
        Rule(
            "!has(self.partsSha256) || !self.url.startsWith('image://')",
            f"must not have partsSha256 {_NOT_VERIFIED_IN_IMAGE}",
            lambda model: model.parts_sha256 is None or not model.url.startswith("image://"),
        ),
        Rule(
            f"!has(self.sha256) || !self.url.matches(r'{FIRST_PART}') || "
            f"self.url.matches(r'{_ONLY_PART}')",
            "must have partsSha256 instead of sha256: the model is split into several files",
            lambda model: model.sha256 is None or part_count(model.url) == 1,
        ),
        Rule(
            f"!has(self.partsSha256) || self.url.matches(r'{FIRST_PART}') && "
            f"size(self.partsSha256) == int(self.url.find(r'{FIRST_PART}').substring(10, 15))",
            "must have one SHA-256 in partsSha256 for each file of the split model in url",
            lambda model: (
                model.parts_sha256 is None
                or (
                    re.search(FIRST_PART, model.url) is not None
                    and len(model.parts_sha256) == part_count(model.url)
                )
            ),
        ),
        Rule(
            "!(has(self.prefetch) && self.prefetch) || "
            "has(self.cache) && "
            "(has(self.cache.claimName) || has(self.cache.node) && self.cache.node)",
            "must not have prefetch: true without cache.claimName or cache.node: the files would "
            "be deleted with the pod that downloads them",
            lambda model: not model.prefetch or model.cache.outlives_pods,
        ),
    )

    url: ModelUrl
    """URL of the GGUF file: http:// or https://; hf://ORG/REPOSITORY/FILE.gguf@REVISION for one on
    Hugging Face's hub, or hf://ORG/REPOSITORY:Q4_K_M for the one with this quantization;
    s3://BUCKET/KEY for one in the object store of `s3`; oci://REGISTRY/REPOSITORY:TAG/PATH for one
    in an artifact or a container image in a registry, without /PATH for the only one, and without
    :TAG too for the tag latest; pvc://CLAIM/PATH for one on a PersistentVolumeClaim in the server's
    namespace, or image:///PATH for one in llama-server's image: these two are not downloaded. Of a
    split model, that of its first file, such as model-00001-of-00003.gguf: the others are beside
    it.
    Example: https://example.com/model.gguf"""

    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 hexadecimal digits as printed by `sha256sum`. A file that does not
    match is not served. Recommended: without it, the owner of the URL can replace the model at any
    time. Default: not verified.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""

    parts_sha256: Annotated[list[Sha256], Field(min_length=1, max_length=MAX_PARTS)] | None = None
    """SHA-256 of each file of a split model, in their order, instead of sha256. Default: not
    verified. Example: [9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08]"""

    token_secret_ref: TokenSecret | None = None
    """Bearer token for files with restricted access, such as a token of Hugging Face. It is sent
    as `Authorization: Bearer …` to the hosts in the URLs of the model, mmproj, adapters and
    speculative.draft, but not to hosts that these redirect to. For oci:// it is USER:PASSWORD, for
    the registry and the server that issues its tokens. The Secret's entry `hosts` must contain
    these hosts. Default: none. Example: {name: huggingface}"""

    s3: S3 = S3()
    """Object store of s3:// URLs. Default: AWS, region us-east-1, without an access key.
    Example: {endpoint: "https://minio.example.com:9000", secretRef: {name: model-store}}"""

    oci: Oci = Oci()
    """Container registries of oci:// URLs. Default: they are accessed by https://.
    Example: {plainHttp: true}"""

    alias: ModelName | None = None
    """Name of the model in responses and in /v1/models, up to 128 characters. A change restarts
    replicas and balancers. Default: the server's name. Example: qwen2.5-7b-instruct"""

    mmproj: Projector | None = None
    """Multimodal projector for images or audio, made for exactly this model. Default: none.
    Example: {url: "https://example.com/mmproj.gguf"}"""

    adapters: Annotated[list[Adapter], Field(max_length=16)] = Field(default_factory=list)
    """LoRA adapters made for this model, up to 16. A request may set other weights, by the index in
    this list, which begins at 0. Default: none.
    Example: [{url: "https://example.com/lora.gguf", scale: 0.5}]"""

    cache: Cache = Cache()
    """Storage of downloaded files. Default: on the node's disk, deleted with the pod.
    Example: {claimName: models}"""

    prefetch: bool | None = None
    """Whether the files are downloaded before the first request, as soon as the server is created
    or its model changes: by a Job that ends, occupies no GPU, and runs while no replica is desired.
    It needs a cache that outlives pods: cache.claimName, or cache.node, which is then that of one
    node only. Default: true if there is such a cache and autoscaling.minReplicas is 0, always or
    during a schedule. Example: true"""

    download: Download = Download()
    """How files are downloaded: the maximum size, proxies, private certificate authorities, and the
    resources of the init container.
    Default: up to 100Gi, without a proxy. Example: {httpsProxy: "http://proxy.example.com:3128"}"""
