"""What the page shows of models, and how it changes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from browser import NARROW, POLL_MS, Tab, open_tab
from page_harness import PageGateway, run_page
from page_scenes import NOW, all_states, event, many, status
from slotkeeper.gateway.page.state import PageModel
from slotkeeper.wire.errors import HttpError

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = (
    "<img src=x onerror=\"window.hacked='img'\">",
    "<script>window.hacked='script'</script>",
    '"><svg onload="window.hacked=1">',
    "javascript:window.hacked=1",
    "\u202egnp.exe\u2066{{constructor}}",
)


def qwen(total: int, busy: int, queued: int = 0, **fields: Any) -> PageModel:
    return PageModel(
        **{
            "name": "qwen",
            "server": "chat",
            "state": "Ready",
            "status": status(total, busy, queued, 1),
            **fields,
        }
    )


def row(tab: Tab, name: str) -> Any:
    return tab.page.get_by_role("row").filter(has=tab.page.get_by_text(name, exact=True))


async def squares(tab: Tab) -> list[float]:
    """How far each square is filled."""
    filled: list[float] = await tab.page.evaluate(
        "() => [...document.querySelectorAll('#models .fill')].map((fill) =>"
        " Number(/scaleY\\((.*)\\)/.exec(fill.style.transform)[1]))"
    )
    return filled


async def test_each_slot_is_a_square_and_busy_ones_are_filled(
    tab: Tab, gateway: PageGateway
) -> None:
    gateway.models = [qwen(8, 3)]
    page = await tab.open(gateway)

    assert await squares(tab) == [1, 1, 1, 0, 0, 0, 0, 0]
    assert await page.get_by_role("img", name="3 of 8 slots busy, 1 replica ready").count() == 1

    gateway.models = [qwen(4, 4)]
    await tab.poll()

    assert await squares(tab) == [1, 1, 1, 1]


async def test_of_many_slots_a_square_is_several(tab: Tab, gateway: PageGateway) -> None:
    gateway.models = [qwen(150, 76)]
    page = await tab.open(gateway)

    filled = await squares(tab)
    assert len(filled) == 50
    assert filled[:27] == [*[1] * 25, pytest.approx(1 / 3), 0]
    name = "76 of 150 slots busy, 1 replica ready, one square is 3 slots"
    assert await page.get_by_role("img", name=name).count() == 1


async def test_a_row_shows_state_queue_rate_and_aliases(tab: Tab, gateway: PageGateway) -> None:
    await tab.open(gateway)

    text = (await row(tab, "qwen2.5-7b-instruct").inner_text()).split()
    assert " ".join(text) == (
        "qwen2.5-7b-instruct also default, gpt-4o-mini Ready 29/32 7 613 "
        "Chat with qwen2.5-7b-instruct"
    )
    failed = row(tab, "mistral-small")
    assert "Failed" in await failed.inner_text()
    assert "status 404" in await failed.inner_text()
    assert await failed.locator("svg.icon").count() == 1


async def test_totals_are_those_of_all_models(tab: Tab, gateway: PageGateway) -> None:
    await tab.open(gateway)

    totals = [await tab.text(f"#total-{each}") for each in ("models", "slots", "queued", "tokens")]
    assert totals == ["4 of 7", "167 of 248", "9", "2,630"]


async def test_decisions_have_their_reason_and_relative_time(
    tab: Tab, gateway: PageGateway
) -> None:
    page = await tab.open(gateway)

    decision = page.locator("#decisions li").nth(1)
    text = (await decision.inner_text()).split("\n")
    assert [part for part in text if part] == [
        "qwen2.5-7b-instruct 3 → 4 replicas",
        "Queue wait above target",
        "busy 24/24, queued 5, oldest 3.2 s: 3 -> 4",
        "2 min ago",
    ]

    gateway.now = NOW.replace(minute=59)
    await tab.poll()

    assert await decision.locator("time").inner_text() == "31 min ago"


async def test_an_update_changes_values_and_keeps_elements_and_focus(
    tab: Tab, gateway: PageGateway
) -> None:
    page = await tab.open(gateway)
    await row(tab, "nomic-embed").get_by_role("button").focus()
    await page.evaluate("() => { for (const row of models.children) row.marked = true; }")

    # The first one is deleted, and another one is added.
    added = PageModel("phi-4", "phi", "AtZero")
    gateway.models = [*gateway.models[1:], added]
    await tab.poll()

    assert await page.evaluate(
        "() => [...models.children].map((row) => row.querySelector('.name').textContent + ' ' +"
        " Boolean(row.marked))"
    ) == [
        *(f"{model.name} true" for model in all_states()[1:5]),
        "phi-4 false",
        *(f"{model.name} true" for model in all_states()[5:]),
    ]
    focused = await page.evaluate("() => document.activeElement.textContent")
    assert focused == "Chat with nomic-embed"


async def test_changed_states_are_announced_and_numbers_are_not(
    tab: Tab, gateway: PageGateway
) -> None:
    gateway.models = [qwen(8, 3), *all_states()]
    page = await tab.open(gateway)
    await page.evaluate(
        "() => { window.said = []; new MutationObserver(() => said.push(announcer.textContent))"
        ".observe(announcer, {childList: true, characterData: true, subtree: true}); }"
    )

    gateway.models = [qwen(8, 7, 5), *all_states()]
    await tab.poll()
    assert await page.evaluate("said") == []

    gateway.models = [qwen(8, 7, 5, state="Failed"), *all_states()]
    await tab.poll()
    assert await page.evaluate("said") == ["qwen is failed"]

    gateway.models = [replace(each, state="AtZero") for each in gateway.models]
    await tab.poll()
    assert (await page.evaluate("said"))[1:] == ["7 models changed state"]


async def test_two_hundred_models_can_be_filtered(tab: Tab, gateway: PageGateway) -> None:
    gateway.models = many(200)
    page = await tab.open(gateway)
    visible = page.locator("#models tr:visible")
    assert await visible.count() == 200

    await page.get_by_role("button", name="Failed").click()
    assert await visible.count() == 33
    assert await page.get_by_role("button", name="Failed").get_attribute("aria-pressed") == "true"

    await page.get_by_label("Filter models").fill("SERVER-01")
    assert await visible.locator(".name").all_inner_texts() == ["model-011", "model-017"]
    assert await tab.text("#models-note") == "2 of 200 models"

    await tab.poll()
    assert await visible.count() == 2


async def test_the_filter_applies_to_decisions(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    await page.get_by_label("Filter models").fill("gemma")

    assert await page.locator("#decisions .name").all_inner_texts() == ["gemma-3-27b"]


async def test_an_update_of_two_hundred_models_is_quick(tab: Tab, gateway: PageGateway) -> None:
    gateway.models = many(200)
    page = await tab.open(gateway)
    await page.evaluate(
        "() => { window.changes = 0; new MutationObserver((all) => changes +="
        " all.length).observe(models, {childList: true, subtree: true, characterData: true}); }"
    )

    await tab.poll()
    assert await page.evaluate("changes") == 0

    first = gateway.models[0]
    gateway.models = [replace(first, tokens_per_second=7), *gateway.models[1:]]
    await tab.poll()
    assert await page.evaluate("changes") == 1


async def test_texts_from_the_cluster_are_never_html(tab: Tab, gateway: PageGateway) -> None:
    gateway.models = [
        PageModel(
            text,
            text,
            ("Ready", "Waking", "AtZero", "Failed", text)[number],
            text,
            (text,),
            status(4, 1, 0, 1, event(9, 0, 1, text, text)),
        )
        for number, text in enumerate(HOSTILE)
    ]
    page = await tab.open(gateway)
    await tab.poll()

    names = await page.locator("#models .name").all_inner_texts()
    assert sorted(names) == sorted(HOSTILE)
    assert await page.locator("#models img, #models script, main svg[onload]").count() == 0
    assert await page.evaluate("() => window.hacked") is None


async def test_the_browser_rejects_html_from_the_page_itself(
    tab: Tab, gateway: PageGateway
) -> None:
    page = await tab.open(gateway)

    rejected = await page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; }"
        " catch (error) { return error.name; } }"
    )
    inline = await page.evaluate(
        "() => { const script = document.createElement('script'); script.setAttribute('nonce', '');"
        " try { script.text = 'window.hacked = 1'; document.body.append(script); } catch {}"
        " return window.hacked ?? null; }"
    )

    assert rejected == "TypeError"
    assert inline is None
    assert len(tab.errors) >= 1
    tab.errors.clear()  # these violations were meant


async def test_without_models_the_page_tells_how_to_get_one(tab: Tab, gateway: PageGateway) -> None:
    gateway.models = []
    await tab.open(gateway)
    await tab.page.get_by_text("Create a LlamaServer that matches").wait_for()

    assert await tab.text("#decisions-note") == "No scaling decisions yet."
    assert await tab.page.get_by_role("button", name="Send").is_disabled()


async def test_a_lost_gateway_is_reported_and_its_last_state_stays(
    tab: Tab, gateway: PageGateway
) -> None:
    page = await tab.open(gateway)
    gateway.failure = HttpError(503, "unavailable", "not now")
    await tab.poll()
    assert not await page.locator("#banner").is_visible()

    await tab.poll(2 * POLL_MS)
    assert "responded with status 503. Retrying. This is the state of" in await tab.text("#banner")
    assert await page.locator("#models tr").count() == 7

    gateway.failure = None
    await tab.poll(4 * POLL_MS)
    assert not await page.locator("#banner").is_visible()


async def test_polls_become_rarer_while_they_fail(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)
    gateway.failure = HttpError(503, "unavailable", "not now")
    await tab.poll()
    before = len(gateway.authorizations)
    for _ in range(60):
        await page.clock.run_for(POLL_MS)

    assert 2 <= len(gateway.authorizations) - before <= 8


async def test_a_hidden_tab_does_not_poll(tab: Tab, gateway: PageGateway) -> None:
    page = await tab.open(gateway)

    async def set_hidden(hidden: bool) -> None:
        await page.evaluate(
            "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable:"
            " true}); document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )

    await set_hidden(True)
    before = len(gateway.authorizations)
    await page.clock.run_for(10 * POLL_MS)
    assert len(gateway.authorizations) == before

    async with page.expect_response("**/state.json"):
        await set_hidden(False)


async def test_the_page_works_below_a_path_prefix(tab: Tab) -> None:
    async with run_page("/tools/llm") as gateway:
        gateway.models = all_states()
        page = await tab.open(gateway)
        await tab.send("Hello")
        await page.get_by_text("Hello there.").wait_for()

    assert all(target.startswith("/tools/llm/") for target in gateway.targets)


async def test_the_page_requests_nothing_from_elsewhere(tab: Tab, gateway: PageGateway) -> None:
    requested: list[str] = []
    tab.page.on("request", lambda request: requested.append(request.url))
    await tab.open(gateway)
    await tab.poll()

    assert len(requested) > 5
    assert all(url.startswith(gateway.url) for url in requested)


async def test_the_theme_is_that_of_the_system_until_one_is_chosen(
    browser: Any, gateway: PageGateway
) -> None:
    background = "() => getComputedStyle(document.body).backgroundColor"
    async with open_tab(browser, color_scheme="dark") as tab:
        page = await tab.open(gateway)
        dark = await page.evaluate(background)
        toggle = page.get_by_role("button", name="Theme")
        await toggle.click()
        assert await toggle.inner_text() == "Theme: light"
        light = await page.evaluate(background)
        await page.reload()
        reloaded = await page.evaluate(background)
        await toggle.click()
        await toggle.click()
        assert await toggle.inner_text() == "Theme: auto"
        stored = await page.evaluate("() => localStorage.length")

    assert dark != light == reloaded
    assert stored == 0


async def test_a_narrow_screen_shows_everything(browser: Any, gateway: PageGateway) -> None:
    async with open_tab(browser, viewport=NARROW) as tab:
        await tab.open(gateway)
        text = await row(tab, "qwen2.5-7b-instruct").inner_text()

    assert {"Ready", "29/32", "7", "613"} <= set(text.split())


async def test_a_broken_state_is_a_failure_and_no_broken_page(
    tab: Tab, gateway: PageGateway
) -> None:
    page = await tab.open(gateway)
    broken = json.dumps({"models": "none"})
    await page.route("**/state.json", lambda route: route.fulfill(body=broken))
    await tab.poll()
    await tab.poll(2 * POLL_MS)

    assert await page.locator("#banner").is_visible()
    assert await page.locator("#models tr").count() == 7
