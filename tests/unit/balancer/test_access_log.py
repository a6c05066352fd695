from balancer_harness import balancer
from fake_llama import FakeLlama
from raw_http import get, post


async def test_a_request_leaves_one_line_that_says_how_it_went() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion?q=secret", b"hello"))

        (line,) = made.lines()
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
            "replica": llama.name,
            "relayed": False,
            "attempts": 1,
            "prefix_hit": None,
            "bypassed": 0,
            "bytes_in": 5,
            "bytes_out": len(response.body),
            "keepalives": 0,
            "prompt_tokens": None,
            "cached_tokens": None,
            "generated_tokens": None,
        }


async def test_of_a_long_path_the_beginning_is_logged_and_told() -> None:
    async with balancer() as made:
        response = await made.ask(get("/" + "a" * 20_000))
        (line,) = made.lines()

    assert response.status == 404
    assert len(response.body) < 500
    assert line["path"] == "/" + "a" * 199 + "…"


async def test_what_a_client_sends_makes_no_line_of_its_own() -> None:
    async with balancer() as made:
        await made.ask(b'GET /\xe2\x80\xa8"}{\xff HTTP/1.1\r\nHost: a\r\n\r\n')

        assert len(made.lines()) == 1
        assert made.log.getvalue().isascii()
