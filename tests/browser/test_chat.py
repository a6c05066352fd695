"""The chat box: streams, errors, and what a model may send."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from browser import Tab
from page_harness import ChatCall, PageGateway
from slotkeeper.wire.errors import HttpError
from sse import events

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'


async def turn(tab: Tab, index: int = -1) -> str:
    """The text of a response, without its heading."""
    text: str = await tab.page.locator(".turn.model").nth(index).inner_text()
    return text.partition("\n")[2].strip()


async def ended(tab: Tab) -> None:
    await tab.page.get_by_role("button", name="Send").wait_for()


async def status_line(tab: Tab) -> str:
    """The status line after some time has passed for the page."""
    await tab.page.clock.run_for(1000)
    return await tab.text("#chat-status")


async def test_a_response_is_shown_while_it_arrives(tab: Tab, gateway: PageGateway) -> None:
    async def script(call: ChatCall) -> None:
        call.begin()
        call.delta(content="One, ")
        await call.proceed.wait()
        call.delta(content="two.")
        call.finish(tokens=50)

    page = await tab.open(gateway)
    gateway.script = script
    await tab.send("Count")
    await page.get_by_text("One,").wait_for()
    assert await page.get_by_role("button", name="Stop").is_enabled()
    assert await page.get_by_role("log").get_attribute("aria-busy") == "true"

    gateway.chats[0].proceed.set()
    await page.get_by_text("One, two.").wait_for()
    await ended(tab)
    assert await page.get_by_role("log").get_attribute("aria-busy") is None
    assert "50 tokens" in await tab.text("#chat-status")
    assert gateway.chats[0].body == {
        "model": "llama-3.3-70b",
        "messages": [{"role": "user", "content": "Count"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_tokens_per_second_are_shown(tab: Tab, gateway: PageGateway) -> None:
    async def script(call: ChatCall) -> None:
        call.begin()
        call.delta(content="a")
        await call.proceed.wait()
        call.delta(content="b")
        call.finish(tokens=41)

    page = await tab.open(gateway)
    gateway.script = script
    await page.clock.pause_at("2100-01-01")
    await tab.send("Hello")
    await page.locator(".turn.model").get_by_text("a", exact=True).wait_for()
    await page.clock.run_for(2000)
    gateway.chats[0].proceed.set()
    await ended(tab)

    assert await tab.text("#chat-status") == ("41 tokens, 20 tokens/s, first token after 0.0 s")


async def test_a_conversation_is_sent_as_a_whole_until_it_is_cleared(
    tab: Tab, gateway: PageGateway
) -> None:
    page = await tab.open(gateway)
    await tab.send("First")
    await ended(tab)
    await tab.send("Second")
    await ended(tab)

    assert [message["content"] for message in gateway.chats[1].body["messages"]] == [
        "First",
        "Hello there.",
        "Second",
    ]

    await page.get_by_role("button", name="Clear").click()
    assert await page.locator(".turn").count() == 0
    await tab.send("Third")
    await ended(tab)
    assert len(gateway.chats[2].body["messages"]) == 1


async def test_shift_and_enter_adds_a_line(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    await page.get_by_label("Message", exact=True).fill("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    assert gateway.chats == []

    await page.keyboard.press("Enter")
    await ended(tab)
    assert gateway.chats[0].body["messages"][0]["content"] == "one\ntwo"


async def test_an_empty_message_is_not_sent(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    await tab.send("  \n ")

    assert await page.get_by_role("button", name="Send").is_disabled()
    assert gateway.chats == []


@pytest.mark.parametrize("how", ["button", "Escape", "clear"])
async def test_stopping_disconnects_and_keeps_what_has_arrived(
    tab: Tab, gateway: PageGateway, how: str
) -> None:
    async def script(call: ChatCall) -> None:
        call.begin()
        call.delta(content="Once upon")
        await call.disconnected.wait()

    page = await tab.open(gateway)
    gateway.script = script
    await tab.send("Tell")
    await page.get_by_text("Once upon").wait_for()
    if how == "Escape":
        await page.keyboard.press("Escape")
    else:
        await page.get_by_role("button", name="Stop" if how == "button" else "Clear").click()

    await asyncio.wait_for(gateway.chats[0].disconnected.wait(), 10)
    await ended(tab)
    if how == "clear":
        assert await page.locator(".turn").count() == 0
    else:
        assert (await turn(tab)).split("\n")[-1] == "Stopped."
        assert "Once upon" in await turn(tab)


async def test_the_position_in_the_queue_is_shown(tab: Tab, gateway: PageGateway) -> None:
    async def script(call: ChatCall) -> None:
        call.begin()
        call.send(b": queued, position 3\n\n")
        await call.proceed.wait()
        call.delta(content="Hello")
        call.finish()

    await tab.open(gateway)
    gateway.script = script
    await tab.send("Hello")
    await tab.until("announcer.textContent === 'The request is queued.'")
    assert (await status_line(tab)).startswith("Queued, position 3, ")

    gateway.chats[0].proceed.set()
    await ended(tab)
    assert await turn(tab) == "Hello"
    assert (await tab.text("#chat-status")).startswith("1 token, first token after ")


async def test_a_model_that_starts_is_shown_as_starting(tab: Tab, gateway: PageGateway) -> None:
    async def script(call: ChatCall) -> None:
        await call.disconnected.wait()

    page = await tab.open(gateway)
    await page.get_by_role("button", name="Chat with gemma-3-27b").click()
    assert await tab.text("#chat-status") == (
        "gemma-3-27b is at zero. The first message starts it, which can take minutes."
    )

    gateway.script = script
    await tab.send("Hello")
    assert (await status_line(tab)).startswith("Starting gemma-3-27b, ")


ERRORS = (
    (HttpError(403, "model_not_allowed", "not yours"), "may not use this model"),
    (HttpError(404, "model_not_found", "no such model"), "is not served here"),
    (HttpError(418, "teapot", "short and stout"), "reported an error"),
    (HttpError(429, "queue_full", "9 queued", retry_after=5), "Try again in 5 s."),
    (HttpError(503, "no_replica", "ModelNotFound"), "cannot be served at the moment"),
    (HttpError(504, "queue_timeout", "waited 600 s"), "did not respond in time"),
)


async def test_errors_are_in_plain_words_with_their_detail(tab: Tab, gateway: PageGateway) -> None:
    errors = iter(ERRORS)

    async def fail(call: ChatCall) -> None:
        call.error(next(errors)[0])

    await tab.open(gateway)
    gateway.script = fail
    for error, plain in ERRORS:
        await tab.send("Hello")
        await ended(tab)

        assert plain in await turn(tab)
        assert error.message in await turn(tab)


async def test_a_failed_message_can_be_sent_again(tab: Tab, gateway: PageGateway) -> None:
    async def fail(call: ChatCall) -> None:
        call.error(HttpError(503, "no_replica", "ModelNotFound"))

    page = await tab.open(gateway)
    gateway.script = fail
    await tab.send("Hello")
    await ended(tab)
    gateway.script = succeed
    await page.get_by_role("button", name="Try again").click()
    await page.get_by_text("It works.").wait_for()
    await ended(tab)

    assert [each["content"] for each in gateway.chats[1].body["messages"]] == ["Hello"]


async def succeed(call: ChatCall) -> None:
    call.begin()
    call.delta(content="It works.")
    call.finish()


async def lost(call: ChatCall) -> None:
    call.begin()
    call.delta(content="Half")
    await asyncio.sleep(0.05)
    call.abort()


async def early(call: ChatCall) -> None:
    call.begin()
    call.delta(content="Half")
    call.end()


async def error_event(call: ChatCall) -> None:
    call.begin()
    call.delta(content="Half")
    call.event({"error": {"message": "the replica crashed", "code": 502}})
    call.end()


async def no_json(call: ChatCall) -> None:
    call.begin()
    call.send(b"data: <html>Half</html>\n\n")
    call.end()


async def no_completion(call: ChatCall) -> None:
    call.respond(200, {"message": "hello"})


async def empty(call: ChatCall) -> None:
    call.begin()
    call.finish()


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        (lost, "The connection was lost."),
        (early, "The response ended early."),
        (error_event, "The model's server failed while it processed the request."),
        (no_json, "The response is not valid."),
        (no_completion, "The response is not a chat completion."),
        (empty, "The response is empty."),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_broken_responses_are_explained(
    tab: Tab, gateway: PageGateway, script: Any, shown: str
) -> None:
    page = await tab.open(gateway)
    gateway.script = script
    await tab.send("Hello")
    await ended(tab)

    assert shown in await turn(tab)
    assert await page.get_by_label("Message", exact=True).is_enabled()


async def test_a_response_that_is_no_stream_is_shown(tab: Tab, gateway: PageGateway) -> None:
    async def script(call: ChatCall) -> None:
        message = {"role": "assistant", "content": "All at once."}
        call.respond(200, {"choices": [{"message": message, "finish_reason": "stop"}]})

    await tab.open(gateway)
    gateway.script = script
    await tab.send("Hello")
    await ended(tab)

    assert await turn(tab) == "All at once."


async def test_reasoning_is_shown_apart(tab: Tab, gateway: PageGateway) -> None:
    async def script(call: ChatCall) -> None:
        call.begin()
        call.delta(reasoning_content="Hm, ")
        call.delta(reasoning_content="a greeting.")
        call.delta(content="Hello.")
        call.finish()

    page = await tab.open(gateway)
    gateway.script = script
    await tab.send("Hello")
    await ended(tab)

    assert await turn(tab) == "Reasoning\n\nHello."
    await page.get_by_text("Reasoning").click()
    assert await page.get_by_text("Hm, a greeting.").is_visible()


@pytest.mark.parametrize("where", ["content", "comment", "error", "message"])
async def test_what_a_model_sends_is_never_html(tab: Tab, gateway: PageGateway, where: str) -> None:
    async def script(call: ChatCall) -> None:
        if where == "error":
            call.error(HttpError(503, "no_replica", HOSTILE))
            return
        call.begin()
        if where == "comment":
            call.send(b": %s\n\n" % HOSTILE.encode())
            await call.disconnected.wait()
        call.delta(content=HOSTILE)
        call.finish()

    page = await tab.open(gateway)
    gateway.script = script
    await tab.send(HOSTILE if where == "message" else "Hello")
    if where == "comment":
        await tab.until("announcer.textContent === 'The request is queued.'")
        assert "<img" in await status_line(tab)
    else:
        await ended(tab)
        assert HOSTILE in await tab.text("#log")

    assert await page.locator("#chat img, #chat script").count() == 0
    assert await page.evaluate("() => window.hacked") is None


async def test_text_is_kept_as_the_model_wrote_it(tab: Tab, gateway: PageGateway) -> None:
    text = "  def f():\n\n      return 'ж漢🙂' <b>&amp;\ttab"

    async def script(call: ChatCall) -> None:
        call.begin()
        data = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)
        for byte in b"data: %s\r\n\r\n" % data.encode():
            call.send(bytes([byte]))
        call.finish()

    page = await tab.open(gateway)
    gateway.script = script
    await tab.send("Hello")
    await ended(tab)

    assert await page.locator(".turn.model .content").text_content() == text


LINES = st.lists(
    st.sampled_from(["data: a", "data:b", "data", ": c", ":", "event: x", "id: 1", "", "", "ж"])
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(LINES, ENDS, st.lists(st.integers(0, 60), max_size=4))
def stream(lines: list[str], end: str, cuts: list[int]) -> None:
    body = end.join([*lines, "", ""])
    STREAMS.append((body, sorted(cuts)))


STREAMS: list[tuple[str, list[int]]] = []


async def test_events_are_parsed_as_the_standard_specifies(tab: Tab, gateway: PageGateway) -> None:
    stream()
    assert len(STREAMS) >= 50
    page = await tab.open(gateway)

    parsed = await page.evaluate(
        """async (streams) => {
          const { EventParser } = await import("./page/stream.js");
          return streams.map(([body, cuts]) => {
            const parser = new EventParser();
            const all = [];
            let start = 0;
            for (const cut of [...cuts, body.length]) {
              all.push(...parser.push(body.slice(start, Math.max(start, cut))));
              start = Math.max(start, cut);
            }
            all.push(...parser.push("\\n"));
            return all.filter((event) => "data" in event).map((event) => event.data);
          });
        }""",
        STREAMS,
    )

    expected = [[event.data for event in events((body + "\n").encode())] for body, _ in STREAMS]
    assert parsed == expected
