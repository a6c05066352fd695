"""Files of oci:// URLs: layers of artifacts in a container registry.

ORAS pushes a file as a layer with its name as title; Docker's models have media types of their own.
A layer is downloaded as any other file, and its digest is its SHA-256.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from typing_extensions import override

from slotkeeper.api.model_url import OciReference
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact, source_id
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File, RemoteFile
from slotkeeper.download.records import HubFile, HubRecord, write
from slotkeeper.download.sources.document import get_document
from slotkeeper.download.token import Token

RECORD = ".oci.json"

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MAX_BYTES = 4 * 1024**2
"""Of a manifest, as registries limit it, and of a token."""

_MODEL = "application/vnd.docker.ai.gguf.v3"
_PROJECTOR = "application/vnd.docker.ai.mmproj"
_DIGEST = "sha256:([0-9a-f]{64})"
_SHA256 = re.compile("[0-9a-f]{64}")
_TOKEN = re.compile("[!-~]{1,16384}")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
"""Of a challenge in the header WWW-Authenticate."""


def resolve(
    file: File,
    reference: OciReference,
    client: httpx.Client,
    token: Token | None,
    record_path: Path,
) -> Sequence[RemoteFile]:
    """Return the file to fetch.

    An earlier start of the same URL has recorded it; otherwise the manifest names it, and it is
    recorded.

    Raises DownloadError and OSError.
    """
    auth = RegistryAuth(client, token)
    source = source_id(f"{file.role} {file.url}")
    record = HubRecord.read(record_path)
    if record is None or record.source != source or not _is_valid(record):
        layer = _select(file, _manifest(reference, client, auth))
        if file.sha256 not in {None, layer.sha256}:
            raise DownloadError(
                Reason.MODEL_CHECKSUM_MISMATCH,
                f"{file.url}: the layer {layer.name} has the SHA-256 {layer.sha256}, expected "
                f"{file.sha256}",
            )
        record = HubRecord(source, reference.reference, (layer,))
        write(record_path, record)
    digest = record.files[0].sha256
    url = f"https://{reference.host}/v2/{reference.repository}/blobs/sha256:{digest}"
    return [RemoteFile(url, file.path, digest, identity=f"sha256:{digest}", auth=auth)]


class RegistryAuth(httpx.Auth):
    """Authenticates at a registry: with a token from the server that its response names, or with
    user name and password, which are the token of the spec, separated by a colon."""

    def __init__(self, client: httpx.Client, token: Token | None) -> None:
        self._client = client
        self._password = _Password(token)
        self._authorization: str | None = None

    @override
    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.pop("Authorization", None)
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        response = yield request
        if response.status_code != HTTPStatus.UNAUTHORIZED:
            return
        challenge = response.headers.get("www-authenticate", "")
        parameters = dict(_PARAMETER.findall(challenge))
        if challenge.lower().startswith("bearer ") and "realm" in parameters:
            self._authorization = f"Bearer {self._request_token(parameters)}"
        else:
            self._authorization = self._password.header_for(request)
        if self._authorization:
            request.headers["Authorization"] = self._authorization
            yield request

    def _request_token(self, challenge: Mapping[str, str]) -> str:
        """Return a token of the server that issues them. Raises DownloadError."""
        url = challenge["realm"]
        parameters = {name: challenge[name] for name in ("service", "scope") if name in challenge}
        found = get_document(
            self._client, url, max_bytes=_MAX_BYTES, auth=self._password, parameters=parameters
        )
        match found.tree:
            case {"token": str(token)} | {"access_token": str(token)} if _TOKEN.fullmatch(token):
                return token
            case _:
                raise DownloadError(
                    Reason.MODEL_DOWNLOAD_REJECTED, f"GET {redact(url)} returned no token"
                )


class _Password(httpx.Auth):
    """Sends user name and password to hosts that may receive them."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    @override
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.pop("Authorization", None)
        header = self.header_for(request)
        if header:
            request.headers["Authorization"] = header
        yield request

    def header_for(self, request: httpx.Request) -> str | None:
        """Return the header; None without a password. Raises DownloadError."""
        if self._token is None:
            return None
        self._token.require_receiver(request)
        return f"Basic {b64encode(self._token.value.encode()).decode()}"


def _is_valid(record: HubRecord) -> bool:
    """Whether a record can be used: other pods may write to a volume that they share."""
    return len(record.files) == 1 and _SHA256.fullmatch(record.files[0].sha256 or "") is not None


def _manifest(reference: OciReference, client: httpx.Client, auth: RegistryAuth) -> Any:
    url = f"https://{reference.host}/v2/{reference.repository}/manifests/{reference.reference}"
    headers = {"Accept": ", ".join(_MANIFESTS)}
    found = get_document(client, url, max_bytes=_MAX_BYTES, auth=auth, headers=headers)
    digest = re.fullmatch(_DIGEST, reference.reference)
    if digest and hashlib.sha256(found.body).hexdigest() != digest[1]:
        raise DownloadError(
            Reason.MODEL_CHECKSUM_MISMATCH, f"GET {url} returned a manifest with another digest"
        )
    return found.tree


def _select(file: File, manifest: Any) -> HubFile:
    """Return the layer of a manifest with the file."""
    match manifest:
        case {"layers": [*layers]}:
            found = [each for each in map(_layer, layers) if each]
        case _:
            raise DownloadError(
                Reason.MODEL_DOWNLOAD_REJECTED,
                f"{file.url} has no manifest of an artifact: an image for several platforms, or "
                "another server, has no model as a layer",
            )
    projector = file.role == "model.mmproj"
    selected = [layer for is_projector, layer in found if is_projector == projector]
    if len(selected) == 1:
        return selected[0]
    what = "projector" if projector else "GGUF file"
    if not selected:
        raise DownloadError(
            Reason.MODEL_NOT_FOUND,
            f"{file.url} has no layer with a {what}, of {len(layers)} layers",
        )
    names = ", ".join(layer.name for layer in selected[:8])
    raise DownloadError(
        Reason.MODEL_SPLIT, f"{file.url} has several layers with a {what}, not one: {names}"
    )


def _layer(tree: Any) -> tuple[bool, HubFile] | None:
    """Return whether a layer is a projector, and the layer; None if it is no GGUF file."""
    match tree:
        case {"mediaType": str(kind), "digest": str(digest), **others}:
            match others.get("annotations"):
                case {"org.opencontainers.image.title": str(name)}:
                    title = name
                case _:
                    title = ""
        case _:
            return None
    matched = re.fullmatch(_DIGEST, digest)
    if matched is None or (kind not in {_MODEL, _PROJECTOR} and not title.endswith(".gguf")):
        return None
    is_projector = kind == _PROJECTOR or (kind != _MODEL and "mmproj" in title.lower())
    return is_projector, HubFile(title or digest, matched[1])
