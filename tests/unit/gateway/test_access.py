"""API keys: what each may use, and how much of it."""

import json

import pytest

from balancer_harness import run_balancer
from fake_llama import Call, FakeLlama, stream_two_events
from raw_http import RawClient, Response, get, post
from running_gateway import ANN, BOB, run_gateway, server_manifest, two_keys
from slotkeeper.wire.limits import Limits
from stepped_loop import SteppedLoop
from wait_until import until

CHAT = "/v1/chat/completions"
ONE = b'{"model":"one"}'
TWO = b'{"model":"two"}'
SPEC = {"apiKeys": {"models": {"ann": ["one", "fast"], "bob": []}}, "aliases": {"fast": "two"}}


@pytest.mark.parametrize(
    "header", ["X-Other: 1", "Authorization: Bearer wrong", "X-Api-Key: wrong", "Authorization: x"]
)
async def test_without_a_valid_key_nothing_but_the_health_is_served(header: str) -> None:
    async with FakeLlama() as llama, run_gateway(keys=two_keys(), one=llama) as gateway:
        for request in (
            post(CHAT, ONE, header),
            post(f"/models/one{CHAT}", ONE, header),
            get("/v1/models", header),
            get("/v1/models/one", header),
            get("/models/one/health", header),
        ):
            response = await gateway.request(request)
            assert (response.status, response.error_code) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        assert (await gateway.request(get("/health", header))).status == 200
        assert (llama.calls, llama.health_polls) == ([], 0)


async def test_a_large_body_without_a_valid_key_is_rejected_before_it_is_sent() -> None:
    async with FakeLlama() as llama, run_gateway(keys=two_keys(), one=llama) as gateway:
        async with await gateway.connect() as client:
            await client.send(
                f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n".encode()
            )
            assert (await client.response()).status == 401
        assert gateway.access_log()[0]["code"] == "invalid_api_key"
        assert gateway.metric("rejected_requests_total", reason="invalid_api_key") == 1


async def test_a_model_of_others_does_not_exist_for_a_key() -> None:
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(SPEC, keys=two_keys(), one=one, two=two) as gateway,
    ):

        async def ask(model: str, key: str) -> Response:
            return await gateway.request(post(CHAT, json.dumps({"model": model}).encode(), key))

        assert (await ask("one", ANN)).status == 200
        assert (await ask("fast", ANN)).status == 200
        hidden, missing = await ask("two", ANN), await ask("xyz", ANN)
        assert (hidden.status, hidden.error_code) == (404, "model_not_found")
        assert hidden.body.replace(b"two", b"xyz") == missing.body
        assert "models: fast, one" in json.loads(hidden.body)["error"]["message"]

        response = await ask("one", BOB)
        assert b"'one' does not exist; there is no model" in response.body
        for path in ("/v1/models/two", "/models/two/health", "/models/two/slots"):
            assert (await gateway.request(get(path, ANN))).error_code == "model_not_found"
        listed = await gateway.json("/v1/models", ANN)
        assert [each["id"] for each in listed["data"]] == ["fast", "one"]
        assert (await gateway.json("/v1/models", BOB))["data"] == []


async def test_the_default_model_is_none_for_a_key_that_may_not_use_it() -> None:
    spec = {**SPEC, "defaultModel": "one"}
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_gateway(spec, keys=two_keys(), one=one, two=two) as gateway,
    ):
        assert (await gateway.request(post(CHAT, b"{}", ANN))).status == 200
        response = await gateway.request(post(CHAT, b"{}", BOB))
        assert (response.status, response.error_code) == (400, "model_required")
        assert "one" not in json.loads(response.body)["error"]["message"].split("; ")[1]

        gateway.configure({})
        assert (await gateway.request(post(CHAT, ONE, BOB))).status == 200


