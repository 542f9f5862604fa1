"""Cards give way while many people press at once, and for a moment only."""

from __future__ import annotations

import asyncio

from bot.slack.rush import MANY, PACE_SECONDS, WITHIN_SECONDS, Rush


async def _waited(rush: Rush) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await rush.over()
    return loop.time() - begun


async def test_few_clicks_keep_no_card_waiting() -> None:
    rush = Rush()
    for _ in range(MANY - 1):
        rush.click()
    assert not rush.on and await _waited(rush) < WITHIN_SECONDS / 5


async def test_many_at_once_do_until_they_are_over() -> None:
    rush = Rush()
    for _ in range(MANY):
        rush.click()
    assert rush.on
    assert await _waited(rush) > WITHIN_SECONDS / 2
    assert not rush.on


async def test_a_rush_without_end_lets_a_card_through_at_its_pace() -> None:
    rush = Rush()

    async def pressing() -> None:
        while True:
            rush.click()
            await asyncio.sleep(WITHIN_SECONDS / MANY / 5)

    clicks = asyncio.create_task(pressing())
    await asyncio.sleep(WITHIN_SECONDS)
    assert await _waited(rush) >= PACE_SECONDS * 0.9 and rush.on
    clicks.cancel()
