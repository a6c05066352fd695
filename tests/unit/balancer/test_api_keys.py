import json
import logging
from pathlib import Path

import pytest

from balancer_harness import Balancer, balancer
from fake_llama import FakeLlama, when_told
from raw_http import RawClient, get, post
from slotkeeper.balancer.access import AccessRules
from slotkeeper.edge.api_keys import ApiKeyFolder, ApiKeys


def known(**secrets: str) -> ApiKeys:
    keys = ApiKeys(b"salt")
    keys.replace({name: secret.encode() for name, secret in secrets.items()})
    return keys


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer one",
        "authorization: bearer   one",
        "X-Api-Key: one",
        "x-api-key: one\r\nAuthorization: Basic dXNlcg==",
        "x-api-key: one\r\nAuthorization: Bearer dummy",
    ],
)
async def test_a_known_key_is_let_in_and_not_passed_on(header: str) -> None:
    async with FakeLlama() as llama, balancer(llama, keys=known(ann="one")) as made:
        response = await made.ask(post("/completion", b"{}", header))

        assert response.status == 200
        assert not {"authorization", "x-api-key"} & set(llama.calls[0].headers)
        assert made.lines()[0]["key"] == "ann"


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("X-Other: one", "an API key is needed"),
        ("Authorization: Bearer", "Authorization holds no API key"),
        ("Authorization: one", "Authorization holds no API key"),
        ("Authorization: Basic one", "Authorization holds no API key"),
        ("X-Api-Key:", "an API key is needed"),
        ("Authorization: Bearer two", "is not known"),
        ("X-Api-Key: on", "is not known"),
        ("X-Api-Key: Bearer one", "is not known"),
        ("X-Api-Key: ann", "is not known"),
    ],
)
async def test_without_a_known_key_a_request_reaches_no_replica(header: str, why: str) -> None:
    async with FakeLlama() as llama, balancer(llama, keys=known(ann="one")) as made:
        response = await made.ask(post("/completion", b"{}", header))

        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"
        error = json.loads(response.body)["error"]
        assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
        assert why in error["message"]
        assert llama.calls == []
        assert made.metric("requests_total", outcome="rejected", code="401") == 1
        (line,) = made.lines()
        assert (line["key"], line["status"], line["code"]) == (None, 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("GET", "/v1/health", 200),
        ("GET", "/models", 200),
        ("GET", "/v1/models?x=1", 200),
        ("OPTIONS", "/v1/chat/completions", 204),
        ("GET", "/slots", 401),
        ("GET", "/props", 401),
        ("POST", "/health", 401),
        ("POST", "/models/load", 401),
        ("GET", "/nothing", 401),
        ("GET", "/HEALTH", 401),
    ],
)
async def test_only_health_models_and_preflights_need_no_key(
    method: str, path: str, status: int
) -> None:
    async with FakeLlama() as llama, balancer(llama, keys=known(ann="one")) as made:
        async with await made.client() as client:
            await client.send(get(path, method=method))
            assert (await client.response(to_head=method == "HEAD")).status == status

        if status == 401:
            ours = await made.ask(get(path, "X-Api-Key: one", method=method))
            assert ours.status != 401


async def test_without_keys_everybody_is_let_in_and_llama_server_sees_what_was_sent() -> None:
    async with FakeLlama() as llama, balancer(llama) as made:
        headers = "Authorization: Bearer one", "X-Api-Key: two"
        assert (await made.ask(post("/completion", b"{}", *headers))).status == 200

        sent = llama.calls[0].headers
        assert (sent["authorization"], sent["x-api-key"]) == ("Bearer one", "two")
        assert made.lines()[0]["key"] is None


async def test_no_request_goes_on_after_its_client_has_gone() -> None:
    async with FakeLlama() as llama, balancer(llama) as made:
        await made.ask(post("/v1/chat/completions", b"{}", "X-Conversation-Id: c"))

        assert "x-conversation-id" not in llama.calls[0].headers


async def test_with_no_key_at_all_everybody_is_refused() -> None:
    async with FakeLlama() as llama, balancer(llama, keys=known()) as made:
        for header in ("X-Api-Key: one", "X-Other: x", "Authorization: Bearer "):
            assert (await made.ask(post("/completion", b"{}", header))).status == 401
        assert llama.calls == []


