"""Layers are assigned to GPUs as llama.cpp assigns them: consecutive, the output last."""

import pytest

from slotkeeper.llamacpp.memory.dimensions import UnplannableError
from slotkeeper.llamacpp.memory.load import Gpus
from slotkeeper.llamacpp.memory.placement import assign, shares


def test_all_layers_and_the_output_are_on_the_only_gpu() -> None:
    assert assign(3, Gpus((8,))) == [0, 0, 0, 0]


def test_without_gpus_all_is_on_the_cpu() -> None:
    assert assign(3, Gpus(())) == [None] * 4


def test_the_first_layers_stay_on_the_cpu_if_not_all_fit() -> None:
    assert assign(3, Gpus((8,), layers=2)) == [None, None, 0, 0]


def test_one_layer_on_the_gpu_is_the_output() -> None:
    assert assign(3, Gpus((8,), layers=1)) == [None, None, None, 0]


def test_two_equal_gpus_get_half_of_the_layers() -> None:
    # 33 with the output: the first seventeen are below half of it.
    assert assign(32, Gpus((8, 8))) == [0] * 17 + [1] * 16


def test_gpus_get_layers_in_proportion_to_their_shares() -> None:
    assert assign(7, Gpus((8, 8), shares=(3, 1))) == [0] * 6 + [1] * 2


def test_gpus_get_layers_in_proportion_to_their_memory_without_shares() -> None:
    assert assign(7, Gpus((24, 8))) == [0] * 6 + [1] * 2


def test_a_gpu_without_a_share_gets_nothing() -> None:
    assert assign(3, Gpus((8, 8), shares=(0, 1))) == [1] * 4


def test_the_first_gpu_has_all_if_the_model_is_not_split() -> None:
    assert assign(3, Gpus((8, 8), split_mode="none")) == [0] * 4


def test_shares_are_normalized() -> None:
    assert shares(Gpus((8, 8), shares=(3, 1))) == [0.75, 0.25]


def test_shares_that_do_not_suit_the_gpus_are_an_error() -> None:
    with pytest.raises(UnplannableError, match="1 shares for 2 GPUs"):
        assign(3, Gpus((8, 8), shares=(1,)))


def test_shares_of_nothing_are_an_error() -> None:
    with pytest.raises(UnplannableError, match="no GPU has a share"):
        assign(3, Gpus((8, 8), shares=(0, 0)))
