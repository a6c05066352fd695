"""URLs of files on a claim, in an image, on a hub, in an object store, or in a registry.

No pydantic: the image of the download container has none.
"""

import re
from dataclasses import dataclass

_SEGMENTS = "(?:/[-._+@=~a-zA-Z0-9]+)+"
"""No ',' and ':', which separate files in llama-server's arguments, and no '%', because a path is
taken literally."""

CLAIM_URL = rf"pvc://([a-z0-9](?:[-.a-z0-9]*[a-z0-9])?)({_SEGMENTS})"
IMAGE_URL = rf"image://({_SEGMENTS})"

LOCAL = "^(pvc|image)://"
"""The beginning of both."""

_NAME = "[a-zA-Z0-9][-._a-zA-Z0-9]*"
_REVISION = "[a-zA-Z0-9][-._/a-zA-Z0-9]*"
_FILE = "(?:/[-._+=~()a-zA-Z0-9]+)+[.]gguf"
HUB_URL = rf"hf://({_NAME}/{_NAME})(?:({_FILE})|:({_NAME}))(?:@({_REVISION}))?"
"""A file of a repository, or the name of a quantization in it; and a revision."""

_BUCKET = "[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]"
S3_URL = rf"s3://({_BUCKET})({_SEGMENTS})"

_REGISTRY = "[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?(?::[0-9]{1,5})?"
_REPOSITORY = "[a-z0-9][-._a-z0-9]*(?:/[a-z0-9][-._a-z0-9]*)*"
_DIGEST = "@(sha256:[0-9a-f]{64})"
OCI_URL = (
    rf"oci://({_REGISTRY})/({_REPOSITORY})"
    rf"(?:(?::([a-zA-Z0-9_][-._a-zA-Z0-9]*)(?:{_DIGEST})?|{_DIGEST})((?:/[-._+=~a-zA-Z0-9]+)+)?)?"
)
"""An artifact or image of a registry, by its tag, its digest, or both; and then a file in it."""

TRAVERSAL = "^(pvc|image|hf|s3|oci)://.*/[.][.]?(/|$)"
"""A path with a segment `.` or `..`. As the other patterns in the syntax of both RE2 and `re`."""

HUB_ENDPOINT = "https://huggingface.co"


def claim_and_path(url: str) -> tuple[str, str] | None:
    """Return the claim of pvc://CLAIM/PATH, and the path on it; None for other URLs."""
    match = re.fullmatch(CLAIM_URL, url, re.ASCII)
    return None if match is None or re.search(TRAVERSAL, url) else (match[1], match[2][1:])


def path_in_image(url: str) -> str | None:
    """Return the path of image:///PATH; None for other URLs."""
    match = re.fullmatch(IMAGE_URL, url, re.ASCII)
    return None if match is None or re.search(TRAVERSAL, url) else match[1]


def is_local(url: str) -> bool:
    """Whether the file is on a claim or in the image, so that it is not downloaded."""
    return re.search(LOCAL, url) is not None


def bucket_and_key(url: str) -> tuple[str, str] | None:
    """Return the bucket and the key of s3://BUCKET/KEY; None for other URLs."""
    match = re.fullmatch(S3_URL, url, re.ASCII)
    return None if match is None or re.search(TRAVERSAL, url) else (match[1], match[2][1:])


@dataclass(frozen=True)
class HubAddress:
    """A file of a repository on a hub: its path, or else its quantization."""

    repository: str
    path: str | None
    quantization: str | None
    revision: str
    """Branch, tag or commit."""


def hub_address(url: str) -> HubAddress | None:
    """Return what hf://ORG/REPO/FILE@REVISION or hf://ORG/REPO:QUANTIZATION refers to; None for
    other URLs."""
    match = re.fullmatch(HUB_URL, url, re.ASCII)
    if match is None or re.search(TRAVERSAL, url):
        return None
    path = match[2][1:] if match[2] else None
    return HubAddress(match[1], path, match[3], match[4] or "main")


@dataclass(frozen=True)
class OciReference:
    """An artifact or image of a registry."""

    host: str
    """With the port, if any."""
    repository: str
    reference: str
    """Tag or digest."""
    path: str | None
    """Of a file in it."""
    url: str
    """Without the path, but with a tag or digest."""


def oci_reference(url: str) -> OciReference | None:
    """Return what oci://REGISTRY/REPOSITORY:TAG@DIGEST/PATH refers to; None for other URLs."""
    match = re.fullmatch(OCI_URL, url, re.ASCII)
    if match is None or re.search(TRAVERSAL, url):
        return None
    registry, repository, tag, digest_of_tag, digest, path = match.groups()
    digest = digest_of_tag or digest
    # The API of Docker Hub has another host than its name.
    host = "registry-1.docker.io" if registry == "docker.io" else registry
    base = url.removesuffix(path or "") if tag or digest else f"{url}:latest"
    return OciReference(host, repository, digest or tag or "latest", path and path[1:], base)
