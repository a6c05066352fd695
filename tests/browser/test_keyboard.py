"""Everything can be done with a keyboard, in an order that makes sense."""

from typing import Any

import pytest

from browser import Tab
from page_harness import PageGateway
from page_scenes import all_states

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOCUSED = """() => {
  const element = document.activeElement;
  const label = element.labels?.[0]?.textContent;
  return (element.getAttribute("aria-label") ?? label ?? element.textContent).trim();
}"""


async def walk(page: Any, steps: int) -> list[str]:
    """Press Tab repeatedly; return what gets the focus."""
    names = []
    for _ in range(steps):
        await page.keyboard.press("Tab")
        names.append(await page.evaluate(FOCUSED))
    return names


async def test_tab_reaches_everything_in_reading_order(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    await page.get_by_label("Message", exact=True).fill("Hello")
    await page.evaluate("() => document.activeElement.blur()")
    await page.locator("body").evaluate("(body) => { body.tabIndex = -1; body.focus(); }")

    assert await walk(page, 19) == [
        "Skip to chat",
        "Theme: auto",
        "All 7",
        "Ready 4",
        "Waking 1",
        "At zero 1",
        "Failed 1",
        "Filter models and decisions by name",
        *(f"Chat with {model.name}" for model in all_states()),
        "Model for the chat",
        "Conversation",
        "Message",
        "Send",
    ]


async def test_the_skip_link_leads_to_the_message(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    await page.keyboard.press("Tab")
    link = page.get_by_role("link", name="Skip to chat")
    await page.wait_for_timeout(0)
    assert await link.evaluate("(link) => link.getBoundingClientRect().top >= 0")

    await page.keyboard.press("Enter")
    assert await page.evaluate(FOCUSED) == "Message"


async def test_the_focus_is_visible(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    widths = []
    for _ in range(12):
        await page.keyboard.press("Tab")
        widths.append(
            await page.evaluate(
                "() => getComputedStyle(document.activeElement).outlineStyle !== 'none'"
                " && parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
            )
        )

    assert all(width >= 2 for width in widths)


async def test_a_model_is_chosen_and_asked_with_the_keyboard(
    tab: Tab, gateway: PageGateway
) -> None:
    page = await tab.open(gateway)
    await page.get_by_role("button", name="Chat with nomic-embed").focus()
    await page.keyboard.press("Enter")
    assert await page.evaluate(FOCUSED) == "Message"

    await page.keyboard.type("Hello")
    await page.keyboard.press("Enter")
    await page.get_by_text("Hello there.").wait_for()
    assert gateway.chats[0].body["model"] == "nomic-embed"
    # The next message can be typed at once.
    assert await page.evaluate(FOCUSED) == "Message"


async def test_filters_are_toggled_with_the_keyboard(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    await page.get_by_role("button", name="Failed").focus()
    await page.keyboard.press("Space")

    assert await page.locator("#models tr:visible .name").all_inner_texts() == ["mistral-small"]
