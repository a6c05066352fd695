from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from llamaservers import ROOT, parsed, raw_server
from slotkeeper.api.extra_args import REJECTED, flags_of
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.llamacpp.argv import Chat, Embeddings, Gpus, Sampling, Serving, Speculative, argv

FLAGS_FILE = Path(ROOT, "tests/unit/llamacpp/flags-b11669.txt")
REJECTED_FLAGS = {flag for rejected in REJECTED for flag in rejected.flags}

SHARED = {"--threads", "--batch-size", "--ubatch-size"}
"""Flags that both the operator and users may set: the user's takes precedence, or a rule of the
spec rejects it."""

FULL = Serving(
    model_path="/models/model.gguf",
    alias="chat",
    slots=1,
    context_per_slot=256,
    cache_ram_mib=0,
    port=8080,
    gpus=Gpus(cpu_moe_layers=1, main=1, tensor_split=(1, 2)),
    mmproj="/models/mmproj.gguf",
    mmproj_offload=False,
    context_checkpoints=1,
    chat=Chat(template="chatml", template_kwargs="{}"),
    sampling=Sampling(0.7, 20, 0.8, 0.1, 1.1, 64, 1, 1, 42),
    speculative=Speculative("draft-simple", "/models/draft.gguf", 1, 8, 0.5),
    embeddings=Embeddings("mean"),
    threads=1,
)


def listed_flags() -> list[tuple[str, list[str]]]:
    """The owner and the spellings of each flag of llama-server."""
    lines = FLAGS_FILE.read_text().splitlines()
    words = [line.split() for line in lines if not line.startswith("#")]
    return [(owner, spellings) for owner, *spellings in words]


def flags_of_the_operator() -> set[str]:
    """All flags that the operator may pass."""
    variants = [
        FULL,
        replace(FULL, chat=Chat(jinja=False)),
        replace(FULL, embeddings=Embeddings("rank")),
        *(
            replace(FULL, speculative=Speculative(kind, max_tokens=1))
            for kind in ("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod")
        ),
    ]
    return {word for word in chain(*map(argv, variants)) if word.startswith("--")}


def test_each_flag_of_llama_server_is_the_operators_or_the_users_in_all_its_spellings() -> None:
    owners = {spelling: owner for owner, spellings in listed_flags() for spelling in spellings}

    assert len(owners) == 415
    assert {spelling for spelling, owner in owners.items() if owner == "operator"} == REJECTED_FLAGS
    assert set(owners.values()) == {"operator", "user"}


def test_no_flag_is_rejected_twice() -> None:
    assert len(REJECTED_FLAGS) == sum(len(rejected.flags) for rejected in REJECTED)


def test_each_flag_that_the_operator_sets_exists() -> None:
    listed = chain.from_iterable(spellings for _, spellings in listed_flags())

    assert flags_of_the_operator() <= set(listed)


def test_flags_that_the_operator_sets_are_rejected_for_users() -> None:
    assert flags_of_the_operator() - REJECTED_FLAGS == SHARED


@pytest.mark.parametrize("flag", sorted(REJECTED_FLAGS))
def test_a_rejected_flag_comes_with_its_remedy(flag: str) -> None:
    (rejected,) = [rejected for rejected in REJECTED if flag in rejected.flags]

    with pytest.raises(InvalidSpec) as caught:
        parsed(raw_server(extraArgs=["--mirostat", "2", flag]))

    assert str(caught.value).startswith("spec.extraArgs.2: must not be ")
    assert str(caught.value).endswith(rejected.remedy)


@pytest.mark.parametrize("spelling", ["--ctx_size", "--ctx-size=4096", "--ctx_size=4096"])
def test_other_spellings_are_rejected_too(spelling: str) -> None:
    with pytest.raises(InvalidSpec, match=r"set contextPerSlot$"):
        parsed(raw_server(extraArgs=[spelling]))


@pytest.mark.parametrize("argument", ["--mirostat=2", "--mirostat 2", "-l\t1", "--json-schema\n{}"])
def test_a_flag_and_its_value_in_one_item_are_rejected(argument: str) -> None:
    with pytest.raises(InvalidSpec, match="write them as two items"):
        parsed(raw_server(extraArgs=[argument]))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--mirostat", "2", "--dry-penalty-last-n", "-1"], id="numbers"),
        pytest.param(["--override-kv", "a.b=bool:true"], id="a value with an equals sign"),
        pytest.param(["--reverse-prompt", "- end of it -"], id="a value with spaces and a dash"),
        pytest.param(["--json-schema", '{"type": "object"}'], id="JSON"),
        pytest.param(["--flag-of-tomorrow", ""], id="a flag of a newer build"),
        pytest.param(["--threads", "3", "-ub", "1024"], id="flags that users may also set"),
    ],
)
def test_other_arguments_are_accepted_unchanged(arguments: list[str]) -> None:
    assert parsed(raw_server(extraArgs=arguments)).spec.extra_args == arguments


def test_flags_are_normalized_as_in_llama_server() -> None:
    assert flags_of(["--ubatch_size", "512", "-v"]) == {"--ubatch-size", "512", "-v"}
