"""axe finds nothing, in both themes and in all states of the page."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from browser import NARROW, POLL_MS, Tab, open_tab
from page_harness import ChatCall, PageGateway
from page_scenes import many
from slotkeeper.wire.errors import HttpError

pytestmark = pytest.mark.asyncio(loop_scope="session")

Scene = Callable[[PageGateway, Tab], Awaitable[None]]


async def full(gateway: PageGateway, tab: Tab) -> None:
    await tab.open(gateway)
    await tab.poll()


async def empty(gateway: PageGateway, tab: Tab) -> None:
    gateway.models = []
    await tab.open(gateway)
    await tab.until("document.getElementById('models-note').textContent.startsWith('No models')")


async def loading(gateway: PageGateway, tab: Tab) -> None:
    gateway.held = asyncio.Event()
    await tab.open(gateway)


async def unreachable(gateway: PageGateway, tab: Tab) -> None:
    gateway.failure = HttpError(503, "unavailable", "not now")
    await tab.open(gateway)
    await tab.page.locator("#banner").wait_for()


async def stale(gateway: PageGateway, tab: Tab) -> None:
    await tab.open(gateway)
    gateway.failure = HttpError(503, "unavailable", "not now")
    await tab.poll()
    await tab.poll(2 * POLL_MS)
    await tab.page.locator("#banner").wait_for()


async def signed_out(gateway: PageGateway, tab: Tab) -> None:
    gateway.keys = {"secret": []}
    await tab.open(gateway)
    await tab.page.get_by_label("API key").fill("wrong")
    await tab.page.keyboard.press("Enter")
    await tab.page.get_by_text("This API key is not accepted.").wait_for()


async def conversation(gateway: PageGateway, tab: Tab) -> None:
    async def think(call: ChatCall) -> None:
        call.begin()
        call.delta(reasoning_content="The user greets. ")
        call.delta(content="Hello.")
        call.finish(tokens=9, reason="length")

    async def fail(call: ChatCall) -> None:
        call.error(HttpError(429, "queue_full", "the queue is full", retry_after=5))

    await tab.open(gateway)
    gateway.script = think
    await tab.send("Hello")
    await tab.page.get_by_text("Stopped at the token limit.").wait_for()
    await tab.page.get_by_text("Reasoning").click()
    gateway.script = fail
    await tab.send("And again")
    await tab.page.get_by_role("button", name="Try again").wait_for()


async def streaming(gateway: PageGateway, tab: Tab) -> None:
    async def begin(call: ChatCall) -> None:
        call.begin()
        call.delta(content="Once upon a time")
        await call.disconnected.wait()

    await tab.open(gateway)
    gateway.script = begin
    await tab.send("Hello")
    await tab.page.get_by_text("Once upon a time").wait_for()


async def filtered(gateway: PageGateway, tab: Tab) -> None:
    gateway.models = many(40)
    await tab.open(gateway)
    await tab.page.get_by_role("button", name="Failed").click()
    await tab.page.get_by_label("Filter models").fill("model-0")


async def nothing_matches(gateway: PageGateway, tab: Tab) -> None:
    gateway.models = [replace(each, message="m" * 400) for each in gateway.models]
    await tab.open(gateway)
    await tab.page.get_by_label("Filter models").fill("nothing")


SCENES = (
    full,
    empty,
    loading,
    unreachable,
    stale,
    signed_out,
    conversation,
    streaming,
    filtered,
    nothing_matches,
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_axe_finds_nothing(browser: Any, gateway: PageGateway, scene: Scene) -> None:
    async with open_tab(browser, color_scheme="light") as tab:
        await scene(gateway, tab)
        light_and_wide = await tab.violations()
        await tab.page.emulate_media(color_scheme="dark")
        await tab.page.set_viewport_size(NARROW)
        dark_and_narrow = await tab.violations()
        width = await tab.page.evaluate("() => document.documentElement.scrollWidth")

    assert light_and_wide == []
    assert dark_and_narrow == []
    assert width == NARROW["width"]


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
async def test_nothing_moves_with_reduced_motion(
    browser: Any, gateway: PageGateway, motion: str, moves: bool
) -> None:
    async with open_tab(browser, reduced_motion=motion) as tab:
        await full(gateway, tab)
        moving = await tab.page.evaluate("() => document.getAnimations().length")

    assert (moving > 0) == moves


async def test_the_page_is_usable_with_forced_colors(browser: Any, gateway: PageGateway) -> None:
    async with open_tab(browser, forced_colors="active") as tab:
        await full(gateway, tab)
        colors = await tab.page.evaluate(
            "() => ['.fill', '.square', '.card'].map((name) =>"
            " getComputedStyle(document.querySelector(name)).backgroundColor)"
        )
        violations = await tab.violations()

    assert len(set(colors)) > 1
    assert violations == []