async def test_a_key_that_goes_cuts_no_request_in_progress(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("one")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(tmp_path, keys)
    folder.load()
    async with FakeLlama(1, when_told) as llama, balancer(llama, keys=keys) as made:
        running, waiting = [
            await made.start(post("/completion", b"{}", "X-Api-Key: one")) for _ in "12"
        ]
        (tmp_path / "ann").rename(tmp_path / "..ann")
        await folder.check()
        assert (await made.ask(post("/completion", b"{}", "X-Api-Key: one"))).status == 401

        for number, client in enumerate((running, waiting)):
            (await llama.called(number + 1))[number].go.set()
            assert (await client.response()).status == 200
        assert [line["key"] for line in made.lines()] == [None, "ann", "ann"]


async def test_keys_take_turns_however_they_are_sent() -> None:
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, keys=known(ann="one", bob="two")) as made,
    ):
        asked = [
            ("running", "X-Api-Key: one"),
            ("a1", "X-Api-Key: one"),
            ("a2", "Authorization: Bearer one"),
            ("b1", "X-Api-Key: two"),
        ]
        clients = [
            await made.start(post("/completion", name.encode(), header)) for name, header in asked
        ]
        queue = await metrics_page(made, "/debug/queue")
        assert {each["key"] for each in json.loads(queue)["byPriorityAndKey"]} == {"ann", "bob"}
        for number in range(len(asked)):
            (await llama.called(number + 1))[number].go.set()
        for client in clients:
            assert (await client.response()).status == 200

    assert [call.body for call in llama.calls] == [b"running", b"a1", b"b1", b"a2"]


async def test_a_keys_priority_has_a_bound_of_its_own() -> None:
    rules = AccessRules(1, {"chief": 5, "crawler": 0})
    keys = known(chief="1", ann="2", crawler="3")
    async with FakeLlama(1, when_told) as llama, balancer(llama, rules=rules, keys=keys) as made:
        asked = [("0", "2"), ("crawler", "3"), ("ann", "2"), ("chief", "1")]
        clients = [
            await made.start(
                post("/completion", name.encode(), f"X-Api-Key: {secret}", "X-Priority: 9")
            )
            for name, secret in asked
        ]
        waiting = json.loads(await metrics_page(made, "/debug/queue"))["next"]
        assert [(each["key"], each["priority"]) for each in waiting] == [
            *(("chief", 5), ("ann", 1)),
            ("crawler", 0),
        ]
        ignored = post("/completion", b"{}", "X-Api-Key: 3", "X-Priority: high")
        await made.start(ignored)
        refused = await made.ask(post("/completion", b"{}", "X-Api-Key: 2", "X-Priority: high"))
        assert refused.status == 400
        assert made.lines()[-1]["key"] == "ann"
        for client in clients:
            client.reset()


async def test_no_key_is_told_to_anybody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    canary, wrong = "sk-CANARY-good", "sk-CANARY-bad"
    caplog.set_level(logging.DEBUG)
    (tmp_path / "ann").write_text(canary)
    (tmp_path / "bob").write_text(canary)
    (tmp_path / "several").write_text(f"{canary}\n{wrong}")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(tmp_path, keys)
    folder.load()
    seen: list[bytes] = []
    async with (
        FakeLlama(1, when_told) as llama,
        balancer(llama, rules=AccessRules(1), keys=keys) as made,
    ):
        running, waiting = [
            await made.start(post(f"/completion?key={canary}", b"", f"X-Api-Key: {canary}"))
            for _ in "12"
        ]
        for secret in (canary, wrong):
            for header in (
                f"Authorization: Bearer {secret}",
                f"Authorization: {secret}",
                f"X-Api-Key: {secret}",
            ):
                asked = [get(path, header) for path in ("/slots", "/props", "/nothing", "/models")]
                asked.append(post("/completion", b"", header, f"X-Priority: {secret}"))
                seen += [(await made.ask(each)).raw for each in asked]
        pages = ("/debug/queue", "/metrics", "/autoscaling", "/nothing")
        seen += [await metrics_page(made, page) for page in pages]
        for number, client in enumerate((running, waiting)):
            (await llama.called(number + 1))[number].go.set()
            seen.append((await client.response()).raw)
        await made.at_rest()
        made.lines()
        seen.append(made.log.getvalue().encode())
        headers = [dict(call.headers) for call in llama.calls]

    assert all(
        part in seen[-1] for part in (b'"key": "ann"', b"invalid_priority", b"invalid_api_key")
    )
    assert "identical; using name ann" in caplog.text
    for told in (*seen, caplog.text.encode(), repr(headers).encode()):
        assert b"CANARY" not in told


async def metrics_page(made: Balancer, path: str) -> bytes:
    async with await RawClient.connect(made.metrics_port) as client:
        return (await client.ask(get(path))).body
