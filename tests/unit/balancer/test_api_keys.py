import json
import logging
from pathlib import Path

import pytest

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import get, post
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.edge.api_keys import ApiKeyFolder, ApiKeys
from slotkeeper.scheduling import RunningLimits


def api_keys(**secrets: str) -> ApiKeys:
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
async def test_a_valid_key_is_accepted_and_not_sent_to_the_replica(header: str) -> None:
    async with FakeLlama() as llama, run_balancer(llama, keys=api_keys(ann="one")) as balancer:
        response = await balancer.request(post("/completion", b"{}", header))

        assert response.status == 200
        assert not {"authorization", "x-api-key"} & set(llama.calls[0].headers)
        assert balancer.access_log()[0]["key"] == "ann"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("X-Other: one", "API key required"),
        ("Authorization: Bearer", "no API key in Authorization"),
        ("Authorization: one", "no API key in Authorization"),
        ("Authorization: Basic one", "no API key in Authorization"),
        ("X-Api-Key:", "API key required"),
        ("Authorization: Bearer two", "invalid API key"),
        ("X-Api-Key: on", "invalid API key"),
        ("X-Api-Key: Bearer one", "invalid API key"),
        ("X-Api-Key: ann", "invalid API key"),
    ],
)
async def test_a_request_without_a_valid_key_reaches_no_replica(header: str, message: str) -> None:
    async with FakeLlama() as llama, run_balancer(llama, keys=api_keys(ann="one")) as balancer:
        response = await balancer.request(post("/completion", b"{}", header))

        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"
        error = json.loads(response.body)["error"]
        assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
        assert message in error["message"]
        assert llama.calls == []
        assert balancer.metric("requests_total", outcome="rejected", code="401") == 1
        (line,) = balancer.access_log()
        assert (line["key"], line["status"], line["code"]) == (None, 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("GET", "/v1/health", 200),
        ("GET", "/models", 200),
        ("GET", "/v1/models?x=1", 200),
        ("GET", "/v1/models/tiny", 200),
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
    async with FakeLlama() as llama, run_balancer(llama, keys=api_keys(ann="one")) as balancer:
        async with await balancer.connect() as client:
            await client.send(get(path, method=method))
            assert (await client.response(to_head=method == "HEAD")).status == status

        if status == 401:
            authorized = await balancer.request(get(path, "X-Api-Key: one", method=method))
            assert authorized.status != 401


async def test_without_keys_every_request_is_accepted_and_its_headers_reach_llama_server() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        headers = "Authorization: Bearer one", "X-Api-Key: two"
        assert (await balancer.request(post("/completion", b"{}", *headers))).status == 200

        sent = llama.calls[0].headers
        assert (sent["authorization"], sent["x-api-key"]) == ("Bearer one", "two")
        assert balancer.access_log()[0]["key"] is None


async def test_a_conversation_id_does_not_reach_llama_server() -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        await balancer.request(post("/v1/chat/completions", b"{}", "X-Conversation-Id: c"))

        assert "x-conversation-id" not in llama.calls[0].headers


async def test_with_an_empty_key_folder_every_request_is_rejected() -> None:
    async with FakeLlama() as llama, run_balancer(llama, keys=api_keys()) as balancer:
        for header in ("X-Api-Key: one", "X-Other: x", "Authorization: Bearer "):
            assert (await balancer.request(post("/completion", b"{}", header))).status == 401
        assert llama.calls == []


async def test_a_removed_key_aborts_no_request_in_progress(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("one")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(tmp_path, keys)
    folder.load()
    async with FakeLlama(1, stream_two_events) as llama, run_balancer(llama, keys=keys) as balancer:
        running, queued = [
            await balancer.start_request(post("/completion", b"{}", "X-Api-Key: one")) for _ in "12"
        ]
        (tmp_path / "ann").rename(tmp_path / "..ann")
        await folder.check()
        assert (await balancer.request(post("/completion", b"{}", "X-Api-Key: one"))).status == 401

        for number, client in enumerate((running, queued)):
            await llama.proceed(number)
            assert (await client.response()).status == 200
        assert [line["key"] for line in balancer.access_log()] == [None, "ann", "ann"]


async def test_keys_take_turns_in_whichever_header_they_are_sent() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, keys=api_keys(ann="one", bob="two")) as balancer,
    ):
        requests = [
            ("running", "X-Api-Key: one"),
            ("a1", "X-Api-Key: one"),
            ("a2", "Authorization: Bearer one"),
            ("b1", "X-Api-Key: two"),
        ]
        clients = [
            await balancer.start_request(post("/completion", name.encode(), header))
            for name, header in requests
        ]
        page = await balancer.admin_json("/debug/queue")
        assert {each["key"] for each in page["byPriorityAndKey"]} == {"ann", "bob"}
        for number in range(len(requests)):
            await llama.proceed(number)
        for client in clients:
            assert (await client.response()).status == 200

    assert [call.body for call in llama.calls] == [b"running", b"a1", b"b1", b"a2"]


