"""Sends chat completions to a server and prints the result of each request as a line of JSON.

    python e2e/chat.py http://10.96.0.7 --requests 8 --tokens 400 --stream

Must run where the server's address is reachable: `e2e/cluster run python e2e/chat.py …`.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass

import httpx


@dataclass
class RequestResult:
    """The result of one request. It is completed if all tokens arrived without an error."""

    status: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    completed: bool = False
    error: str = ""


async def chat(
    client: httpx.AsyncClient, tokens: int, *, stream: bool, prompt: str, model: str = ""
) -> RequestResult:
    """Request `tokens` tokens. Never raises: an error is part of the result."""
    result = RequestResult()
    began = time.monotonic()
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": stream,
        # llama.cpp's own field: otherwise a model with random weights ends at a random length.
        "ignore_eos": True,
    }
    if model:
        body["model"] = model
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            result.status = response.status_code
            read = _read_stream if stream and result.status == 200 else _read_body
            await read(response, result, began)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        result.error = f"{type(error).__name__}: {error}"
    result.seconds = round(time.monotonic() - began, 3)
    result.completed = result.completed and not result.error
    return result


async def _read_stream(response: httpx.Response, result: RequestResult, began: float) -> None:
    async for line in _lines(response):
        if line == b"data: [DONE]":
            result.completed = True
        elif line.startswith(b"data: "):
            event = json.loads(line.removeprefix(b"data: "))
            if "timings" in event:
                result.tokens = event["timings"]["predicted_n"]
            if not result.first_token_seconds:
                result.first_token_seconds = round(time.monotonic() - began, 3)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    # Not aiter_lines: it also splits at U+0085 and U+2028, which JSON does not escape.
    rest = b""
    async for chunk in response.aiter_bytes():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line


async def _read_body(response: httpx.Response, result: RequestResult, _began: float) -> None:
    body = json.loads(await response.aread())
    if result.status == 200:
        result.tokens = body["usage"]["completion_tokens"]
        result.completed = True
    else:
        result.error = body["error"]["message"]


async def repeat(url: str, clients: int, tokens: int, *, stream: bool) -> list[RequestResult]:
    """Let `clients` clients send one request after the other until standard input ends."""
    results: list[RequestResult] = []
    stopped = asyncio.Event()

    async def send(number: int) -> None:
        while not stopped.is_set():
            # A new connection each time: a kept one would stay with its first balancer.
            async with httpx.AsyncClient(base_url=url, timeout=900) as client:
                results.append(await chat(client, tokens, stream=stream, prompt=f"from {number}"))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(send(number))
        await asyncio.to_thread(sys.stdin.read)
        stopped.set()
    return results


async def burst(
    url: str,
    requests: int,
    tokens: int,
    *,
    stream: bool,
    models: Sequence[str] = (),
    concurrent: int | None = None,
) -> list[RequestResult]:
    """Send `requests`; return their results in the order of sending.

    Each is for one of `models`, chosen at random. At most `concurrent` at once, by default all.
    """
    choice = random.Random(1)
    running = asyncio.Semaphore(concurrent or requests)

    async def send(client: httpx.AsyncClient, number: int, model: str) -> RequestResult:
        async with running:
            prompt = f"request {number}"
            return await chat(client, tokens, stream=stream, prompt=prompt, model=model)

    # The queue's own timeout is under test, so the client's must be longer.
    async with httpx.AsyncClient(base_url=url, timeout=900, limits=httpx.Limits()) as client:
        return await asyncio.gather(
            *(
                send(client, number, choice.choice(models) if models else "")
                for number in range(requests)
            )
        )


def main() -> None:
    """Parse the command line, send the requests, print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="URL of the server, as in http://HOST:PORT")
    parser.add_argument(
        "--requests", type=int, default=1, help="concurrent requests (default: %(default)s)"
    )
    parser.add_argument(
        "--tokens", type=int, default=16, help="tokens for each request (default: %(default)s)"
    )
    parser.add_argument(
        "--concurrent", type=int, help="maximum of requests at a time (default: all at once)"
    )
    parser.add_argument(
        "--model",
        action="append",
        dest="models",
        default=[],
        help="a model that requests name; of several, each request names one at random",
    )
    parser.add_argument("--stream", action="store_true", help="request server-sent events")
    parser.add_argument(
        "--start-at-eof", action="store_true", help="start when standard input ends"
    )
    parser.add_argument(
        "--repeat", action="store_true", help="repeat the requests until standard input ends"
    )
    options = parser.parse_args()
    if options.start_at_eof:
        sys.stdin.read()
    url, requests, tokens, stream = (
        options.url,
        options.requests,
        options.tokens,
        options.stream,
    )
    results = asyncio.run(
        repeat(url, requests, tokens, stream=stream)
        if options.repeat
        else burst(
            url,
            requests,
            tokens,
            stream=stream,
            models=options.models,
            concurrent=options.concurrent,
        )
    )
    for result in results:
        print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
