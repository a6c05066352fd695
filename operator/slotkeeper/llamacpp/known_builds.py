"""Builds of llama.cpp with published vulnerabilities, and what a server must have to be exposed.

Ranges are those of the published records, which are named beside each entry. Records of files that
are parsed, or of requests, apply to every server; the others only to servers with the feature.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum


class Exposure(Enum):
    """What makes the vulnerable code reachable."""

    MODEL = "a crafted model file"
    REQUEST = "a request of a client"
    PROMPT_CACHE = "promptCache, with a crafted file on its volume"
    WORKERS = "workers: a program that can connect to their port"
    RDMA_WORKERS = "workers with a resource for RDMA: a program that can connect to their port"
    SLEEP = "--sleep-idle-seconds, which extraArgs rejects"
    REJECTED_REQUEST = "a request that the balancer rejects"


@dataclass(frozen=True)
class Advisory:
    """A published vulnerability."""

    id: str
    title: str
    """What can happen, as part of a sentence."""
    exposure: Exposure
    first: int
    """The first build with it, or 0 where the record names none."""
    last: int | None
    """The last build with it, as far as the record goes. None if there is no build without it: it
    is documented, and not reported, since no newer image helps."""
    fixed: int | None
    """The first build that the record calls fixed; None if it names none."""
    mitigation: str = ""
    """What reduces the risk in Slotkeeper, as a sentence."""


ADVISORIES: tuple[Advisory, ...] = (
    # CVE record; GHSA-96jg-mvhq-q7q7.
    Advisory(
        "CVE-2026-33298",
        "a crafted GGUF file overflows the heap (sizes of tensors)",
        Exposure.MODEL,
        0,
        7823,
        7824,
        "With `sha256`, only the file that was reviewed is loaded.",
    ),
    # CVE record; GHSA-3p4r-fq3f-q74v.
    Advisory(
        "CVE-2026-27940",
        "a crafted GGUF file overflows the heap (gguf_init_from_file)",
        Exposure.MODEL,
        0,
        8145,
        8146,
        "With `sha256`, only the file that was reviewed is loaded.",
    ),
    # CVE record; GHSA-j8rj-fmpv-wcxw.
    Advisory(
        "CVE-2026-34159",
        "clients of an rpc-server read and write its memory without authentication",
        Exposure.WORKERS,
        0,
        8491,
        8492,
        "A NetworkPolicy allows only the server's leaders to reach the workers.",
    ),
    # CVE record; GHSA-8947-pfff-2f3c; fixed by ggml-org/llama.cpp#22267, which was merged on
    # 2026-04-23. The record names no build: b8936 is of 2026-04-26.
    Advisory(
        "CVE-2026-21869",
        "a request with a negative n_discard writes out of bounds",
        Exposure.REJECTED_REQUEST,
        0,
        8935,
        8936,
        "Such requests are rejected with `invalid_sampling`, so that it is never reported.",
    ),
    # CVE record.
    Advisory(
        "CVE-2026-43628",
        "a request reads out of bounds in the DRY sampler",
        Exposure.REQUEST,
        3978,
        9058,
        None,
    ),
    # CVE record.
    Advisory(
        "CVE-2026-43629",
        "a crafted file of a slot overflows the heap when it is restored",
        Exposure.PROMPT_CACHE,
        4882,
        9058,
        None,
        "Only the server's own replicas, and those who can write its volume, write these files.",
    ),
    # CVE records; GHSA-6hc7-9rph-cm99.
    Advisory(
        "CVE-2026-43631, CVE-2026-43632",
        "requests use freed memory while llama-server falls asleep",
        Exposure.SLEEP,
        7492,
        9060,
        None,
        "The flag is rejected, so that these are never reported.",
    ),
    # CVE record; GHSA-f4vj-w5xq-5xph; ggml-org/llama.cpp#25289, which was closed as not planned.
    Advisory(
        "CVE-2026-78147",
        "a client makes an rpc-server call any address (operations with function pointers)",
        Exposure.WORKERS,
        0,
        None,
        None,
        "A NetworkPolicy allows only the server's leaders to reach the workers: make sure that the "
        "network enforces it.",
    ),
    # CVE record.
    Advisory(
        "CVE-2026-107183",
        "a request with a chat_parser uses freed memory",
        Exposure.REJECTED_REQUEST,
        0,
        11392,
        11393,
        "Such requests are rejected with `internal_field`, so that it is never reported.",
    ),
    # CVE record.
    Advisory(
        "CVE-2026-118375",
        "a client of an rpc-server with RDMA overflows its stack",
        Exposure.RDMA_WORKERS,
        0,
        11864,
        11865,
        "Without RDMA devices in the pods there is no RDMA: it is reported only where `resources` "
        "or `workers.resources` name one, such as `rdma/hca`. Slotkeeper's own image is built "
        "without it.",
    ),
)
"""In the order of their last builds, and by date where there is none."""

MIN_BUILD = 1000
"""Builds from a clone without history have a number far below, which is of no use."""

_BUILD = re.compile(r"b?([0-9]{1,9})(?:[^0-9]|$)", re.ASCII)


def build_number(build_info: str) -> int | None:
    """Return the number of a build, such as 11669 of `b11669-Debian`; None if it has none."""
    found = _BUILD.match(build_info)
    number = int(found[1]) if found else 0
    return number if number >= MIN_BUILD else None


def advisories(
    build: int, exposures: Collection[Exposure], accepted: Collection[str] = ()
) -> list[Advisory]:
    """Return what a newer build corrects, for a server that is exposed in these ways."""
    return [
        advisory
        for advisory in ADVISORIES
        if advisory.last is not None
        and advisory.first <= build <= advisory.last
        and advisory.exposure in exposures
        and not {*advisory.id.split(", ")} <= {*accepted}
    ]


def known_ids(advisories: Iterable[Advisory] = ADVISORIES) -> set[str]:
    """Return the ids of advisories, each on its own."""
    return {each for advisory in advisories for each in advisory.id.split(", ")}
