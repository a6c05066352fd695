"""The bearer token for downloads, which is never logged or reported.

The Secret of the token lists the hosts that may receive it: who may create a LlamaServer, but not
read Secrets, cannot have any Secret sent to a host of their own.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import httpx

from slotkeeper.api.in_cluster import HTTP_URL
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.secret_hosts import hosts_in, not_listed
from slotkeeper.download.errors import DownloadError
from slotkeeper.error_text import describe

MAX_CHARACTERS = 16_384


@dataclass(frozen=True)
class Token:
    """A bearer token, and where it may be sent."""

    value: str
    hosts: frozenset[str]
    """Lower-case names of the hosts that may receive it."""
    allow_http: bool = False
    """Whether it may also be sent by http://, to hosts of the cluster."""

    def require_allowed(self, request: httpx.Request) -> None:
        """Raise DownloadError (ModelTokenNotAllowed) if this request must not contain the token.

        httpx calls it for each request, also after a redirect.
        """
        if request.headers.get("authorization") == f"Bearer {self.value}":
            self.require_receiver(request)

    def require_receiver(self, request: httpx.Request) -> None:
        """Raise DownloadError (ModelTokenNotAllowed) if this host must not receive the token."""
        host = request.url.raw_host.decode("ascii").lower()
        if host not in self.hosts:
            raise DownloadError(
                Reason.MODEL_TOKEN_NOT_ALLOWED,
                f"the token is not sent to {host}: the entry `hosts` of the Secret "
                f"(model.tokenSecretRef) {not_listed(self.hosts)}",
            )
        # The URL of the request, not of the spec: the host may have redirected to http://.
        in_cluster = re.fullmatch(HTTP_URL, str(request.url), re.IGNORECASE) is not None
        if request.url.scheme != "https" and not (self.allow_http and in_cluster):
            raise DownloadError(
                Reason.MODEL_TOKEN_NOT_ALLOWED,
                f"the token is not sent to {host} by http://, where others can read it: use "
                "https://, or for a host that ends with .svc or .svc.cluster.local set "
                "model.tokenSecretRef.allowHttp",
            )


def read_token(path: Path, hosts: Path, *, allow_http: bool = False) -> Token:
    """Read a token, without surrounding white space, and its hosts. Raises DownloadError."""
    return Token(read_value(path), hosts_in(_read(hosts)), allow_http)


def read_value(path: Path) -> str:
    """Read a token, without surrounding white space.

    Raises DownloadError if it is missing, or not valid in an HTTP header: the error of an HTTP
    library would quote it.
    """
    text = _read(path)
    if not re.fullmatch("[!-~]+", text) or len(text) > MAX_CHARACTERS:
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            "the entry of the Secret (model.tokenSecretRef) is not a token: it must be one line of "
            "printable ASCII without spaces",
        )
    return text


def _read(path: Path) -> str:
    """Return the text of a file; empty if it is not ASCII."""
    try:
        return path.read_bytes().decode("ascii").strip()
    except OSError as error:
        raise DownloadError(
            Reason.MODEL_TOKEN_INVALID,
            f"cannot read the token for downloads (model.tokenSecretRef): {describe(error)}",
        ) from None
    except UnicodeDecodeError:
        return ""
