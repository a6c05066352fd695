"""The gateway's benchmark: all gateways get the same requests, and lead to the same balancer."""

import json
from pathlib import Path

from bench.balancer.fake_server import Fakes
from bench.balancer.jobs import Job, chat_request, job_in, job_in_body
from bench.balancer.systems import ProxySetup
from bench.gateway.systems import litellm_config, portkey_headers
from fake_llama import FakeLlama
from running_gateway import run_gateway

SETUP = ProxySetup(8000, 9000, (8001,), 4, Path("/folder"))
JOB = Job(number=3, service_us=20, tokens=2, interval_us=5, session=-1)


def test_a_chat_completion_has_its_job_in_a_header_and_in_its_body() -> None:
    head, _, content = chat_request(JOB, ["X-Other: value"], size=100).partition(b"\r\n\r\n")

    assert job_in(head.lower()) == job_in_body(content) == JOB
    # As a gateway that parses the body sends it on.
    assert job_in_body(json.dumps(json.loads(content)).encode()) == JOB
    assert b"X-Other: value" in head
    assert list(json.loads(content))[-1] == "model"


def test_the_other_gateways_forward_to_the_balancer() -> None:
    [model] = json.loads(litellm_config(SETUP))["model_list"]

    assert model["litellm_params"]["api_base"] == "http://127.0.0.1:8001/v1"
    assert "X-Portkey-Custom-Host: http://127.0.0.1:8001/v1" in portkey_headers(SETUP)


async def test_the_fake_serves_chat_completions_through_a_gateway() -> None:
    fakes = Fakes()
    [port] = await fakes.serve(1, slots=2)

    upstream = FakeLlama()
    upstream.port = port
    async with run_gateway(fake=upstream) as gateway:
        client = await gateway.connect()
        whole = await client.request(chat_request(Job()))
        streamed = await client.request(chat_request(JOB))
        without_header = chat_request(JOB).replace(b"X-Job", b"X-Old")
        by_body = await client.request(without_header)
        await gateway.wait_idle()

        assert json.loads(whole.body)["usage"]["total_tokens"] == 19
        for response in (streamed, by_body):
            assert response.body.count(b'"content":"@') == 2
            assert b"data: [DONE]" in response.body
        generated = gateway.metric("tokens_total", model="fake", key="", kind="generated")
        assert generated == 1 + 2 + 2
    await fakes.serve(0, slots=1)
