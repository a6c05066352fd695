"""Texts that reach a container as they are, whatever Kubernetes would replace in them."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from kubernetes_expansion import expanded
from slotkeeper.desired.literal import literal

VARIABLES = {"HOME": "/home", "(HOME": "/other"}


@given(st.text("$()HOMEx", max_size=12))
@example("$$(HOME)")
@example("$$$((HOME)$")
def test_a_text_reaches_its_container_as_it_is(text: str) -> None:
    assert expanded(literal(text), VARIABLES) == text


@given(st.text("$ab", max_size=12))
def test_a_text_with_nothing_to_replace_is_readable(text: str) -> None:
    if not re.search(r"\$[$(]", text):
        assert literal(text) == text
