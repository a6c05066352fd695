from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from running_gateway import server_manifest
from slotkeeper.gateway.config import Selector
from slotkeeper.gateway.models import Model, by_name, is_selected, model_of
from slotkeeper.kube.cluster import UNREADABLE


def test_a_server_is_one_model() -> None:
    model = model_of(server_manifest("one", alias="org/one", generation=3))

    assert model == Model("org/one", "one", "uid-of-one", 3, 1767323045, "Ready")


def test_servers_that_are_deleted_or_unreadable_are_no_models() -> None:
    assert model_of(server_manifest("one", deletionTimestamp="2026-01-01T00:00:00Z")) is None
    assert model_of({**server_manifest("one"), UNREADABLE: "too deep"}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "uid", "model", "alias", "conditions", "type", "labels"]),
            inner,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), JSON))
def test_any_object_is_a_model_or_none(tree: dict[str, Any]) -> None:
    model = model_of(tree)

    assert model is None or (model.name and isinstance(model.message, str))
    is_selected(tree, Selector({"a": "b"}))


def test_of_one_name_the_oldest_server_counts_and_the_others_are_conflicts() -> None:
    servers = [
        server_manifest("c", alias="m", creationTimestamp="2026-01-01T00:00:00Z"),
        server_manifest("b", alias="m", creationTimestamp="2026-01-01T00:00:00Z"),
        server_manifest("a", alias="m", creationTimestamp="2026-01-02T00:00:00Z"),
        server_manifest("z"),
    ]
    models, conflicts = by_name(model for each in servers if (model := model_of(each)))

    assert {name: model.server for name, model in models.items()} == {"m": "b", "z": "z"}
    assert [(each.server, each.used) for each in conflicts] == [("c", "b"), ("a", "b")]
