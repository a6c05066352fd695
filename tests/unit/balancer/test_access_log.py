from balancing import balancer
from fake_llama import FakeLlama
from raw_http import post


async def test_a_request_leaves_one_line_that_says_how_it_went() -> None:
    async with FakeLlama(1) as llama, balancer(llama) as made:
        response = await made.ask(post("/completion?q=secret", b"hello"))

        (line,) = made.lines()
        assert line.pop("client").startswith("127.0.0.1:")
        assert 0 <= line.pop("wait") <= line.pop("first_byte") <= line.pop("seconds")
        assert line == {
            "time": 1_700_000_000.0,
            "key": None,
            "method": "POST",
            "path": "/completion",
            "trace": None,
            "status": 200,
            "outcome": "answered",
            "replica": llama.name,
            "relayed": False,
            "tries": 1,
            "hit": None,
            "overtaken": 0,
            "bytes_in": 5,
            "bytes_out": len(response.body),
            "heartbeats": 0,
            "prompt_tokens": None,
            "cached_tokens": None,
            "generated_tokens": None,
        }
