import pytest

from slotkeeper.api.paths import PROXIED, Cost
from slotkeeper.llamacpp.prompt_fields import PROMPT_FIELDS, without_billing_code


def test_every_path_with_cached_prompts_has_its_fields() -> None:
    generating = {path.encode() for path, cost in PROXIED.items() if cost is Cost.GENERATION}

    assert PROMPT_FIELDS.keys() == generating


def test_no_field_counts_twice() -> None:
    for prompt, settings in PROMPT_FIELDS.values():
        assert len({*prompt, *settings}) == len(prompt) + len(settings)


HEADER = b'"x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli; cch=%b;You are'


@pytest.mark.parametrize("text", [b'%b"', b'[{"type":"text","text":%b"}]'])
def test_the_billing_code_of_a_system_prompt_is_masked(text: bytes) -> None:
    first, second = (without_billing_code(text % (HEADER % code)) for code in (b"a5145", b"0e9f1"))

    assert first == second == text % (HEADER % b"fffff")


@pytest.mark.parametrize(
    "system",
    [
        b'"You are"',
        b'"cch=a5145;"',
        b'"x-anthropic-billing-header: cch=a5145"',
        b'"x-anthropic-billing-header:","cch=a5145;"',
        b'"See x-anthropic-billing-header: cch=a5145;"',
    ],
)
def test_no_other_text_is_masked(system: bytes) -> None:
    assert without_billing_code(system) == system
