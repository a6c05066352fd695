from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaservers import server
from slotkeeper.api.compute_capability import normalize
from slotkeeper.api.resource import InvalidSpec


@pytest.mark.parametrize("arch", [7.5, 75, "7.5", "75", "sm_75", "compute_75"])
def test_the_spellings_of_one_compute_capability_mean_the_same(arch: Any) -> None:
    assert normalize(arch) == "7.5"


@pytest.mark.parametrize(
    ("arch", "normalized"),
    [(8, "8.0"), (8.0, "8.0"), (12, "12.0"), (12.1, "12.1"), ("120", "12.0"), ("sm_103", "10.3")],
)
def test_a_version_that_yaml_reads_as_a_whole_number_is_a_major_version(
    arch: Any, normalized: str
) -> None:
    assert normalize(arch) == normalized


@pytest.mark.parametrize(
    "arch", ["", "7", "ampere", "sm_7.5", "sm75", "7.55", 7.55, -7.5, 0, True, None, ["7.5"], {}]
)
def test_other_values_are_rejected(arch: Any) -> None:
    with pytest.raises(ValueError, match="must be a compute capability such as"):
        normalize(arch)


@given(st.integers(2, 99), st.integers(0, 9))
def test_all_spellings_agree(major: int, minor: int) -> None:
    spellings: list[Any] = [
        f"{major}.{minor}",
        f"{major}{minor}",
        f"sm_{major}{minor}",
        f"compute_{major}{minor}",
        major * 10 + minor,
        float(f"{major}.{minor}") if minor or major < 20 else f"{major}.0",
    ]

    assert {normalize(spelling) for spelling in spellings} == {f"{major}.{minor}"}


def test_auto_is_kept() -> None:
    assert server(gpu={"computeArch": "auto"}).spec.gpu.compute_arch == "auto"


@pytest.mark.parametrize("arch", [7.3, "sm_73", "1.3", "5.1", 4, "compute_63"])
def test_a_compute_capability_that_no_gpu_has_is_rejected_with_those_that_exist(arch: Any) -> None:
    with pytest.raises(InvalidSpec, match=r"no GPU has compute capability .* 7\.0, 7\.2, 7\.5"):
        server(gpu={"computeArch": arch})


@pytest.mark.parametrize("arch", ["3.5", "5.2", 7.2, 8.8, "sm_103", 12.1, 13, "sm_147"])
def test_those_that_exist_and_those_of_future_gpus_are_accepted(arch: Any) -> None:
    assert server(gpu={"computeArch": arch}).spec.gpu.compute_arch == normalize(arch)
