"""The whole way of a request: gateway, balancer and llama-server, all but the last real."""

import json

from balancer_harness import run_balancer
from fake_llama import FakeLlama, stream_two_events
from raw_http import get, post
from running_gateway import ANN, BOB, run_gateway, server_manifest, status, two_keys
from wait_until import until

CHAT = "/v1/chat/completions"
KEYS = {"apiKeys": {"models": {"ann": ["one", "two"], "bob": ["two"]}}}


async def test_each_model_is_served_by_the_llama_server_behind_its_balancer() -> None:
    async with (
        FakeLlama() as one,
        FakeLlama() as two,
        run_balancer(one) as first,
        run_balancer(two) as second,
        run_gateway(KEYS, keys=two_keys(), one=first, two=second) as gateway,
    ):
        listed = await gateway.json("/v1/models", ANN)
        assert [each["id"] for each in listed["data"]] == ["one", "two"]
        for name in ("one", "two"):
            content = json.dumps({"model": name}).encode()
            assert (await gateway.request(post(CHAT, content, ANN))).status == 200
        unknown = await gateway.request(post(CHAT, b'{"model":"three"}', ANN))
        foreign = await gateway.request(post(CHAT, b'{"model":"one"}', BOB))

        assert [[json.loads(call.body)["model"] for call in each.calls] for each in (one, two)] == [
            ["one"],
            ["two"],
        ]
        for response in (unknown, foreign):
            assert (response.status, response.error_code) == (404, "model_not_found")
        assert b"one" not in foreign.body.replace(b"'one'", b"")
        # The secret stays in the gateway.
        assert b"key-of-ann" not in repr([call.headers for call in one.calls]).encode()


async def test_a_stream_for_a_model_at_zero_is_kept_alive_until_a_replica_starts() -> None:
    async with (
        FakeLlama(1, stream_two_events) as llama,
        run_balancer(heartbeat_seconds=0.02) as balancer,
        run_gateway(one=balancer) as gateway,
    ):
        gateway.set_servers(server_manifest("one", state=status("True", "ScaledToZero")))
        client = await gateway.start_request(post(CHAT, b'{"model":"one","stream":true}'))
        await client.reader.readuntil(b": queued, position 1\n\n")
        balancer.proxy.set_replicas({llama.name: True})
        await until(lambda: len(llama.calls) == 1)
        await llama.proceed(0)
        body = await client.reader.readuntil(b"0\r\n\r\n")

        assert body.index(b"data: first") < body.index(b"data: last")
        assert (await gateway.request(get("/health"))).status == 200
