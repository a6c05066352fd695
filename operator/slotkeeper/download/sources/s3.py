"""Files of s3:// URLs, with requests that are signed with AWS Signature Version 4.

Each request is signed anew when it is sent, so that a download may take longer than a signature is
valid. What is signed is the host, the path and the time; no header with the key is sent.

The signature is computed here: a GET without a body needs 30 lines of a fixed algorithm. AWS's own
package aws-sdk-signers needs Python 3.12, and botocore is 20 MB. The tests compare with botocore.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
from typing_extensions import override

from slotkeeper.api.model_url import bucket_and_key
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.secret_hosts import hosts_in, not_listed
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import ACCESS_KEY, File, RemoteFile, adjacent_files
from slotkeeper.download.signature import SESSION_TOKEN
from slotkeeper.error_text import describe

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "s3"
UNSIGNED_BODY = "UNSIGNED-PAYLOAD"

ENTRIES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "hosts")
"""Of the Secret with an access key, and names of the files in its folder."""


@dataclass(frozen=True)
class Credentials:
    """An access key, and the hosts of the endpoints that it may be used for."""

    access_key_id: str
    secret_access_key: str
    hosts: frozenset[str]
    now: Callable[[], datetime]
    """Returns the time of day."""
    session_token: str | None = None
    """Of a temporary access key."""


@dataclass(frozen=True)
class Store:
    """An object store."""

    endpoint: str | None = None
    """None for AWS in the region."""
    region: str = "us-east-1"
    path_style: bool = False
    credentials: Credentials | None = None
    """None if requests are not signed."""

    @property
    def url(self) -> str:
        """The URL of the store without a bucket."""
        return (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")


def resolve(file: File, store: Store) -> Sequence[RemoteFile]:
    """Return the files to fetch, without a request. Raises DownloadError."""
    host = (urlsplit(store.url).hostname or "").lower()
    if store.credentials and host not in store.credentials.hosts:
        raise DownloadError(
            Reason.MODEL_TOKEN_NOT_ALLOWED,
            f"the access key is not used for {host}: the entry `hosts` of the Secret "
            f"(model.s3.secretRef) {not_listed(store.credentials.hosts)}",
        )
    return adjacent_files(
        file, lambda url: _object_url(url, store), Signature(store), credentials=ACCESS_KEY
    )


def read_credentials(
    folder: Path, session_token: Path | None = None, *, now: Callable[[], datetime]
) -> Credentials:
    """Read the files of a mounted Secret. That of the session token may be missing.

    Raises DownloadError, which quotes none of them.
    """
    session = None
    try:
        texts = [(folder / name).read_text("ascii").strip() for name in ENTRIES]
        if session_token and session_token.exists():
            session = session_token.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        details = describe(error) if isinstance(error, OSError) else "it is not ASCII"
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            f"cannot read the access key (model.s3.secretRef): {details}",
        ) from None
    key_id, secret, hosts = texts
    if not all(re.fullmatch("[!-~]{1,512}", text) for text in (key_id, secret)) or (
        session is not None and not re.fullmatch("[!-~]{1,16384}", session)
    ):
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            "an entry of the Secret (model.s3.secretRef) is not an access key: it must be one line "
            "of printable ASCII without spaces",
        )
    return Credentials(key_id, secret, hosts_in(hosts), now, session)


class Signature(httpx.Auth):
    """Signs requests for a store; without credentials, it only keeps tokens for others away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @override
    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.pop("Authorization", None)
        if self._store.credentials:
            sign(request, self._store.credentials, self._store.region)
        yield request


def sign(request: httpx.Request, credentials: Credentials, region: str) -> None:
    """Add the headers of a signature to a request without a body and query."""
    stamp = f"{credentials.now().astimezone(UTC):%Y%m%dT%H%M%SZ}"
    signed = {
        "host": request.headers["host"],
        "x-amz-content-sha256": UNSIGNED_BODY,
        "x-amz-date": stamp,
    }
    if credentials.session_token:
        signed[SESSION_TOKEN] = credentials.session_token
    names = ";".join(signed)
    headers = "".join(f"{name}:{value}\n" for name, value in signed.items())
    path = request.url.raw_path.decode("ascii")
    canonical = f"{request.method}\n{path}\n\n{headers}\n{names}\n{UNSIGNED_BODY}"
    scope = f"{stamp[:8]}/{region}/{SERVICE}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}").hex()
    request.headers.update({name: signed[name] for name in signed if name != "host"})
    request.headers["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}"
    )


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _object_url(url: str, store: Store) -> str:
    found = bucket_and_key(url)
    if found is None:
        raise DownloadError(Reason.MODEL_URL_NOT_ALLOWED, f"{url} is not s3://BUCKET/KEY")
    bucket, key = found
    # As in the signature: everything except for unreserved characters is encoded.
    path = quote(key, safe="/~")
    if store.path_style:
        return f"{store.url}/{bucket}/{path}"
    scheme, _, host = store.url.partition("://")
    return f"{scheme}://{bucket}.{host}/{path}"
