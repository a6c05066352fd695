"""Requests to container registries: manifests, and the authentication of all requests."""

import hashlib
import platform
import re
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
from typing_extensions import override

from slotkeeper.api.in_cluster import HTTP_URL
from slotkeeper.api.model_url import OciReference
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact, require_not_into_cluster
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.sources.document import get_document
from slotkeeper.download.token import Token

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MAX_BYTES = 4 * 1024**2
"""Of a manifest, as registries limit it, and of a token."""

DIGEST = "sha256:([0-9a-f]{64})"
_TOKEN = re.compile("[!-~]{1,16384}")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
"""Of a challenge in the header WWW-Authenticate."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Registries:
    """How registries are accessed."""

    client: httpx.Client
    token: Token | None = None
    """USER:PASSWORD."""
    plain_http: bool = False
    """Whether those of the cluster are accessed by http://."""

    def repository_url(self, reference: OciReference) -> str:
        """Return the URL of the API for a repository, without `/` at its end."""
        in_cluster = re.fullmatch(HTTP_URL, f"http://{reference.host}/")
        scheme = "http" if self.plain_http and in_cluster else "https"
        return f"{scheme}://{reference.host}/v2/{reference.repository}"


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
            # The registry chooses what the token is for, which may be another repository.
            self._password.require_receiver(request)
            self._authorization = f"Bearer {self._request_token(response.url, parameters)}"
        else:
            self._authorization = self._password.header_for(request)
        if self._authorization:
            request.headers["Authorization"] = self._authorization
            yield request

    def _request_token(self, registry: httpx.URL, challenge: Mapping[str, str]) -> str:
        """Return a token of the server that issues them. Raises DownloadError."""
        url = challenge["realm"]
        with suppress(httpx.InvalidURL):  # is reported below
            require_not_into_cluster(registry, httpx.URL(url))
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

    def require_receiver(self, request: httpx.Request) -> None:
        """Raise DownloadError if there is a password that this host must not receive."""
        if self._token:
            self._token.require_receiver(request)

    def header_for(self, request: httpx.Request) -> str | None:
        """Return the header; None without a password. Raises DownloadError."""
        if self._token is None:
            return None
        self._token.require_receiver(request)
        if ":" not in self._token.value:
            raise DownloadError(
                Reason.MODEL_TOKEN_INVALID,
                f"{request.url.host} requires a user name: for oci:// URLs, the token in the "
                "Secret (model.tokenSecretRef) must be USER:PASSWORD",
            )
        return f"Basic {b64encode(self._token.value.encode()).decode()}"


def get_manifest(base: str, reference: str, client: httpx.Client, auth: RegistryAuth) -> Any:
    """Return the manifest of an artifact or image; of an image for several platforms, that of this
    one, or else of any: models are the same on all.

    Raises DownloadError.
    """
    tree = _get(base, reference, (*_MANIFESTS, *_INDEXES), client, auth)
    match tree:
        case {"manifests": [*manifests]}:
            digest = _of_platform(manifests)
        case _:
            digest = None
    return tree if digest is None else _get(base, digest, _MANIFESTS, client, auth)


def _get(
    base: str, reference: str, kinds: Sequence[str], client: httpx.Client, auth: RegistryAuth
) -> Any:
    url = f"{base}/manifests/{reference}"
    headers = {"Accept": ", ".join(kinds)}
    try:
        found = get_document(client, url, max_bytes=_MAX_BYTES, auth=auth, headers=headers)
    except DownloadError as error:
        if not error.no_tls:
            raise
        raise error.with_message(_without_tls(base, error)) from None
    digest = re.fullmatch(DIGEST, reference)
    if digest and hashlib.sha256(found.body).hexdigest() != digest[1]:
        raise DownloadError(
            Reason.MODEL_CHECKSUM_MISMATCH, f"GET {url} returned a manifest with another digest"
        )
    return found.tree


def _without_tls(base: str, error: DownloadError) -> str:
    """Return the message where a registry responds without TLS."""
    failed = error.message.partition(": it responds")[0]
    if re.fullmatch(HTTP_URL, base.replace("https://", "http://", 1)):
        remedy = "set spec.model.oci.plainHttp"
    else:
        remedy = (
            "use the port on which it has TLS; only registries of the cluster (.svc) may have none"
        )
    return f"{failed}: the registry responds without TLS: {remedy}"


def _of_platform(manifests: Sequence[Any]) -> str | None:
    """Return the digest of the manifest for this machine, or else of the first."""
    machine = platform.machine()
    first = None
    for each in manifests:
        match each:
            case {"digest": str(digest)} if re.fullmatch(DIGEST, digest):
                pass
            case _:
                continue
        match each.get("platform"):
            case {"os": "unknown"}:  # an attestation
                continue
            case {"os": "linux", "architecture": str(architecture)}:
                if architecture == _ARCHITECTURES.get(machine, machine):
                    return digest
        first = first or digest
    return first
