from typing import Any

import pytest

from llamagateways import gateway
from llamaservers import raw_server
from slotkeeper.api.gateway_status import MAX_MESSAGE
from slotkeeper.kube.cluster import UNREADABLE
from slotkeeper.reconcile.gateways.models import ServedModel, models_of, served_model


def model(
    name: str = "chat",
    *,
    status: Any = None,
    created: str = "2026-11-01T12:00:00Z",
    labels: Any = None,
    **spec: Any,
) -> ServedModel:
    raw = raw_server(name, **spec)
    raw["metadata"] |= {"namespace": "default", "creationTimestamp": created, "labels": labels}
    found = served_model({**raw, "status": status})
    assert found
    return found


def external(name: str, *models: str) -> dict[str, Any]:
    return {
        "name": name,
        "url": "https://up.example/v1",
        "models": [{"name": each} for each in models],
    }


def route(name: str, *models: str) -> dict[str, Any]:
    return {"name": name, "targets": [{"model": each, "weight": 1} for each in models]}


def test_the_name_is_the_alias_or_else_the_server_s() -> None:
    assert model("chat").name == "chat"
    assert model("chat", model={"alias": "org/qwen:7b"}).name == "org/qwen:7b"
    # Stored under an older schema.
    assert model("chat", model={"alias": 7}).name == "chat"


def test_a_server_that_is_being_deleted_has_no_model() -> None:
    raw = raw_server()
    raw["metadata"] |= {"namespace": "default", "deletionTimestamp": "2026-11-01T12:00:00Z"}

    assert served_model(raw) is None


def test_an_unreadable_server_s_model_has_failed() -> None:
    raw = {**raw_server(), UNREADABLE: "it has 9 bytes"}
    raw["metadata"]["namespace"] = "default"
    del raw["spec"]

    found = served_model(raw)

    assert found
    assert (found.name, found.state) == ("chat", "Failed")
    assert found.message == "the resource cannot be read: it has 9 bytes"


def test_the_state_is_that_of_the_server() -> None:
    assert (model().state, model(suspend=True).state) == ("Waking", "Failed")


def test_a_long_message_is_cut() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "Starting", "message": "a" * 9999}

    assert len(model(status={"conditions": [ready]}).message) == MAX_MESSAGE


def test_the_selector_chooses_by_label() -> None:
    servers = [model("a", labels={"team": "x"}), model("b", labels={"team": "y"}), model("c")]

    found = models_of(gateway(serverSelector={"matchLabels": {"team": "x"}}), servers)

    assert [each.name for each in found.served] == ["a"]


def test_of_two_servers_with_one_model_name_the_older_is_used() -> None:
    older = model("b", model={"alias": "qwen"}, created="2026-11-01T12:00:00Z")
    newer = model("a", model={"alias": "qwen"}, created="2026-11-01T12:00:01Z")

    found = models_of(gateway(), [newer, older])

    assert [each.server.name for each in found.served] == ["b"]
    [problem] = found.problems
    assert problem.reason == "DuplicateModel"
    assert problem.message == (
        "LlamaServers b and a have the model name qwen; the older one, b, is used: set another "
        "model.alias"
    )


def test_of_two_servers_of_the_same_second_the_first_by_name_is_used() -> None:
    servers = [model(name, model={"alias": "qwen"}) for name in ("b", "a")]

    found = models_of(gateway(), servers)

    assert [each.server.name for each in found.served] == ["a"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"aliases": {"gpt": "gone"}}, "alias gpt refers to gone, which no selected LlamaServer"),
        ({"defaultModel": "gone"}, "defaultModel gone is neither an alias nor a route"),
        ({"defaultModel": "gpt", "aliases": {"gpt": "chat"}}, None),
        ({"defaultModel": "chat"}, None),
        ({"defaultModel": "gpt", "externalBackends": [external("up", "gpt")]}, None),
        ({"defaultModel": "all", "routes": [route("all", "chat")]}, None),
        ({"aliases": {"best": "all"}, "routes": [route("all", "chat")]}, None),
        ({"routes": [route("all", "gone")]}, "route all refers to gone, which no selected"),
        ({"fallbacks": [{"model": "chat", "to": ["gone"]}]}, "fallback for chat refers to gone"),
        (
            {
                "shadow": [{"model": "chat", "to": "gpt", "percent": 1}],
                "externalBackends": [external("up", "gpt")],
            },
            "shadow of chat is for gpt, which no selected LlamaServer serves",
        ),
        (
            {
                "shadow": [{"model": "gpt", "to": "best", "percent": 1}],
                "aliases": {"best": "chat"},
                "externalBackends": [external("up", "gpt")],
            },
            None,
        ),
        ({"fallbacks": [{"model": "all", "to": ["chat"]}]}, "fallback for all, which is neither"),
        (
            {
                "routes": [route("all", "chat", "best")],
                "aliases": {"best": "chat"},
                "fallbacks": [{"model": "all", "to": ["best"]}],
            },
            None,
        ),
        ({"aliases": {"best": "gpt"}, "externalBackends": [external("up", "gpt")]}, None),
        (
            {"apiKeys": {"secretRef": {"name": "keys"}, "models": {"bob": ["gone", "chat"]}}},
            "API key bob refers to gone, which no selected LlamaServer",
        ),
    ],
)
def test_a_name_that_refers_to_no_model_is_a_problem(
    spec: dict[str, Any], message: str | None
) -> None:
    problems = models_of(gateway(**spec), [model("chat")]).problems

    assert [problem.reason for problem in problems] == (["UnknownModel"] if message else [])
    assert all(problem.message.startswith(message or "") for problem in problems)


def test_a_model_of_a_backend_that_another_one_has_is_a_problem() -> None:
    backends = [external("one", "chat", "gpt"), external("two", "gpt")]

    found = models_of(gateway(externalBackends=backends), [model("chat")])

    assert [each.name for each in found.served] == ["chat"]
    [problem] = found.problems
    assert problem.reason == "DuplicateModel"
    assert problem.message == (
        "external backend one has the model name chat of LlamaServer chat, which is used: set "
        "another name; external backends one and two have the model name gpt; the first one, one, "
        "is used: set another name"
    )


def test_many_problems_of_one_kind_are_one_message() -> None:
    aliases = {f"alias-{number}": "gone" for number in range(9)}

    [problem] = models_of(gateway(aliases=aliases), []).problems

    assert problem.message.count("refers to gone") == 5
    assert problem.message.endswith("; and 4 more")
