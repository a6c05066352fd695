import re

from hypothesis import given
from hypothesis import strategies as st

from llamaservers import server
from slotkeeper.api.child_name import child_name
from slotkeeper.desired import names
from slotkeeper.desired.names import Component

dns_labels = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
suffixes = st.sampled_from(["replicas", "balancer"])


def test_children_are_named_after_their_server() -> None:
    chat = server("chat")

    assert names.client_service(chat) == "chat"
    assert names.replicas(chat) == "chat-replicas"
    assert names.balancer(chat) == "chat-balancer"
    assert names.client_url(chat) == "http://chat.default.svc"


@given(dns_labels, suffixes)
def test_a_child_s_name_is_a_dns_label(owner: str, suffix: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", child_name(owner, suffix))


@given(dns_labels, suffixes)
def test_a_child_s_name_ends_with_its_suffix(owner: str, suffix: str) -> None:
    assert child_name(owner, suffix).endswith(f"-{suffix}")


def test_long_names_that_differ_only_at_their_end_stay_apart() -> None:
    one, other = "a" * 62 + "b", "a" * 62 + "c"

    assert child_name(one, "replicas") != child_name(other, "replicas")
    assert len(child_name(one, "replicas")) == 63


def test_a_truncated_name_has_no_double_dash() -> None:
    owner = "a" * 44 + "-" + "b" * 18

    assert "--" not in child_name(owner, "replicas")


def test_a_selector_contains_only_immutable_labels() -> None:
    chat = server("chat")

    assert names.selector(chat, Component.REPLICA) == (
        "slotkeeper.dev/server=chat,slotkeeper.dev/component=replica"
    )
    assert names.match_labels(chat, Component.BALANCER).items() <= (
        names.labels(chat, Component.BALANCER).items()
    )