async def test_servers_see_neither_the_key_nor_an_unpermitted_priority() -> None:
    spec = {"apiKeys": {"maxPriorities": {"ann": 5}}}
    async with FakeLlama() as llama, run_gateway(spec, keys=two_keys(), one=llama) as gateway:
        for key, priority in ((ANN, "9"), (ANN, "-9"), (BOB, "9"), (ANN, "0"), (BOB, "high")):
            request = post(CHAT, b"{}", key, f"X-Priority: {priority}")
            assert (await gateway.request(request)).status == 200
        response = await gateway.request(post(CHAT, b"{}", ANN, "X-Priority: high"))
        assert (response.status, response.error_code) == (400, "invalid_priority")

        headers = [call.headers for call in llama.calls]
        assert [each.get("x-priority") for each in headers] == ["5", "-5", None, None, None]
        # One value for each key, so that balancers let keys take turns.
        ann, _, bob, *_ = [each["authorization"] for each in headers]
        assert ann.startswith("Bearer gateway-")
        assert headers[1]["authorization"] == headers[3]["authorization"] == ann != bob
        assert not any("key-of" in value for each in headers for value in each.values())
        assert "x-api-key" not in headers[2]


async def test_balancers_let_the_keys_of_a_gateway_take_turns() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(llama) as balancer,
        run_gateway(keys=two_keys(), one=balancer) as gateway,
    ):
        contents = [(b'{"n":"a%d"}' % number, ANN) for number in range(3)]
        clients = [
            await gateway.start_request(post(CHAT, content, key))
            for content, key in [*contents, (b'{"n":"b"}', BOB)]
        ]
        await until(lambda: balancer.proxy.dispatcher.queued == 3)
        for number in range(4):
            await llama.proceed(number)
        for client in clients:
            assert (await client.response()).status == 200

        order = [json.loads(call.body)["n"] for call in llama.calls]
        assert order.index("b") < order.index("a2")


