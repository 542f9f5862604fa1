"""What an hour costs: versions, products, spot machines, and a proposal that leaves some of it open."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tools.cost import Resources
from tools.rates import RateCard, RatesError

PRICES = {
    "cpu_core_hour": "0.05",
    "gpu_hour": {"any": "0.25", "L4": "0.36", "H100": "2.50"},
    "spot": {"cpu_core_hour": "0.02", "gpu_hour": {"L4": "0.10"}},
}
CPU = Resources(cpu_cores=Decimal(4), memory_gib=Decimal(8))
GPU = Resources(cpu_cores=Decimal(4), gpus=2)


def card(**prices: object) -> RateCard:
    return RateCard.parse({"versions": [{"version": "a", "effective_from": "2026-01-01T00:00:00Z", **prices}]})


def test_the_version_in_force_is_taken() -> None:
    dates = {"new": "2026-06-01T00:00:00Z", "old": "2026-01-01T00:00:00Z"}
    both = RateCard.parse({"versions": [{"version": name, "effective_from": at} for name, at in dates.items()]})
    assert both.at(datetime(2026, 5, 31, 23, 59, tzinfo=UTC)).version == "old"
    assert both.at(datetime(2026, 6, 1, tzinfo=UTC)).version == "new"


@pytest.mark.parametrize(
    ("resources", "dollars"),
    [
        (replace(CPU, memory_gib=Decimal(0)), "0.20"),
        (replace(CPU, memory_gib=Decimal(0), spot=True), "0.08"),
        (replace(GPU, gpu_product="L4"), "0.72"),
        (replace(GPU, gpu_product="L4", spot=True), "0.20"),
        (replace(GPU, gpu_product="H100", spot=True), "5.00"),  # no spot price: as on demand
        (replace(GPU, gpu_product="T4"), "0.50"),  # the rest
        (GPU, "5.00"),  # whatever it will be, it costs no more
        (replace(GPU, spot=True, nodes=2), "10.00"),
    ],
)
def test_a_machine_costs_what_it_is(resources: Resources, dollars: str) -> None:
    assert card(**PRICES).versions[0].hourly(resources).dollars == Decimal(dollars)


def test_a_card_with_any_alone_prices_every_gpu_so() -> None:
    rates = card(gpu_hour={"any": "0.25"}).versions[0]
    for product in (None, "L4"):
        for spot in (False, True):
            assert rates.hourly(replace(GPU, gpu_product=product, spot=spot)).dollars == Decimal("0.50")


def test_what_has_no_rate_is_said_and_never_zero() -> None:
    rates = card(gpu_hour={"L4": "0.36"}).versions[0]
    assert str(rates.hourly(replace(GPU, gpu_product="H100"))) == "unpriced: GPU H100"
    assert str(rates.hourly(GPU)) == "unpriced: GPU any", "it might become one without a rate"
    assert str(rates.hourly(CPU)) == "unpriced: CPU core, memory"


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ({"cpu_core_hour": "-1"}, r"versions\.0\.cpu_core_hour"),
        ({"gpu_hour": {"L4": "0.36"}, "spot": {"gpu_hour": {"L4": "0.40"}}}, r"spot\.gpu_hour\.L4 is 0\.40, dearer"),
        ({"gpu_hour": {"any": "0.3", "T4": "0.1"}, "spot": {"gpu_hour": {"any": "0.2"}}}, r"gpu_hour\.T4 is 0\.2, dea"),
        ({"spot": {"gpu": {}}}, r"versions\.0\.spot\.gpu"),
    ],
)
def test_a_wrong_rates_file_names_the_place(prices: dict[str, object], words: str) -> None:
    with pytest.raises(RatesError, match=words):
        card(**prices)


def test_resources_are_written_as_before_where_nothing_is_new() -> None:
    assert "spot" not in CPU.document() and Resources.from_document(CPU.document()) == CPU
    spot = replace(GPU, spot=True)
    assert spot.document()["spot"] is True and Resources.from_document(spot.document()) == spot
