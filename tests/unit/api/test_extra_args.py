from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from llamaservers import ROOT, parsed, raw_server
from slotkeeper.api.extra_args import MANAGED, flags_of
from slotkeeper.api.server import InvalidSpec
from slotkeeper.llamacpp.argv import Chat, Embeddings, Gpus, Serving, argv

KNOWN = Path(ROOT, "tests/unit/llamacpp/flags-b11669.txt")
OWN = {flag for managed in MANAGED for flag in managed.flags}

USERS_TOO = {"--threads", "--batch-size", "--ubatch-size"}
"""Flags that the operator sets and users may: their own counts, or a rule of the spec says no."""

FULL = Serving(
    model_path="/models/model.gguf",
    alias="chat",
    slots=1,
    context_per_slot=256,
    cache_ram_mib=0,
    port=8080,
    gpus=Gpus(tensor_split=(1, 2)),
    chat=Chat(template="chatml"),
    embeddings=Embeddings("mean"),
    threads=1,
)


def known() -> list[tuple[str, list[str]]]:
    """Whose each flag of llama-server is, and its spellings."""
    lines = [line.split() for line in KNOWN.read_text().splitlines() if not line.startswith("#")]
    return [(whose, spellings) for whose, *spellings in lines]


def passed() -> set[str]:
    """All flags that the operator may pass."""
    variants = [
        FULL,
        replace(FULL, chat=Chat(jinja=False)),
        replace(FULL, embeddings=Embeddings("rank")),
    ]
    return {word for word in chain(*map(argv, variants)) if word.startswith("--")}


def test_each_flag_of_llama_server_is_the_operators_or_the_users_in_all_its_spellings() -> None:
    whose = {spelling: owner for owner, spellings in known() for spelling in spellings}

    assert len(whose) == 415
    assert {spelling for spelling, owner in whose.items() if owner == "operator"} == OWN
    assert set(whose.values()) == {"operator", "user"}


def test_no_flag_is_managed_twice() -> None:
    assert len(OWN) == sum(len(managed.flags) for managed in MANAGED)


def test_llama_server_knows_each_flag_that_it_is_passed() -> None:
    assert passed() <= set(chain.from_iterable(spellings for _, spellings in known()))


def test_what_the_operator_sets_users_do_not() -> None:
    assert passed() - OWN == USERS_TOO


@pytest.mark.parametrize("flag", sorted(OWN))
def test_a_managed_flag_is_refused_with_what_to_do_instead(flag: str) -> None:
    (managed,) = [managed for managed in MANAGED if flag in managed.flags]

    with pytest.raises(InvalidSpec) as refused:
        parsed(raw_server(extraArgs=["--top-k", "20", flag]))

    assert str(refused.value).startswith("spec.extraArgs.2: must not be ")
    assert str(refused.value).endswith(managed.instead)


@pytest.mark.parametrize("spelling", ["--ctx_size", "--ctx-size=4096", "--ctx_size=4096"])
def test_no_other_spelling_gets_by(spelling: str) -> None:
    with pytest.raises(InvalidSpec, match=r"set contextPerSlot$"):
        parsed(raw_server(extraArgs=[spelling]))


@pytest.mark.parametrize("argument", ["--top-k=20", "--top-k 20", "-s\t1", "--json-schema\n{}"])
def test_a_flag_and_its_value_in_one_item_are_refused(argument: str) -> None:
    with pytest.raises(InvalidSpec, match="write them as two items"):
        parsed(raw_server(extraArgs=[argument]))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--top-k", "20", "--seed", "-1"], id="numbers"),
        pytest.param(["--override-kv", "a.b=bool:true"], id="a value with an equals sign"),
        pytest.param(["--reverse-prompt", "- end of it -"], id="a value with blanks and a dash"),
        pytest.param(["--chat-template-kwargs", '{"enable_thinking": false}'], id="JSON"),
        pytest.param(["--flag-of-tomorrow", ""], id="what no build knows yet"),
        pytest.param(["--threads", "3", "-ub", "1024"], id="what users may set too"),
    ],
)
def test_all_else_is_passed_on_as_it_is(arguments: list[str]) -> None:
    assert parsed(raw_server(extraArgs=arguments)).spec.extra_args == arguments


def test_flags_are_read_as_llama_server_reads_them() -> None:
    assert flags_of(["--ubatch_size", "512", "-v"]) == {"--ubatch-size", "512", "-v"}
