from balancer_harness import run_balancer
from fake_llama import FakeLlama
from raw_http import get, post
from slotkeeper.scheduling import QueueLimits


async def test_a_request_is_logged_as_one_line() -> None:
    async with FakeLlama(1) as llama, run_balancer(llama) as balancer:
        response = await balancer.request(post("/completion?q=secret", b"hello"))

        (line,) = balancer.access_log()
        assert line.pop("client").startswith("127.0.0.1:")
        assert (
            0
            <= line.pop("queue_seconds")
            <= line.pop("first_byte_seconds")
            <= line.pop("duration_seconds")
        )
        assert line == {
            "time": 1_700_000_000.0,
            "key": None,
            "method": "POST",
            "path": "/completion",
            "trace": None,
            "status": 200,
            "outcome": "completed",
            "code": None,
            "replica": llama.name,
            "relayed": False,
            "attempts": 1,
            "preemptible": False,
            "prefix_hit": None,
            "restored_tokens": None,
            "restore_seconds": None,
            "bypassed": 0,
            "bytes_in": 5,
            "bytes_out": len(response.body),
            "keepalives": 0,
            "prompt_tokens": None,
            "cached_tokens": None,
            "generated_tokens": None,
        }


async def test_the_line_of_an_error_response_has_its_code_and_size() -> None:
    async with run_balancer(queue_limits=QueueLimits(cold_start_timeout=0.01)) as balancer:
        response = await balancer.request(post("/completion", b"{}"))
        (line,) = balancer.access_log()

    assert (line["status"], line["code"]) == (503, "cold_start_timeout")
    assert line["bytes_out"] == len(response.body) > 0


async def test_a_long_path_is_truncated_in_the_log_and_in_the_response() -> None:
    async with run_balancer() as balancer:
        response = await balancer.request(get("/" + "a" * 8_000))
        (line,) = balancer.access_log()

    assert response.status == 404
    assert len(response.body) < 500
    assert line["path"] == "/" + "a" * 199 + "…"


async def test_a_client_cannot_inject_a_log_line() -> None:
    async with run_balancer() as balancer:
        await balancer.request(b'GET /\xe2\x80\xa8"}{\xff HTTP/1.1\r\nHost: a\r\n\r\n')

        assert len(balancer.access_log()) == 1
        assert balancer.log_stream.getvalue().isascii()
