"""With API keys, a page shows and uses only what its key may use, and the key stays in the tab."""

from typing import Any

import pytest

from browser import Tab, open_tab
from page_harness import PageGateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "sk-alice/+=&?#"


@pytest.fixture
def locked(gateway: PageGateway) -> PageGateway:
    gateway.keys = {KEY: ["nomic-embed", "gemma-3-27b"], "other": ["mistral-small"]}
    return gateway


async def sign_in(tab: Tab, gateway: PageGateway, key: str = KEY) -> Any:
    page = await tab.open(gateway)
    await page.get_by_label("API key").fill(key)
    await page.keyboard.press("Enter")
    return page


async def test_without_a_key_nothing_is_shown_but_the_form(tab: Tab, locked: PageGateway) -> None:
    page = await tab.open(locked)
    await page.get_by_label("API key").wait_for()

    assert await page.evaluate("() => document.activeElement.id") == "key"
    assert not await page.locator("#content").is_visible()
    assert "nomic" not in await page.content()


async def test_a_key_shows_and_uses_its_own_models(tab: Tab, locked: PageGateway) -> None:
    page = await sign_in(tab, locked)
    await page.locator("#models tr").first.wait_for()
    assert await page.evaluate("() => document.activeElement.id") == "models-title"
    await tab.send("Hello")
    await page.get_by_text("Hello there.").wait_for()

    assert await page.locator("#models .name").all_inner_texts() == ["gemma-3-27b", "nomic-embed"]
    assert await tab.text("#total-models") == "1 of 2"
    assert await page.locator("#chat-model option").all_inner_texts() == [
        "gemma-3-27b",
        "nomic-embed",
    ]
    assert locked.chats[0].authorization == f"Bearer {KEY}".encode()


async def test_the_key_stays_in_the_tab(tab: Tab, locked: PageGateway) -> None:
    page = await sign_in(tab, locked)
    await page.locator("#models tr").first.wait_for()
    await page.reload()
    await page.locator("#models tr").first.wait_for()

    assert await page.evaluate(
        "() => [localStorage.length, document.cookie, location.href, document.forms[0].elements[0]"
        ".value]"
    ) == [0, "", locked.url, ""]
    assert not any("alice" in target for target in locked.targets)
    other = await page.context.new_page()
    await other.goto(locked.url)
    await other.get_by_label("API key").wait_for()


async def test_a_wrong_key_is_rejected(tab: Tab, locked: PageGateway) -> None:
    page = await sign_in(tab, locked, "wrong")
    await page.get_by_text("This API key is not accepted.").wait_for()

    assert await page.evaluate("() => sessionStorage.length") == 0
    await page.get_by_label("API key").fill(KEY)
    await page.keyboard.press("Enter")
    await page.locator("#models tr").first.wait_for()


async def test_a_key_that_no_header_can_carry_is_not_sent(tab: Tab, locked: PageGateway) -> None:
    page = await sign_in(tab, locked, "schlüssel ключ")
    await page.get_by_text("An API key has only letters, digits and punctuation.").wait_for()

    assert len(locked.authorizations) == 1


async def test_forgetting_the_key_removes_all_data(tab: Tab, locked: PageGateway) -> None:
    page = await sign_in(tab, locked)
    await page.locator("#models tr").first.wait_for()
    await tab.send("My secret question")
    await page.get_by_text("Hello there.").wait_for()
    await page.get_by_role("button", name="Forget API key").click()
    await page.get_by_label("API key").wait_for()

    content = await page.content()
    assert not any(text in content for text in ("nomic", "secret question", "Hello there", KEY))
    assert await page.evaluate("() => sessionStorage.length") == 0


async def test_a_key_that_is_revoked_ends_the_session(tab: Tab, locked: PageGateway) -> None:
    page = await sign_in(tab, locked)
    await page.locator("#models tr").first.wait_for()
    locked.keys = {"other": ["mistral-small"]}
    await tab.poll()
    await page.get_by_text("This API key is not accepted.").wait_for()

    assert "nomic" not in await page.content()


async def test_a_key_that_is_revoked_ends_the_session_in_the_chat_too(
    tab: Tab, locked: PageGateway
) -> None:
    page = await sign_in(tab, locked)
    await page.locator("#models tr").first.wait_for()
    locked.keys = {"other": ["mistral-small"]}
    await tab.send("Hello")
    await page.get_by_text("This API key is not accepted.").first.wait_for()

    assert await page.get_by_label("API key").is_visible()


async def test_without_api_keys_there_is_no_form(browser: Any, gateway: PageGateway) -> None:
    async with open_tab(browser) as tab:
        page = await tab.open(gateway)

        assert not await page.get_by_label("API key").is_visible()
        assert not await page.get_by_role("button", name="Forget API key").is_visible()
        assert gateway.authorizations == [None]