async def test_requests_per_minute_are_limited_by_key(clock: SteppedLoop) -> None:
    spec = {
        "apiKeys": {
            "limits": {"requestsPerMinute": 2},
            "limitsByKey": {"bob": {"requestsPerMinute": 3}},
        }
    }
    async with (
        FakeLlama() as llama,
        run_gateway(spec, keys=two_keys(), test_seconds=200, one=llama) as gateway,
    ):
        statuses = [(await gateway.request(post(CHAT, b"{}", ANN))).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        response = await gateway.request(post(CHAT, b"{}", ANN))
        assert response.error_code == "rate_limit_exceeded"
        assert "API key ann: more than 2 requests in a minute" in response.body.decode()
        wait = int(response.headers["retry-after"])
        assert 55 <= wait <= 65
        statuses = [(await gateway.request(post(CHAT, b"{}", BOB))).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert gateway.metric("rejected_requests_total", reason="requests_per_minute") == 3

        await clock.advance(wait + 0.1, step=1)
        assert (await gateway.request(post(CHAT, b"{}", ANN))).status == 200
        assert len(llama.calls) == 6


async def test_the_events_of_a_stream_that_its_client_ends_count_as_tokens() -> None:
    async def stream(call: Call) -> None:
        await call.send_head()
        for _ in range(10):
            await call.send_event('{"choices":[]}')
        await call.disconnected.wait()

    spec = {"apiKeys": {"limits": {"tokensPerMinute": 10}}}
    async with (
        FakeLlama(script=stream) as llama,
        run_gateway(spec, keys=two_keys(), one=llama) as gateway,
    ):
        async with await gateway.start_request(post(CHAT, ONE, ANN)) as client:
            for _ in range(10):
                await client.reader.readuntil(b"\n\n")
        await gateway.wait_idle()

        assert (await gateway.request(post(CHAT, ONE, ANN))).error_code == "rate_limit_exceeded"


async def test_the_bytes_of_a_response_without_a_report_count_as_tokens() -> None:
    async def respond(call: Call) -> None:
        await call.send_json({"content": "x" * 400})

    spec = {"apiKeys": {"limits": {"tokensPerMinute": 100}}}
    body = b'{"model":"one","response_fields":["content"]}'
    async with (
        FakeLlama(script=respond) as llama,
        run_gateway(spec, keys=two_keys(), one=llama) as gateway,
    ):
        assert (await gateway.request(post("/completion", body, ANN))).status == 200
        await gateway.wait_idle()

        assert (await gateway.request(post("/completion", body, ANN))).status == 429


async def test_tokens_per_minute_are_limited_when_they_are_known(clock: SteppedLoop) -> None:
    async def with_usage(call: Call) -> None:
        await call.send_json({"usage": {"prompt_tokens": 60, "completion_tokens": 40}})

    spec = {"apiKeys": {"limits": {"tokensPerMinute": 150}}}
    async with (
        FakeLlama(1, with_usage) as llama,
        run_gateway(spec, keys=two_keys(), test_seconds=200, one=llama) as gateway,
    ):
        statuses = [(await gateway.request(post(CHAT, b"{}", ANN))).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        response = await gateway.request(post(CHAT, b"{}", ANN))
        assert "200 tokens in the last minute" in response.body.decode()
        assert (await gateway.request(post(CHAT, b"{}", BOB))).status == 200

        await clock.advance(int(response.headers["retry-after"]) + 0.1, step=1)
        assert (await gateway.request(post(CHAT, b"{}", ANN))).status == 200


async def test_running_requests_are_limited_until_one_ends_or_disconnects() -> None:
    spec = {"apiKeys": {"limits": {"maxRunningRequests": 1}}}
    async with (
        FakeLlama(4, stream_two_events) as llama,
        run_gateway(spec, keys=two_keys(), one=llama) as gateway,
    ):

        async def start(key: str) -> RawClient:
            return await gateway.start_request(post(CHAT, b"{}", key))

        client = await start(ANN)
        response = await gateway.request(post(CHAT, b"{}", ANN))
        assert (response.status, response.error_code) == (429, "too_many_running_requests")
        assert response.headers["retry-after"] == "1"
        other = await start(BOB)

        await llama.proceed(0)
        assert (await client.response()).status == 200
        again = await start(ANN)
        await again.close()
        await llama.proceed(1)
        assert (await other.response()).status == 200
        await gateway.wait_idle()
        await start(ANN)


async def test_pipelined_requests_run_one_after_the_other() -> None:
    spec = {"apiKeys": {"limits": {"maxRunningRequests": 1}}}
    async with FakeLlama() as llama, run_gateway(spec, keys=two_keys(), one=llama) as gateway:
        await llama.stop()
        for start in (llama.start, None):
            async with await gateway.connect() as client:
                await client.send(post(CHAT, b"{}", ANN) * 3)
                if start:
                    await start()
                assert [(await client.response()).status for _ in range(3)] == [200] * 3


async def test_pods_share_the_limits() -> None:
    spec = {"replicas": 2, "apiKeys": {"limits": {"requestsPerMinute": 5}}}
    async with FakeLlama() as llama, run_gateway(spec, keys=two_keys(), one=llama) as gateway:
        statuses = [(await gateway.request(post(CHAT, b"{}", ANN))).status for _ in range(3)]
        assert statuses == [200, 200, 429]


async def test_unread_bodies_and_heads_are_bounded() -> None:
    limits = Limits(max_body=100_000, max_buffered=300_000)
    async with FakeLlama() as llama, run_gateway(limits=limits, one=llama) as gateway:
        response = await gateway.request(post(CHAT, b"x" * 100_001))
        assert (response.status, response.error_code) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("allowed", "origin", "readable"),
    [
        (None, "https://a.example", True),
        (["*"], "https://a.example", True),
        (["https://a.example"], "https://a.example", True),
        (["https://a.example"], "https://b.example", False),
        ([], "https://a.example", False),
    ],
)
async def test_pages_of_allowed_origins_may_read_responses(
    allowed: list[str] | None, origin: str, readable: bool
) -> None:
    async def as_llama_server(call: Call) -> None:
        origin = call.headers.get("origin", "")
        await call.send_head(extra=f"Access-Control-Allow-Origin: {origin}\r\n")
        await call.end()

    spec = {} if allowed is None else {"cors": {"allowedOrigins": allowed}}
    header = f"Origin: {origin}"
    async with FakeLlama(1, as_llama_server) as llama, run_gateway(spec, one=llama) as gateway:
        for request in (
            post(CHAT, b"{}", header),
            post(CHAT, TWO, header),
            get("/v1/models", header),
            get(CHAT, header, method="OPTIONS"),
            get(f"/models/one{CHAT}", header, method="OPTIONS"),
        ):
            response = await gateway.request(request)
            found = response.headers.get("access-control-allow-origin")
            assert found == origin if readable else not found
            assert response.headers["vary"] == "Origin"


async def test_keys_of_other_tenants_are_in_no_error() -> None:
    async with FakeLlama() as one, run_gateway(SPEC, keys=two_keys(), one=one, two=one) as gateway:
        gateway.set_servers(server_manifest("two", alias="secret-project"))
        response = await gateway.request(post(CHAT, ONE, ANN))

        assert b"secret-project" not in response.body
