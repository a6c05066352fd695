"""Which targets a request is sent to, in which order."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.gateway.catalog import Catalog
from slotkeeper.gateway.config import GatewayConfig, parse_config
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.planning import conversation_point, make_plan, waking
from slotkeeper.gateway.target_config import Trigger
from slotkeeper.gateway.targets import Plan, Weighted, served_header
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Headers, Request

ALL: list[Trigger] = list(get_args(Trigger))
BACKEND = {"name": "up", "url": "https://up.example/v1", "models": [{"name": "gpt"}]}


def model(name: str, state: Any = "Ready") -> Model:
    return Model(name, name, f"uid-{name}", 1, 0, state)


def config(**spec: Any) -> GatewayConfig:
    return parse_config({"externalBackends": [BACKEND], **spec})


def plan(name: str, *models: Model, paused: bool = False, point: float = 0.0, **spec: Any) -> Plan:
    catalog = Catalog({each.name: each for each in models}, config(**spec))
    named = catalog.find(name, None)
    return make_plan(named, catalog.fallbacks, lambda: point, lambda _: float(paused))


def names(found: Plan) -> list[str]:
    return [target.name for target in found.targets]


def fallback(*to: str, on: list[Trigger] = ALL, of: str = "a") -> dict[str, Any]:
    return {"fallbacks": [{"model": of, "to": list(to), "when": list(on)}]}


def test_without_a_fallback_there_is_one_target() -> None:
    found = plan("a", model("a"), model("b"), **fallback("a", of="b"))

    assert (names(found), found.reports_model) == (["a"], False)


@pytest.mark.parametrize(
    ("state", "on", "expected", "wakes"),
    [
        ("Ready", ALL, ["a", "gpt"], False),
        ("AtZero", ALL, ["gpt"], True),
        ("Waking", ["Waking"], ["gpt"], True),
        ("Waking", ["Full", "Failed", "Timeout"], ["a", "gpt"], False),
        ("Failed", ["Failed"], ["gpt"], False),
        ("Failed", ["Waking", "Full"], ["a", "gpt"], False),
    ],
)
def test_the_state_of_a_model_decides_whether_it_is_tried(
    state: str, on: list[Trigger], expected: list[str], wakes: bool
) -> None:
    found = plan("a", model("a", state), **fallback("gpt", on=on))

    assert names(found) == expected
    assert found.first.name == "a"
    assert (waking(found) is not None) == wakes
    assert found.reports_model


def test_the_first_target_is_tried_if_no_other_is_better() -> None:
    found = plan("a", model("a", "AtZero"), paused=True, **fallback("gpt"))

    assert (names(found), found.skipped, waking(found)) == (["a", "gpt"], (), None)


def test_a_paused_backend_is_skipped() -> None:
    found = plan("gpt", model("a"), paused=True, **fallback("a", of="gpt"))

    assert names(found) == ["a"]
    assert [(target.name, trigger) for target, trigger in found.skipped] == [("gpt", "Failed")]


def test_fallbacks_that_refer_to_each_other_end() -> None:
    rules = [
        {"model": "a", "to": ["b", "best", "b", "missing"]},
        {"model": "b", "to": ["a", "gpt"]},
        {"model": "gpt", "to": ["a"]},
    ]
    found = plan("a", model("a"), model("b"), fallbacks=rules, aliases={"best": "a"})

    assert names(found) == ["a", "b"]


ROUTE: dict[str, Any] = {
    "routes": [
        {
            "name": "chat",
            "targets": [{"model": "a", "weight": 90}, {"model": "b", "weight": 10}],
        }
    ]
}


def test_a_route_selects_one_target_for_a_conversation() -> None:
    def at(point: float) -> list[str]:
        return names(plan("chat", model("a"), model("b"), point=point, **ROUTE))

    assert (at(0), at(0.899), at(0.9), at(0.999)) == (["a"], ["a"], ["b"], ["b"])


def test_a_route_may_have_the_name_of_its_own_model_and_fallbacks() -> None:
    targets = [
        {"model": "a", "weight": 1},
        {"model": "gpt", "weight": 1},
        {"model": "c", "weight": 0},
    ]
    spec = {"routes": [{"name": "a", "targets": targets}], **fallback("b")}

    assert names(plan("a", model("a"), model("b"), point=0.1, **spec)) == ["a", "b"]
    assert names(plan("a", model("a"), model("b"), point=0.9, **spec)) == ["gpt", "b"]


def test_missing_models_of_a_route_get_no_requests() -> None:
    assert names(plan("chat", model("b"), **ROUTE)) == ["b"]
    with pytest.raises(HttpError, match="does not exist"):
        plan("chat", model("c"), **ROUTE)


def test_an_alias_may_refer_to_a_route() -> None:
    assert names(plan("best", model("a"), aliases={"best": "chat"}, **ROUTE)) == ["a"]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_conversations_stay_when_the_weight_of_the_last_target_grows(
    weights: list[int], point: float
) -> None:
    choices = tuple((model(str(number)), weight) for number, weight in enumerate(weights))
    before = Weighted("chat", choices).choose(point)
    last, weight = choices[-1]
    after = Weighted("chat", (*choices[:-1], (last, weight + 100))).choose(point)

    assert after == last or int(after.name) >= int(before.name)
    if before == last:
        assert after == last


def request(body: Any, headers: Headers | None = None) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(b"POST", b"/v1/chat/completions", headers or [], True, True, [data], len(data))


def chat(*messages: tuple[str, str], **fields: Any) -> dict[str, Any]:
    listed = [{"content": content, "role": role} for role, content in messages]
    return {"model": "chat", "messages": listed, **fields}


def test_all_requests_of_a_conversation_have_the_same_point() -> None:
    beginning = (("system", "be brief"), ("user", "hello"))
    first = conversation_point(request(chat(*beginning)))

    turns = [*beginning, ("assistant", "hi"), ("user", "why?")]
    assert conversation_point(request(chat(*turns, temperature=1))) == first
    assert conversation_point(request(chat(("system", "be brief"), ("user", "hallo")))) != first
    long = [*turns, ("assistant", "x" * 100_000)]
    assert conversation_point(request(chat(*long))) == first


def test_a_session_is_more_specific_than_its_messages() -> None:
    one = [(b"X-Session-Id", b"1")]

    assert conversation_point(request({}, one)) == conversation_point(request(b"x", one))
    assert conversation_point(request({}, one)) != conversation_point(request({}))


def test_conversations_are_spread_by_the_weights() -> None:
    choices = ((model("a"), 9), (model("b"), 1))
    points = [conversation_point(request(chat(("user", str(number))))) for number in range(2000)]
    counts = Counter(Weighted("chat", choices).choose(point).name for point in points)

    assert 150 < counts["b"] < 250


@given(st.binary(max_size=80))
def test_any_body_has_a_point(body: bytes) -> None:
    for data in (body, b'{"messages":[' + body, b'{"input" : [{"role":"user"' + body):
        assert 0 <= conversation_point(request(data)) < 1


def test_the_name_of_the_model_is_valid_in_a_header() -> None:
    odd = replace(model("a"), name="a\r\nSet-Cookie: é")

    assert served_header(odd) == (b"X-Model-Served", b"a??Set-Cookie:??")
