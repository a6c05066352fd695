"""The init container of a replica, which downloads and verifies the model's files."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slotkeeper.api import quantity
from slotkeeper.api.download import Download
from slotkeeper.api.model import Adapter, Model, Projector
from slotkeeper.api.model_url import (
    bucket_and_key,
    claim_and_path,
    hub_address,
    is_local,
    oci_reference,
    path_in_image,
)
from slotkeeper.api.resources import Resources
from slotkeeper.api.server import LlamaServer, LlamaServerSpec
from slotkeeper.api.speculative import SIMPLE, Draft
from slotkeeper.api.split_model import part_count, part_name, part_suffix
from slotkeeper.desired import names, resources
from slotkeeper.desired.download_settings import NO_SETTINGS, DownloadSettings
from slotkeeper.desired.images import Images
from slotkeeper.desired.literal import literal
from slotkeeper.desired.metadata import Manifest, container_security_context
from slotkeeper.flags import CA_CERTIFICATES, DownloadFlags

MODELS_FOLDER = "/models"
MODELS_VOLUME = "models"

CLAIMS_FOLDER = "/model-claims"
"""With a folder for each claim that has files of the model, by its name."""

TOKEN_FOLDER = "/etc/slotkeeper/model-token"  # noqa: S105 (a folder)
TOKEN_FILE = "token"  # noqa: S105 (a file name)
TOKEN_HOSTS = "hosts"  # noqa: S105 (an entry, and a file name)
"""Entry of the token's Secret, and name of its file. The kubelet mounts no Secret without it: so a
Secret that was not made for downloads cannot be sent anywhere."""


S3_FOLDER = "/etc/slotkeeper/model-s3"
S3_ENTRIES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", TOKEN_HOSTS)
"""Entries of the Secret with an access key, and names of their files."""

S3_SESSION_FOLDER = "/etc/slotkeeper/model-s3-session"
S3_SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 (an entry, and a file name)
"""An entry that the same Secret has for a temporary access key only. It has a volume of its own,
because in Kubernetes volumes are optional, but not their entries."""

CA_FOLDER = "/etc/slotkeeper/model-ca"
CA_FILE = "ca.crt"

CLUSTER_DOMAINS = ("localhost", ".svc", ".svc.cluster.local")
"""Never reached by a proxy, which would see a token that is sent by http://."""


AnyFile = Model | Projector | Adapter | Draft
Json = list[object]


@dataclass(frozen=True)
class Paths:
    """Paths of a server's files in the pods of its replicas."""

    model: str
    mmproj: str | None
    adapters: tuple[str, ...]
    draft: str | None


def paths(spec: LlamaServerSpec) -> Paths:
    """Return the paths of a server's files."""
    model, draft = spec.model, _draft(spec)
    return Paths(
        model=_path(model, model, "model"),
        mmproj=_path(model, model.mmproj, "mmproj") if model.mmproj else None,
        adapters=tuple(
            _path(model, adapter, f"adapter-{number}")
            for number, adapter in enumerate(model.adapters)
        ),
        draft=_path(model, draft, "draft") if draft else None,
    )


def is_in_image(spec: LlamaServerSpec) -> bool:
    """Whether all files are in llama-server's image, so that no init container is needed."""
    return all(path_in_image(file.url) for file in _files(spec))


def is_provided(spec: LlamaServerSpec) -> bool:
    """Whether no file is downloaded: all are on claims or in llama-server's image."""
    return all(is_local(file.url) for file in _files(spec))


def content(spec: LlamaServerSpec) -> Json:
    """Return what identifies the downloaded files: their sources, checksums, paths and storage."""
    model = spec.model
    found = zip(_files(spec), _all(paths(spec)), strict=True)
    return [
        "node" if model.cache.node else _storage(model),
        [list(_file("", file, path)) for file, path in found],
        [model.download.hub_endpoint, model.s3.endpoint, model.s3.region],
    ]


