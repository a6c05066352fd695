"""Write the screenshots of the gateway's page in docs/images: `make screenshots`."""

import asyncio
import os
import tempfile
from dataclasses import replace
from math import cos
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from browser import Tab, open_tab
from page_harness import ChatCall, PageGateway, run_page
from page_scenes import NOW, all_states
from provider.prerequisites import ensure_chromium
from slotkeeper.gateway.page.state import PageModel
from wait_until import until

IMAGES = Path(__file__).resolve().parents[2] / "docs/images"
SIZES = {"wide": {"width": 1280, "height": 940}, "narrow": {"width": 390, "height": 844}}
SHOTS = (("light", "wide"), ("dark", "wide"), ("light", "narrow"))

FAMILIES = "<family>Inter</family><family>Noto Sans</family>"
ALIASES = "".join(
    f'<alias binding="strong"><family>{name}</family><prefer>{FAMILIES}</prefer></alias>'
    for name in ("system-ui", "sans-serif", "DejaVu Sans")
)
FONTS = f"""<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><include ignore_missing="yes">/etc/fonts/fonts.conf</include>{ALIASES}</fontconfig>"""
"""A desktop's font where it is installed: without a desktop, Chromium's system-ui is any font."""

STEPS = 95
"""Polls before a screenshot, which fill the spark lines."""
QUESTION = "Why do four slots serve more than four times one slot?"
RESPONSE = (
    "They don't, quite: with four slots, llama-server decodes four requests in one batch. The "
    "weights are read from memory once for all of them, and reading them is what takes the time. "
    "So four streams cost little more than one."
)


async def chat(call: ChatCall) -> None:
    """Stream a response in two pieces, each of them when `proceed` is set."""
    call.begin()
    await call.proceed.wait()
    call.proceed.clear()
    call.delta(content=RESPONSE[:40])
    await call.proceed.wait()
    call.delta(content=RESPONSE[40:])
    call.finish(tokens=58)


async def shoot(browser: Any, scheme: str, size: str) -> None:
    """Write one screenshot."""
    async with (
        run_page() as gateway,
        open_tab(browser, color_scheme=scheme, viewport=SIZES[size]) as tab,
    ):
        gateway.now = NOW
        gateway.script = chat
        await fill_sparklines(tab, gateway)
        await converse(tab, gateway)
        await tab.page.evaluate("() => scrollTo(0, 0)")
        await tab.page.screenshot(path=IMAGES / f"page-{scheme}-{size}.png")


async def converse(tab: Tab, gateway: PageGateway) -> None:
    """Chat in simulated time, so that the rate is the same in each run."""
    await tab.page.clock.pause_at("2100-01-01")
    await tab.page.locator("#chat-model").select_option("llama-3.3-70b")
    await tab.send(QUESTION)
    await tab.page.locator(".turn.model").wait_for()
    await until(lambda: bool(gateway.chats))
    for milliseconds, text in ((400, RESPONSE[:40]), (1560, RESPONSE)):
        await tab.page.clock.run_for(milliseconds)
        gateway.chats[0].proceed.set()
        await tab.page.get_by_text(text, exact=True).wait_for()
    await tab.page.get_by_text("first token after").wait_for()


async def fill_sparklines(tab: Tab, gateway: PageGateway) -> None:
    """Let the page poll a changing load, which ends with that of all_states()."""
    await tab.open(gateway)
    for step in range(STEPS, -1, -1):
        part = 1 - 0.25 * (1 - cos(step / 9)) - 0.07 * (1 - cos(step * 1.7))
        gateway.models = [scaled(model, part) for model in all_states()]
        await tab.poll()


def scaled(model: PageModel, part: float) -> PageModel:
    """Return the model with a part of its load."""
    status = dict(model.status or {})
    slots = status["slots"]
    status["slots"] = {"total": slots["total"], "busy": round(slots["busy"] * part)}
    status["queued"] = round(status["queued"] * part)
    tokens = model.tokens_per_second
    return replace(model, status=status, tokens_per_second=tokens and tokens * part)


async def main() -> None:
    """Write all screenshots."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as fonts:
        fonts.write(FONTS)
        fonts.flush()
        environment = {**os.environ, "FONTCONFIG_FILE": fonts.name}
        async with async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=ensure_chromium(), env=environment
            )
            for scheme, size in SHOTS:
                await shoot(browser, scheme, size)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
