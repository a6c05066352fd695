"""Send chat completions to a server and say, a line of JSON each, how every one of them ended.

    python e2e/chat.py http://10.96.0.7 --requests 8 --tokens 400 --stream

Runs where the server's address can be reached: `e2e/cluster run python e2e/chat.py …`.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import httpx


@dataclass
class Ending:
    """How one request ended. It was answered when all its tokens came and nothing broke."""

    status: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    answered: bool = False
    error: str = ""


async def chat(client: httpx.AsyncClient, tokens: int, *, stream: bool, prompt: str) -> Ending:
    """Ask for `tokens` tokens; never raises, a failure is an ending too."""
    ending = Ending()
    began = time.monotonic()
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": stream,
        # llama.cpp's own field: without it a random model ends when it pleases.
        "ignore_eos": True,
    }
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            ending.status = response.status_code
            await (_read_stream if stream else _read_whole)(response, ending, began)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        ending.error = f"{type(error).__name__}: {error}"
    ending.seconds = round(time.monotonic() - began, 3)
    ending.answered = ending.answered and not ending.error
    return ending


async def _read_stream(response: httpx.Response, ending: Ending, began: float) -> None:
    async for line in _lines(response):
        if line == b"data: [DONE]":
            ending.answered = ending.status == 200
        elif line.startswith(b"data: "):
            event = json.loads(line.removeprefix(b"data: "))
            if "timings" in event:
                ending.tokens = event["timings"]["predicted_n"]
            if not ending.first_token_seconds:
                ending.first_token_seconds = round(time.monotonic() - began, 3)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    # Not aiter_lines: it also splits at U+0085 and U+2028, which JSON leaves as they are.
    rest = b""
    async for piece in response.aiter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line


async def _read_whole(response: httpx.Response, ending: Ending, _began: float) -> None:
    answer = json.loads(await response.aread())
    if ending.status == 200:
        ending.tokens = answer["usage"]["completion_tokens"]
        ending.answered = True
    else:
        ending.error = answer["error"]["message"]


async def repeat(url: str, clients: int, tokens: int, *, stream: bool) -> list[Ending]:
    """Let `clients` ask again and again until standard input ends; how every request ended."""
    endings: list[Ending] = []
    over = asyncio.Event()

    async def ask(number: int) -> None:
        while not over.is_set():
            # A fresh connection each time: a kept one would stay with the balancer it began with.
            async with httpx.AsyncClient(base_url=url, timeout=900) as client:
                endings.append(await chat(client, tokens, stream=stream, prompt=f"from {number}"))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(ask(number))
        await asyncio.to_thread(sys.stdin.read)
        over.set()
    return endings


async def burst(url: str, requests: int, tokens: int, *, stream: bool) -> list[Ending]:
    """Send all `requests` at once; their endings in the order in which they were sent."""
    # The balancer bounds the wait: a client with a shorter patience would hide what it does.
    async with httpx.AsyncClient(base_url=url, timeout=900, limits=httpx.Limits()) as client:
        return await asyncio.gather(
            *(
                chat(client, tokens, stream=stream, prompt=f"request {number}")
                for number in range(requests)
            )
        )


def main() -> None:
    """Read the command line, send the requests, print their endings."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="the server, as in http://HOST:PORT")
    parser.add_argument("--requests", type=int, default=1, help="sent at the same time (1)")
    parser.add_argument("--tokens", type=int, default=16, help="generated for each (16)")
    parser.add_argument("--stream", action="store_true", help="ask for server-sent events")
    parser.add_argument("--when-told", action="store_true", help="wait until standard input ends")
    parser.add_argument(
        "--repeat", action="store_true", help="each asks again until standard input ends"
    )
    options = parser.parse_args()
    if options.when_told:
        sys.stdin.read()
    send = repeat if options.repeat else burst
    endings = asyncio.run(
        send(options.url, options.requests, options.tokens, stream=options.stream)
    )
    for ending in endings:
        print(json.dumps(asdict(ending)))


if __name__ == "__main__":
    main()