async def test_a_key_has_its_own_maximum_priority() -> None:
    rules = AccessRules(1, {"chief": 5, "crawler": 0})
    keys = api_keys(chief="1", ann="2", crawler="3")
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, rules=rules, keys=keys) as balancer,
    ):
        requests = [("0", "2"), ("crawler", "3"), ("ann", "2"), ("chief", "1")]
        clients = [
            await balancer.start_request(
                post("/completion", name.encode(), f"X-Api-Key: {secret}", "X-Priority: 9")
            )
            for name, secret in requests
        ]
        queued = (await balancer.admin_json("/debug/queue"))["next"]
        assert [(each["key"], each["priority"]) for each in queued] == [
            *(("chief", 5), ("ann", 1)),
            ("crawler", 0),
        ]
        ignored = post("/completion", b"{}", "X-Api-Key: 3", "X-Priority: high")
        await balancer.start_request(ignored)
        rejected = await balancer.request(
            post("/completion", b"{}", "X-Api-Key: 2", "X-Priority: high")
        )
        assert rejected.status == 400
        assert balancer.access_log()[-1]["key"] == "ann"
        for client in clients:
            client.reset()


async def test_no_key_appears_in_responses_logs_or_upstream_headers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    canary, wrong = "sk-CANARY-good", "sk-CANARY-bad"
    caplog.set_level(logging.DEBUG)
    (tmp_path / "ann").write_text(canary)
    (tmp_path / "bob").write_text(canary)
    (tmp_path / "several").write_text(f"{canary}\n{wrong}")
    keys = ApiKeys(b"salt")
    folder = ApiKeyFolder(tmp_path, keys)
    folder.load()
    sent: list[bytes] = []
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama, rules=AccessRules(1), keys=keys) as balancer,
    ):
        running, queued = [
            await balancer.start_request(
                post(f"/completion?key={canary}", b"", f"X-Api-Key: {canary}")
            )
            for _ in "12"
        ]
        for secret in (canary, wrong):
            for header in (
                f"Authorization: Bearer {secret}",
                f"Authorization: {secret}",
                f"X-Api-Key: {secret}",
            ):
                requests = [
                    get(path, header) for path in ("/slots", "/props", "/nothing", "/models")
                ]
                requests.append(post("/completion", b"", header, f"X-Priority: {secret}"))
                sent += [(await balancer.request(each)).raw for each in requests]
        pages = ("/debug/queue", "/metrics", "/autoscaling", "/nothing")
        sent += [(await balancer.admin_request(page)).raw for page in pages]
        for number, client in enumerate((running, queued)):
            await llama.proceed(number)
            sent.append((await client.response()).raw)
        await balancer.wait_idle()
        balancer.access_log()
        sent.append(balancer.log_stream.getvalue().encode())
        headers = [dict(call.headers) for call in llama.calls]

    assert all(
        part in sent[-1] for part in (b'"key": "ann"', b"invalid_priority", b"invalid_api_key")
    )
    assert "identical; using name ann" in caplog.text
    for text in (*sent, caplog.text.encode(), repr(headers).encode()):
        assert b"CANARY" not in text


async def test_a_key_at_its_limit_delays_no_other_key() -> None:
    limits = RunningLimits(2)
    async with (
        FakeLlama(4, stream_two_events) as llama,
        run_balancer(llama, keys=api_keys(ann="one", ben="two"), running_limits=limits) as balancer,
    ):
        for _ in range(5):
            await balancer.start_request(post("/completion", b"{}", "X-Api-Key: one"))
        assert len(await llama.wait_calls(2)) == 2
        assert balancer.metric("held_requests") == 3
        other = await balancer.start_request(post("/completion", b"{}", "X-Api-Key: two"))
        await llama.proceed(2)
        assert (await other.response()).status == 200

        page = await balancer.admin_json("/debug/queue")
        assert (page["queued"], page["held"]) == (3, 3)
        assert [each["held"] for each in page["next"]] == [True] * 3
        report = await balancer.admin_json("/autoscaling")
        # More replicas would not help.
        assert (report["queued"], report["demand"], report["oldestQueuedSeconds"]) == (0, 2, 0)
        await llama.proceed(0)
        await llama.wait_calls(4)
