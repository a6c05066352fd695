from pathlib import Path

from slotkeeper.bake.labels import BakedFile, baked_file, labels
from slotkeeper.download.files import File
from slotkeeper.download.records import FileRecord, write
from slotkeeper.llamacpp.gguf import GgufMetadata


def test_a_split_model_has_the_checksums_and_the_size_of_all_files(tmp_path: Path) -> None:
    for number in (1, 2):
        path = tmp_path / f"model-0000{number}-of-00002.gguf"
        path.write_bytes(b"x" * number)
        write(path.with_name(f"{path.name}.json"), FileRecord("", "", f"{number}" * 64, number, 0))
    url = "https://user:CANARY@h/a-00001-of-00002.gguf?token=CANARY"

    file = baked_file(File(url, tmp_path / "model-00001-of-00002.gguf"))

    assert file == BakedFile(
        field="model",
        url="https://h/a-00001-of-00002.gguf",
        names=("model-00001-of-00002.gguf", "model-00002-of-00002.gguf"),
        sha256=("1" * 64, "2" * 64),
        size=3,
    )


def test_labels_state_where_the_files_are_from() -> None:
    files = [
        BakedFile("model", "https://h/m.gguf", ("model.gguf",), ("a" * 64,), 1),
        BakedFile("adapter-0", "https://h/l.gguf", ("adapter-0.gguf",), ("b" * 64,), 1),
    ]
    metadata = GgufMetadata(architecture="qwen2", quantization="Q4_K_M", name="Qwen2.5 7B")

    assert labels(files, "llama:cuda", metadata) == {
        "org.opencontainers.image.base.name": "llama:cuda",
        "org.opencontainers.image.description": "llama-server with a model in /models",
        "org.opencontainers.image.title": "Qwen2.5 7B",
        "slotkeeper.dev/model-architecture": "qwen2",
        "slotkeeper.dev/model-quantization": "Q4_K_M",
        "slotkeeper.dev/model-url": "https://h/m.gguf",
        "slotkeeper.dev/model-sha256": "a" * 64,
        "slotkeeper.dev/adapter-0-url": "https://h/l.gguf",
        "slotkeeper.dev/adapter-0-sha256": "b" * 64,
    }


def test_text_that_a_builder_would_expand_is_left_out_or_encoded() -> None:
    file = BakedFile("model", 'https://h/$PATH"\\.gguf', ("model.gguf",), ("a" * 64,), 1)
    metadata = GgufMetadata(architecture="$(id)", name='"\nRUN evil')

    found = labels([file], "b", metadata)

    assert found["slotkeeper.dev/model-url"] == "https://h/%24PATH%22%5C.gguf"
    assert not {"org.opencontainers.image.title", "slotkeeper.dev/model-architecture"} & {*found}
