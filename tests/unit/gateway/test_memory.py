"""What a gateway's process occupies."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fake_llama import Call, FakeLlama
from raw_http import RawClient, post

SUPPORT = Path(__file__).parents[2] / "support"
CHAT = "/v1/chat/completions"


def peak_memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM: this needs Linux")


async def only_ok(call: Call) -> None:
    await call.send_json({"bytes": len(call.body)})


async def respond_to_chat(call: Call) -> None:
    message = {"role": "assistant", "content": "Hello"}
    await call.send_json({"choices": [{"message": message, "finish_reason": "stop"}]})


@asynccontextmanager
async def gateway_process(llama: FakeLlama) -> AsyncIterator[tuple[int, int]]:
    """Run a gateway; yield its port and process ID."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SUPPORT / "gateway_process.py"), str(llama.port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdin
    try:
        yield int(await process.stdout.readline()), process.pid
    finally:
        process.stdin.close()
        await process.wait()


async def test_bodies_of_20_megabytes_pass_within_200_megabytes() -> None:
    content = b'{"prompt":"%s","model":"one"}' % (b"x" * 20_000_000)
    async with FakeLlama(8, only_ok) as llama, gateway_process(llama) as (port, pid):

        async def send() -> int:
            async with await RawClient.connect(port) as client:
                return (await client.request(post(CHAT, content))).status

        for _ in range(3):
            assert await send() == 200
        assert set(await asyncio.gather(send(), send())) == {200}

        assert {len(call.body) for call in llama.calls} == {len(content)}
        assert peak_memory(pid) < 200_000_000


async def test_images_of_20_megabytes_are_translated_within_200_megabytes() -> None:
    message = b'{"role":"user","content":"Hello","images":["%s"]}' % (b"A" * 20_000_000)
    content = b'{"messages":[%s],"model":"one","stream":false}' % message
    async with FakeLlama(8, respond_to_chat) as llama, gateway_process(llama) as (port, pid):

        async def send() -> int:
            async with await RawClient.connect(port) as client:
                return (await client.request(post("/api/chat", content))).status

        for _ in range(3):
            assert await send() == 200
        assert set(await asyncio.gather(send(), send())) == {200}

        assert {len(call.body) > 20_000_000 for call in llama.calls} == {True}
        assert peak_memory(pid) < 200_000_000
