import json
from typing import Any

import pytest

from slotkeeper.api.download_progress import MAX_BYTES
from slotkeeper.bounded_json import BoundsError
from slotkeeper.reconcile.downloads.report import MAX_SIZE, ProgressReport

GB = 10**9

RAW = {
    "file": "model.gguf",
    "bytes": 4 * GB,
    "downloadedBytes": GB,
    "bytesPerSecond": 10_000_000,
    "secondsLeft": 300,
    "phase": "Downloading",
}


def report(**fields: Any) -> ProgressReport:
    return ProgressReport.parse(json.dumps(RAW | fields).encode())


def test_a_report_is_parsed() -> None:
    assert report() == ProgressReport(
        phase="Downloading",
        total_bytes=4 * GB,
        downloaded_bytes=GB,
        bytes_per_second=10_000_000,
        seconds_left=300,
    )


def test_unknown_values_and_fields_are_allowed() -> None:
    found = report(bytes=None, bytesPerSecond=None, secondsLeft=None, new=1)

    assert (found.total_bytes, found.bytes_per_second, found.seconds_left) == (None, None, None)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"bytes": -1}, id="negative size"),
        pytest.param({"bytes": 4e9}, id="float"),
        pytest.param({"bytes": "4"}, id="text"),
        pytest.param({"bytes": True}, id="boolean"),
        pytest.param({"bytes": MAX_SIZE + 1}, id="larger than any disk"),
        pytest.param({"downloadedBytes": 5 * GB}, id="more than there is"),
        pytest.param({"downloadedBytes": None}, id="no bytes"),
        pytest.param({"bytesPerSecond": 2**63}, id="a speed beyond 64 bits"),
        pytest.param({"secondsLeft": -5}, id="negative time"),
        pytest.param({"secondsLeft": 10**12}, id="thousands of years"),
        pytest.param({"phase": "Mining"}, id="another phase"),
        pytest.param({"phase": None}, id="no phase"),
        pytest.param({"phase": "x" * 300}, id="a long phase"),
    ],
)
def test_absurd_values_are_rejected(fields: Any) -> None:
    with pytest.raises(ValueError, match="no progress of a download"):
        report(**fields)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no fields"),
        pytest.param(b"[" * 2000, id="deep"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(json.dumps(RAW).encode() + b" " * MAX_BYTES, id="too long"),
        pytest.param(b'{"phase": "Waiting", "bytes": 1e400}', id="1e400"),
        pytest.param(b'{"phase": "Waiting", "bytes": NaN}', id="NaN"),
        pytest.param(b'{"phase": "Waiting", "bytes": ' + b"9" * 1000 + b"}", id="a huge integer"),
    ],
)
def test_a_hostile_body_is_rejected(body: bytes) -> None:
    with pytest.raises((BoundsError, ValueError)):
        ProgressReport.parse(body)


def test_an_error_quotes_nothing_of_the_body() -> None:
    with pytest.raises(ValueError, match="no progress") as caught:
        report(phase="<script>CANARY", file="CANARY")

    assert "CANARY" not in str(caught.value)


def test_the_pod_that_will_have_its_model_first_ranks_first() -> None:
    ranked = [
        report(phase="Verifying", secondsLeft=None),
        report(secondsLeft=10),
        report(secondsLeft=20),
        report(secondsLeft=None, downloadedBytes=2 * GB),
        report(secondsLeft=None),
        report(secondsLeft=None, bytes=None, downloadedBytes=3 * GB),
        report(phase="Checking", secondsLeft=None),
        report(phase="Waiting", secondsLeft=None),
    ]

    ranks = [each.rank for each in ranked]
    assert ranks == sorted(ranks)
    assert len({*ranks}) == len(ranks)
