"""URLs of files that are not downloaded: on a claim, or in the image of llama-server.

No pydantic: the image of the download container has none.
"""

import re

_SEGMENTS = "(?:/[-._+@=~a-zA-Z0-9]+)+"
"""No ',' and ':', which separate files in llama-server's arguments, and no '%', because a path is
taken literally."""

CLAIM_URL = rf"pvc://([a-z0-9](?:[-.a-z0-9]*[a-z0-9])?)({_SEGMENTS})"
IMAGE_URL = rf"image://({_SEGMENTS})"

LOCAL = "^(pvc|image)://"
"""The beginning of both."""

TRAVERSAL = "^(pvc|image)://.*/[.][.]?(/|$)"
"""A path with a segment `.` or `..`. As the other patterns in the syntax of both RE2 and `re`."""


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
