"""Known vulnerabilities by build, and only those that a server is exposed to."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.llamacpp.known_builds import (
    ADVISORIES,
    Advisory,
    Exposure,
    advisories,
    build_number,
    known_ids,
)


def ids(build: int, *exposures: Exposure, accepted: tuple[str, ...] = ()) -> set[str]:
    return known_ids(advisories(build, exposures, accepted))


@pytest.mark.parametrize(
    ("build_info", "number"),
    [
        ("b11669-Debian", 11669),
        ("b11434-5a1b2c3", 11434),
        ("11434", 11434),
        ("b8204", 8204),
        # Of a clone without history, or of an archive.
        ("b1-3134a28", None),
        ("b0-unknown", None),
        ("", None),
        ("unknown", None),
        ("b99999999999999", None),
        ("b\u0661\u0661\u0666\u0666", None),
    ],
)
def test_the_number_of_a_build(build_info: str, number: int | None) -> None:
    assert build_number(build_info) == number


@given(st.text())
def test_any_text_is_a_build_or_none(build_info: str) -> None:
    number = build_number(build_info)

    assert number is None or 1000 <= number <= 10**9


CORRECTED = [(each, each.last) for each in ADVISORIES if each.last is not None]


@pytest.mark.parametrize(
    ("advisory", "last"), CORRECTED, ids=lambda value: getattr(value, "id", "")
)
def test_a_range_has_its_builds_and_no_others(advisory: Advisory, last: int) -> None:
    for build, affected in [
        (advisory.first - 1, False),
        (advisory.first, True),
        (last, True),
        (last + 1, False),
    ]:
        assert (advisory in advisories(build, [advisory.exposure])) == affected
    assert advisory.fixed in {None, last + 1}


def test_a_server_is_exposed_only_by_what_it_has() -> None:
    # The build of Slotkeeper's own image.
    assert ids(11434, Exposure.MODEL, Exposure.REQUEST, Exposure.PROMPT_CACHE) == set()
    assert ids(11434, Exposure.MODEL, Exposure.WORKERS) == set()
    assert ids(11434, Exposure.WORKERS, Exposure.RDMA_WORKERS) == {"CVE-2026-118375"}
    newest = max(last for _, last in CORRECTED)
    assert ids(newest, *Exposure)
    assert ids(newest + 1, *Exposure) == set()
    assert "CVE-2026-43628" in ids(9058, Exposure.REQUEST)
    assert ids(9059, Exposure.REQUEST) == set()
    # The balancer rejects what it needs.
    assert "CVE-2026-107183" not in ids(11392, Exposure.MODEL, Exposure.REQUEST)


def test_what_no_build_corrects_is_not_reported() -> None:
    [unfixed] = [each for each in ADVISORIES if each.last is None]

    assert unfixed.id not in ids(11434, *Exposure)
    assert unfixed.mitigation


def test_an_accepted_advisory_is_none() -> None:
    assert ids(11434, Exposure.RDMA_WORKERS, accepted=("CVE-2026-118375",)) == set()
    # Both of one entry have to be accepted.
    assert ids(8000, Exposure.SLEEP, accepted=("CVE-2026-43631",)) == {
        "CVE-2026-43631",
        "CVE-2026-43632",
    }
    assert not ids(8000, Exposure.SLEEP, accepted=("CVE-2026-43631", "CVE-2026-43632"))


def test_ids_are_those_of_records() -> None:
    assert all(re.fullmatch(r"CVE-20\d\d-\d{4,7}", each) for each in known_ids())
