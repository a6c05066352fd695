import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.api.access_rules import ALL_PATHS, AccessRules

PRIORITIES = st.integers(0, 1000)
RULES = st.builds(
    AccessRules,
    PRIORITIES,
    st.dictionaries(st.sampled_from(["alice", "batch", "-b.c_"]), PRIORITIES),
    st.just(ALL_PATHS) | st.frozensets(st.sampled_from(sorted(ALL_PATHS)), min_size=1),
    st.sampled_from(["", "chat-keys", "other-keys"]),
)


@given(RULES)
def test_an_annotation_is_parsed_back(rules: AccessRules) -> None:
    assert AccessRules.from_annotation(rules.to_annotation()) == rules


@given(RULES, RULES)
def test_restricted_rules_allow_nothing_that_either_forbids(
    own: AccessRules, other: AccessRules
) -> None:
    both = own.restricted_by(other)

    assert both.allowed_paths == own.allowed_paths & other.allowed_paths
    for name in (None, "alice", "batch", "-b.c_", "unnamed"):
        limits = own.max_priority_of(name), other.max_priority_of(name)
        assert both.max_priority_of(name) == min(limits)
    assert both.api_keys_secret == own.api_keys_secret


@given(RULES)
def test_the_same_rules_change_nothing(rules: AccessRules) -> None:
    both = rules.restricted_by(rules)

    assert both == rules
    assert not rules.requires_other_keys_than(rules)


@pytest.mark.parametrize(
    ("required", "own", "others"),
    [
        ("", "", False),
        ("", "keys", False),
        ("keys", "keys", False),
        ("keys", "", True),
        ("new", "keys", True),
    ],
)
def test_keys_of_another_secret_cannot_be_verified(required: str, own: str, others: bool) -> None:
    rules = AccessRules(api_keys_secret=required)

    assert rules.requires_other_keys_than(AccessRules(api_keys_secret=own)) is others


@pytest.mark.parametrize(
    "change",
    [
        {"maxPriority": -1},
        {"maxPriority": 1001},
        {"maxPriority": 1.0},
        {"maxPriority": True},
        {"maxPriority": None},
        {"maxPriorities": []},
        {"maxPriorities": {"alice": "9"}},
        {"allowedPaths": 7},
    ],
)
def test_malformed_rules_are_rejected(change: dict[str, object]) -> None:
    tree = json.loads(AccessRules().to_annotation()) | change

    with pytest.raises(ValueError, match=r"."):
        AccessRules.from_annotation(json.dumps(tree))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[" * 100_000, " " * 2**18 + "{}"])
def test_what_is_no_object_or_too_large_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        AccessRules.from_annotation(text)
