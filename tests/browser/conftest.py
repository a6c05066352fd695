"""The page in headless Chromium: one browser for all tests, and a new profile for each."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from browser import Tab, open_tab
from page_harness import PageGateway, run_page
from page_scenes import NOW, all_states
from provider.prerequisites import CHROMIUM, chromium

REMEDY = "Install it with: make browser"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Any]:
    api = pytest.importorskip("playwright.async_api", reason=f"missing: playwright. {REMEDY}")
    path = chromium()
    if path is None:
        pytest.skip(f"missing: Chromium (one of {', '.join(CHROMIUM)}). {REMEDY}")
    async with api.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def gateway() -> AsyncIterator[PageGateway]:
    """A gateway with a model in each state."""
    async with run_page() as gateway:
        gateway.models = all_states()
        gateway.now = NOW
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Any) -> AsyncIterator[Tab]:
    async with open_tab(browser) as tab:
        yield tab
