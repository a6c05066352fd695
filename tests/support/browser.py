"""A tab of headless Chromium that shows the gateway's page.

Playwright is imported where it is used, for unit tests do without it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from page_harness import PageGateway

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 320, "height": 640}
POLL_MS = 2_000
STATE_MS = 10_000
"""The longest that a test waits for a state."""


@dataclass
class Tab:
    """A tab, and what went wrong in it."""

    page: Any
    """Playwright's page."""
    errors: list[str] = field(default_factory=list)
    """Exceptions, and violations of the page's own policy."""

    async def open(self, gateway: PageGateway) -> Any:
        """Load the page and wait for its models; its clock moves only with `pass_time`."""
        await self.page.clock.install()
        await self.page.goto(gateway.url)
        if gateway.models and not gateway.failure and not gateway.held and gateway.keys is None:
            await self.page.locator("#models tr").first.wait_for()
        return self.page

    async def poll(self, milliseconds: int = POLL_MS) -> None:
        """Let this time pass, after which the page polls the state, and shows it."""
        async with self.page.expect_response("**/state.json"):
            await self.page.clock.run_for(milliseconds)
        # The page handles the response in a later task than the one that reports it here.
        await self.page.evaluate("() => fetch('page/icon.svg').then((file) => file.text())")

    async def send(self, text: str) -> None:
        """Send a chat message."""
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    async def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        await self.page.wait_for_function(expression, timeout=STATE_MS, polling=20)

    async def text(self, selector: str) -> str:
        text: str = await self.page.locator(selector).inner_text()
        return text

    async def violations(self) -> list[str]:
        """Return what axe finds: the rule, and the elements that violate it."""
        if not await self.page.evaluate("() => 'axe' in window"):
            source = (files("axe_playwright_python") / "axe.min.js").read_text()
            await self.page.evaluate(f"() => {{ {source} }}")
        results = await self.page.evaluate("() => axe.run({resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {node['html'][:120]} {node['failureSummary']}"
            for rule in results["violations"]
            for node in rule["nodes"]
        ]


@asynccontextmanager
async def open_tab(browser: Any, **options: Any) -> AsyncIterator[Tab]:
    """Open a tab with a profile of its own. Raises AssertionError at the end if it had errors.

    `options` are those of Playwright's new_context.
    """
    # Animations would be drawn all the time, by a processor that has no graphics.
    defaults = {"viewport": WIDE, "reduced_motion": "reduce"}
    context = await browser.new_context(**{**defaults, **options})
    context.set_default_timeout(STATE_MS)
    page = await context.new_page()
    tab = Tab(page)
    page.on("pageerror", lambda error: tab.errors.append(str(error)))
    page.on("console", lambda message: _on_console(tab, message))
    try:
        yield tab
    finally:
        await context.close()
    assert tab.errors == []


def _on_console(tab: Tab, message: Any) -> None:
    # Chromium reports error responses as errors of the page, which it handles.
    expected = message.text.startswith("Failed to load resource")
    if message.type in {"error", "warning"} and not expected:
        tab.errors.append(message.text)
