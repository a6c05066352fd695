from dataclasses import replace

from slotkeeper.llamacpp.argv import ALL_LAYERS, Serving, argv

SERVING = Serving(
    model_path="/models/model.gguf",
    alias="chat",
    slots=4,
    context_per_slot=4096,
    gpu_layers=ALL_LAYERS,
    cache_ram_mib=512,
    threads=None,
    port=8080,
)


def test_a_llama_server_is_told_all_that_it_stands_on() -> None:
    assert " ".join(argv(SERVING)) == (
        "--model /models/model.gguf --alias chat --host 0.0.0.0 --port 8080 --parallel 4 "
        "--ctx-size 16384 --no-kv-unified --cache-ram 512 --fit off --n-gpu-layers 999 "
        "--metrics --slots"
    )


def test_each_slot_has_the_context_that_was_asked_for_it() -> None:
    arguments = argv(replace(SERVING, slots=3, context_per_slot=1000))

    assert arguments[arguments.index("--ctx-size") + 1] == "3000"


def test_threads_are_bounded_where_the_cpu_is() -> None:
    arguments = argv(replace(SERVING, threads=2))

    assert arguments[arguments.index("--threads") + 1] == "2"