def sources(spec: LlamaServerSpec) -> Json:
    """Return what identifies the content of the files, wherever they are stored."""
    model = spec.model
    files = [
        [file.url, file.sha256 and file.sha256.lower(), file is model and model.parts_sha256]
        for file in _files(spec)
    ]
    return [files, [model.download.hub_endpoint, model.s3.endpoint, model.s3.region]]


def mounted_files(spec: LlamaServerSpec) -> list[str]:
    """Return the paths of all files that are in a volume, with all files of a split model."""
    return [
        part_name(path, number)
        for file, path in zip(_files(spec), _all(paths(spec)), strict=True)
        if not path_in_image(file.url)
        for number in range(1, part_count(path) + 1)
    ]


def downloads_files(command: Sequence[str], spec: LlamaServerSpec) -> bool:
    """Whether this command of a download, with any settings, is for these files."""
    files = list(_downloaded_files(spec))
    return list(command[len(command) - len(files) :]) == files if files else not command


def container(
    server: LlamaServer, images: Images, downloads: DownloadSettings, *, inspect: bool = False
) -> Manifest:
    """Return the container, which succeeds once all files are downloaded and verified; with
    `inspect`, once their headers are read.

    Its termination message contains the model's metadata, or the reason of the failure.
    """
    spec, model = server.spec, server.spec.model
    if is_provided(spec):
        # A change of the settings must not replace replicas that download nothing.
        downloads = NO_SETTINGS
    token = [{"name": names.TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": True}]
    access_key = [
        {"name": volume, "mountPath": folder, "readOnly": True}
        for volume, folder in (
            (names.S3_VOLUME, S3_FOLDER),
            (names.S3_SESSION_VOLUME, S3_SESSION_FOLDER),
        )
    ]
    authorities = [{"name": names.CA_VOLUME, "mountPath": CA_FOLDER, "readOnly": True}]
    progress = {"name": names.PROGRESS, "protocol": "TCP", "containerPort": names.PROGRESS_PORT}
    env = [*_hub(model.download), *_proxies(model.download, downloads), *_ca(downloads)]
    return {
        "name": names.DOWNLOAD_CONTAINER,
        "image": images.download,
        "imagePullPolicy": images.pull_policy,
        "command": list(_command(server, downloads, inspect=inspect)),
        **({"env": env} if env else {}),
        **({} if inspect else {"ports": [progress]}),
        "resources": _resources(server, inspect=inspect),
        "securityContext": container_security_context(),
        # The program writes the message itself, for the server's status.
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            *([] if is_provided(spec) else [{"name": MODELS_VOLUME, "mountPath": MODELS_FOLDER}]),
            *_claim_mounts(spec),
            *(token if model.token_secret_ref else []),
            *(access_key if model.s3.secret_ref else []),
            *(authorities if model.download.ca_config_map_ref else []),
        ],
    }


def read_only_mounts(spec: LlamaServerSpec) -> list[Manifest]:
    """Return the mounts of llama-server, which reads the files."""
    models = {"name": MODELS_VOLUME, "mountPath": MODELS_FOLDER, "readOnly": True}
    return [*([] if is_provided(spec) else [models]), *_claim_mounts(spec)]


def has_storage(model: Model, downloads: DownloadSettings) -> bool:
    """Whether the files have the storage that the model names: the chart may not allow it."""
    return not model.cache.node or downloads.node_cache_path is not None


def volumes(server: LlamaServer, downloads: DownloadSettings) -> list[Manifest]:
    """Return the volumes of a pod that downloads the server's model."""
    spec, model = server.spec, server.spec.model
    if is_in_image(spec):
        return []
    storage = _node_folder(server, downloads) or _storage(model)
    models = [] if is_provided(spec) else [{"name": MODELS_VOLUME, **storage}]
    return [*models, *_claims(spec), *_token(model), *_access_key(model), *_authorities(model)]


def inspection_volumes(server: LlamaServer, downloads: DownloadSettings) -> list[Manifest]:
    """Return the volumes of a pod that only reads the headers of the server's files.

    What it receives is deleted with it: a volume of the replicas may be attached to another node.
    """
    found = volumes(server, downloads)
    if MODELS_VOLUME in _claim_volumes(server.spec).values():
        # The claim has files of its own, too.
        return found
    empty = {"name": MODELS_VOLUME, "emptyDir": {}}
    return [empty if volume["name"] == MODELS_VOLUME else volume for volume in found]


def has_claims(spec: LlamaServerSpec) -> bool:
    """Whether a file is on a claim, where it was put by others."""
    return bool(_claim_volumes(spec))


def has_file_in_image(spec: LlamaServerSpec) -> bool:
    """Whether a file is in llama-server's image."""
    return any(path_in_image(file.url) for file in _files(spec))


def _all(paths: Paths) -> list[str]:
    mmproj, draft = ([path] if path else [] for path in (paths.mmproj, paths.draft))
    return [paths.model, *mmproj, *paths.adapters, *draft]


def _files(spec: LlamaServerSpec) -> list[AnyFile]:
    model, draft = spec.model, _draft(spec)
    return [
        model,
        *([model.mmproj] if model.mmproj else []),
        *model.adapters,
        *([draft] if draft else []),
    ]


def _draft(spec: LlamaServerSpec) -> Draft | None:
    return spec.speculative.draft if spec.speculative else None


def _resources(server: LlamaServer, *, inspect: bool) -> Manifest:
    own = server.spec.model.download.resources
    if own is not None:
        return resources.specified(own)
    # Headers are read by a pod of their own, which pays for what it requests.
    return resources.of_init_container(Resources() if inspect else server.spec.resources)


def _command(server: LlamaServer, downloads: DownloadSettings, *, inspect: bool) -> Iterator[str]:
    spec, model = server.spec, server.spec.model
    yield from ("slotkeeper", "download")
    progress = (DownloadFlags.PROGRESS_PORT, str(names.PROGRESS_PORT))
    yield from (DownloadFlags.INSPECT,) if inspect else progress
    yield from _sources(spec)
    yield from () if inspect else _stored(model)
    if authorities := model.download.ca_config_map_ref:
        yield from (DownloadFlags.CA_FILE, f"{CA_FOLDER}/{CA_FILE}")
        yield from (DownloadFlags.CA_CONFIG_MAP, f"{authorities.name}/{authorities.key}")
    if not is_provided(spec):
        yield from _address_guard(server, downloads)
    size = int(quantity.parse(model.download.max_file_size))
    yield from (DownloadFlags.MAX_FILE_BYTES, str(size))
    if model.cache.claim_name is None and model.cache.size_limit is not None:
        limit = int(quantity.parse(model.cache.size_limit))
        yield from (DownloadFlags.MAX_TOTAL_BYTES, str(limit))
    yield from _downloaded_files(spec)


def _downloaded_files(spec: LlamaServerSpec) -> Iterator[str]:
    model, targets = spec.model, paths(spec)
    yield from _file(DownloadFlags.MODEL, model, targets.model)
    if model.mmproj and targets.mmproj:
        yield from _file(DownloadFlags.MMPROJ, model.mmproj, targets.mmproj)
    for adapter, path in zip(model.adapters, targets.adapters, strict=True):
        yield from _file(DownloadFlags.ADAPTER, adapter, path)
    if (draft := _draft(spec)) and targets.draft:
        yield from _file(DownloadFlags.DRAFT, draft, targets.draft)
        if spec.speculative and spec.speculative.type == SIMPLE and not path_in_image(draft.url):
            yield DownloadFlags.SAME_VOCABULARY


def _stored(model: Model) -> Iterator[str]:
    if model.cache.node:
        yield from (DownloadFlags.NODE_CACHE, MODELS_FOLDER)
    if model.cache.verify == "Always":
        yield DownloadFlags.ALWAYS_VERIFY


def _sources(spec: LlamaServerSpec) -> Iterator[str]:
    model = spec.model
    if model.token_secret_ref:
        yield from (DownloadFlags.TOKEN_FILE, f"{TOKEN_FOLDER}/{TOKEN_FILE}")
        yield from (DownloadFlags.TOKEN_HOSTS_FILE, f"{TOKEN_FOLDER}/{TOKEN_HOSTS}")
        if model.token_secret_ref.allow_http:
            yield DownloadFlags.ALLOW_HTTP_TOKEN
    yield from _s3(spec)
    if model.oci.plain_http:
        yield DownloadFlags.PLAIN_HTTP_REGISTRIES


def _address_guard(server: LlamaServer, downloads: DownloadSettings) -> Iterator[str]:
    yield from (DownloadFlags.ADDRESS_GUARD, server.namespace)
    for addresses in downloads.allowed_addresses:
        yield from (DownloadFlags.ALLOWED_ADDRESSES, addresses)
    # The server's own proxies are a user's, and are checked.
    own = server.spec.model.download
    http = None if own.http_proxy else downloads.http_proxy
    https = None if own.https_proxy else downloads.https_proxy
    for proxy in dict.fromkeys(filter(None, (http, https))):
        yield from (DownloadFlags.TRUSTED_PROXY, proxy)


def _s3(spec: LlamaServerSpec) -> Iterator[str]:
    if not any(bucket_and_key(file.url) for file in _files(spec)):
        return
    s3 = spec.model.s3
    if s3.endpoint:
        yield from (DownloadFlags.S3_ENDPOINT, s3.endpoint)
    yield from (DownloadFlags.S3_REGION, s3.region)
    if s3.path_style is False or (s3.path_style is None and not s3.endpoint):
        yield DownloadFlags.S3_VIRTUAL_HOSTS
    if s3.secret_ref:
        yield from (DownloadFlags.S3_CREDENTIALS, S3_FOLDER)
        yield from (DownloadFlags.S3_SESSION_TOKEN, f"{S3_SESSION_FOLDER}/{S3_SESSION_TOKEN}")


def _hub(download: Download) -> list[Manifest]:
    return (
        [{"name": "HF_ENDPOINT", "value": download.hub_endpoint}] if download.hub_endpoint else []
    )


def _proxies(download: Download, defaults: DownloadSettings) -> list[Manifest]:
    proxies = {
        "HTTP_PROXY": download.http_proxy or defaults.http_proxy,
        "HTTPS_PROXY": download.https_proxy or defaults.https_proxy,
    }
    env = [{"name": name, "value": proxy} for name, proxy in proxies.items() if proxy]
    if not env:
        return []
    return [
        *env,
        {
            "name": "NO_PROXY",
            "value": ",".join((*CLUSTER_DOMAINS, *defaults.no_proxy, *download.no_proxy)),
        },
    ]


def _ca(downloads: DownloadSettings) -> list[Manifest]:
    pem = downloads.ca_certificates
    return [{"name": CA_CERTIFICATES, "value": pem}] if pem else []


def _file(flag: str, file: AnyFile, path: str) -> Iterator[str]:
    if path_in_image(file.url):
        return
    yield from (flag, literal(file.url))
    if file.sha256:
        yield from (DownloadFlags.SHA256, file.sha256.lower())
    if isinstance(file, Model) and file.parts_sha256:
        yield from (DownloadFlags.PARTS_SHA256, ",".join(file.parts_sha256).lower())
    yield from (DownloadFlags.TO, path)


def _path(model: Model, file: AnyFile, name: str) -> str:
    if in_image := path_in_image(file.url):
        return in_image
    if on_claim := claim_and_path(file.url):
        return "/".join((CLAIMS_FOLDER, *on_claim))
    # llama-server finds the other files of a split model by the end of the first one's name.
    suffix = part_suffix(1, part_count(file.url))
    if model.cache.claim_name is None and not model.cache.node:
        return f"{MODELS_FOLDER}/{name}{suffix}.gguf"
    return f"{MODELS_FOLDER}/{_content_id(model, file)}{suffix}.gguf"


def _content_id(model: Model, file: AnyFile) -> str:
    """Return the name of a file where servers share it: by its content, or else by where it is."""
    if isinstance(file, Model) and file.parts_sha256:
        return f"parts-{_sha256(','.join(file.parts_sha256).lower())}"
    if file.sha256:
        return f"sha256-{file.sha256.lower()}"
    return f"url-{_sha256(' '.join(_location(model, file)))}"


def _location(model: Model, file: AnyFile) -> Iterator[str]:
    """What distinguishes files with the same URL, too."""
    yield file.url
    if hub_address(file.url) and model.download.hub_endpoint:
        yield model.download.hub_endpoint
    if bucket_and_key(file.url) and model.s3.endpoint:
        yield model.s3.endpoint
    if oci_reference(file.url) and isinstance(file, Projector):
        # The only model and the only projector of an artifact.
        yield "mmproj"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _node_folder(server: LlamaServer, downloads: DownloadSettings) -> Manifest | None:
    if not server.spec.model.cache.node or not has_storage(server.spec.model, downloads):
        return None
    # A folder for each namespace: naming the URL of a file must not suffice to get one that only
    # another namespace may download. It must exist: the node's agent creates it, with its owner.
    path = f"{downloads.node_cache_path}/{server.namespace}"
    return {"hostPath": {"path": path, "type": "Directory"}}


def _storage(model: Model) -> Manifest:
    cache = model.cache
    if cache.claim_name is not None:
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    # As a string, which is how the API server returns it.
    return {"emptyDir": {} if cache.size_limit is None else {"sizeLimit": str(cache.size_limit)}}


def _claim_volumes(spec: LlamaServerSpec) -> dict[str, str]:
    """The volumes with files of the model that are not downloaded, by the names of their claims."""
    found = (claim_and_path(file.url) for file in _files(spec))
    claims = list(dict.fromkeys(claim for claim, _ in filter(None, found)))
    volumes = {claim: f"{names.CLAIM_VOLUME}-{number}" for number, claim in enumerate(claims)}
    cache = spec.model.cache.claim_name
    if cache in volumes and not is_provided(spec):
        # A claim is mounted once, and may be written.
        volumes[cache] = MODELS_VOLUME
    return volumes


def _claim_mounts(spec: LlamaServerSpec) -> list[Manifest]:
    return [
        {"name": volume, "mountPath": f"{CLAIMS_FOLDER}/{claim}", "readOnly": True}
        for claim, volume in _claim_volumes(spec).items()
    ]


def _claims(spec: LlamaServerSpec) -> list[Manifest]:
    return [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim, volume in _claim_volumes(spec).items()
        if volume != MODELS_VOLUME
    ]


def _token(model: Model) -> list[Manifest]:
    if model.token_secret_ref is None:
        return []
    secret = {
        "secretName": model.token_secret_ref.name,
        "items": [
            {"key": model.token_secret_ref.key, "path": TOKEN_FILE},
            {"key": TOKEN_HOSTS, "path": TOKEN_HOSTS},
        ],
        # Readable by the group, which fsGroup sets to the container's.
        "defaultMode": 0o440,
        "optional": False,
    }
    return [{"name": names.TOKEN_VOLUME, "secret": secret}]


def _access_key(model: Model) -> list[Manifest]:
    if model.s3.secret_ref is None:
        return []
    secret = {
        "secretName": model.s3.secret_ref.name,
        "items": [{"key": entry, "path": entry} for entry in S3_ENTRIES],
        "defaultMode": 0o440,
        "optional": False,
    }
    session = {
        **secret,
        "items": [{"key": S3_SESSION_TOKEN, "path": S3_SESSION_TOKEN}],
        "optional": True,
    }
    return [
        {"name": names.S3_VOLUME, "secret": secret},
        {"name": names.S3_SESSION_VOLUME, "secret": session},
    ]


def _authorities(model: Model) -> list[Manifest]:
    reference = model.download.ca_config_map_ref
    if reference is None:
        return []
    config_map = {
        "name": reference.name,
        "items": [{"key": reference.key, "path": CA_FILE}],
        # As the API server sets it.
        "defaultMode": 0o644,
        # So that the download starts, and reports what is missing.
        "optional": True,
    }
    return [{"name": names.CA_VOLUME, "configMap": config_map}]
