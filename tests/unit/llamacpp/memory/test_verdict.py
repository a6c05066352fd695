"""Whether a load fits is said in one sentence, with what fits instead."""

from dataclasses import replace

import pytest

from slotkeeper.llamacpp.memory.dimensions import Dimensions, Layer
from slotkeeper.llamacpp.memory.load import Gpus, Load
from slotkeeper.llamacpp.memory.plan import Parts, plan
from slotkeeper.llamacpp.memory.verdict import judge

GIB = 1024**3
MIB = 1024**2
LAYER = Layer(GIB // 4, heads=32, key=1024, value=1024, flash_attention=8000, feed_forward=40_000)
PARTS = Parts(Dimensions("llama", (LAYER,) * 32, 4096, 128_000, 131_072, GIB // 4, True, 0, 16_384))
"""A model of 8 GiB with a cache of 1 GiB for 8192 tokens."""


@pytest.mark.parametrize(
    ("slots", "gibibytes", "fits", "message"),
    [
        (4, 16, True, "4 slots x 8192 tokens need 12.9 GiB of 16.0 GiB"),
        (1, 16, True, "1 slot x 8192 tokens need 9.9 GiB of 16.0 GiB"),
        (8, 15, False, "8 slots x 8192 tokens need 16.9 GiB of 15.0 GiB; 6 slots fit"),
        (8, 10, False, "8 slots x 8192 tokens need 16.9 GiB of 10.0 GiB; 1 slot fits"),
        (
            2,
            6,
            False,
            (
                "2 slots x 8192 tokens need 10.9 GiB of 6.0 GiB; no slot fits, but all of them fit "
                "with 17 of 33 layers on GPUs"
            ),
        ),
    ],
)
def test_the_sentence_has_what_is_needed_and_what_fits(
    slots: int, gibibytes: int, fits: bool, message: str
) -> None:
    verdict = judge(PARTS, Load(slots, 8192, gpus=Gpus((gibibytes * GIB,))))

    assert (verdict.fits, verdict.message) == (fits, message)


def test_layers_in_main_memory_are_named() -> None:
    verdict = judge(PARTS, Load(2, 8192, gpus=Gpus((6 * GIB,), layers=17)))

    assert verdict.fits
    assert verdict.message.startswith("2 slots x 8192 tokens with 17 of 33 layers on GPUs need 5.")


@pytest.mark.parametrize(("missing", "sign"), [(0, "True"), (1, "False")])
def test_what_is_needed_and_what_is_there_look_equal_only_if_they_are(
    missing: int, sign: str
) -> None:
    need = plan(PARTS, Load(1, 8192, gpus=Gpus((16 * GIB,)))).gpus[0].total
    memory = -(-need // MIB) * MIB - missing * MIB

    verdict = judge(PARTS, Load(1, 8192, gpus=Gpus((memory,))))

    assert str(verdict.fits) == sign
    needed = memory // MIB + missing
    assert f"need {needed} MiB of {memory // MIB} MiB" in verdict.message


@pytest.mark.parametrize(("shares", "number"), [((1, 2), 1), ((2, 1), 0)])
def test_of_several_gpus_the_fullest_is_named(shares: tuple[float, ...], number: int) -> None:
    verdict = judge(PARTS, Load(8, 8192, gpus=Gpus((8 * GIB, 8 * GIB), shares=shares)))

    assert not verdict.fits
    assert f"of 8.0 GiB of GPU {number}; " in verdict.message


def test_a_gpu_that_has_not_even_space_for_the_output_is_too_small() -> None:
    huge = replace(PARTS.model, table=20 * GIB)

    verdict = judge(Parts(huge), Load(1, 8192, gpus=Gpus((4 * GIB,))))

    assert verdict.message.endswith(
        "; no slot fits: the weights need 28.0 GiB and the driver 500 MiB"
    )
