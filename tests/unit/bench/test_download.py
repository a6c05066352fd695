from pathlib import Path

from bench.download.__main__ import MIB, write_model
from slotkeeper.llamacpp.gguf_layout import read_layout


def test_the_model_of_the_benchmark_is_a_complete_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"

    write_model(path, MIB)

    assert read_layout(path.read_bytes()).size == path.stat().st_size > MIB
