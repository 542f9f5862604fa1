"""What an hour of a resource costs, by versions of a rate card. Pure and in Decimal.

What has no rate is named in `Amount.unpriced` and is never taken as zero dollars. docs/cost-model.md explains the card,
docs/adr/0010 what is charged where proposal and machine differ.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tools.cost import Amount, Resources

ANY_GPU = "any"


class RatesError(ValueError):
    """The rates file cannot be read. The message names the place and what is expected there."""


class Prices(BaseModel):
    """Dollars an hour for each resource; None where there is no rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_core_hour: Decimal | None = Field(default=None, ge=0)
    memory_gib_hour: Decimal | None = Field(default=None, ge=0)
    gpu_hour: dict[str, Decimal] = Field(default_factory=dict)

    def gpu(self, product: str) -> Decimal | None:
        return self.gpu_hour.get(product, self.gpu_hour.get(ANY_GPU))


class Rates(Prices):
    """One version of the card. `spot`: on machines that may be taken away; what it does not name costs the same."""

    version: str = Field(min_length=1, max_length=40)
    effective_from: AwareDatetime
    spot: Prices = Prices()

    @model_validator(mode="after")
    def _cheaper_on_spot(self) -> Self:
        """What people approve is priced on demand, and is the most it may cost."""
        for name, spot, usual in (
            ("cpu_core_hour", self.spot.cpu_core_hour, self.cpu_core_hour),
            ("memory_gib_hour", self.spot.memory_gib_hour, self.memory_gib_hour),
            *((f"gpu_hour.{one}", self.spot.gpu(one), self.gpu(one)) for one in self._products),
        ):
            if spot is not None and usual is not None and spot > usual:
                raise ValueError(f"spot.{name} is {spot}, dearer than {usual} on demand; give it a lower spot price")
        return self

    @property
    def _products(self) -> tuple[str, ...]:
        """All that are priced, with the rest."""
        return tuple(dict.fromkeys((ANY_GPU, *self.gpu_hour, *self.spot.gpu_hour)))

    def hourly(self, resources: Resources) -> Amount:
        """What these resources cost an hour. A GPU's rate includes the cores and memory of its host.

        GPUs of no certain product are priced as the dearest that they may be.
        """
        if resources.nodes > 1:
            return self.hourly(resources.each).times(Decimal(resources.nodes))
        if resources.gpus:
            products = (resources.gpu_product,) if resources.gpu_product else self._products
            return _charge(f"GPU {products[0]}", Decimal(resources.gpus), self._dearest(products, resources.spot))
        cores, memory = self.cpu_core_hour, self.memory_gib_hour
        if resources.spot:
            cores = _first(self.spot.cpu_core_hour, cores)
            memory = _first(self.spot.memory_gib_hour, memory)
        return _charge("CPU core", resources.cpu_cores, cores) + _charge("memory", resources.memory_gib, memory)

    def _dearest(self, products: tuple[str, ...], spot: bool) -> Decimal | None:
        """None if one of them has no rate."""
        dearest = Decimal(0)
        for product in products:
            rate = _first(self.spot.gpu(product) if spot else None, self.gpu(product))
            if rate is None:
                return None
            dearest = max(dearest, rate)
        return dearest


class RateCard(BaseModel):
    """All versions of the rates, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = "USD"
    versions: tuple[Rates, ...] = Field(min_length=1)

    @classmethod
    def parse(cls, document: object) -> Self:
        """The rate card from a parsed YAML or JSON document; `RatesError` names the first thing that is wrong."""
        try:
            card = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the document"
            raise RatesError(f"{place}: {first['msg']}") from error
        names = [rates.version for rates in card.versions]
        if len(set(names)) < len(names):
            raise RatesError("versions: two versions have the same name; give each its own.")
        return card.model_copy(update={"versions": tuple(sorted(card.versions, key=lambda one: one.effective_from))})

    def at(self, when: datetime) -> Rates:
        """The version in force at `when`; before the first one, the first."""
        in_force = [rates for rates in self.versions if rates.effective_from <= when]
        return in_force[-1] if in_force else self.versions[0]

    def version(self, name: str) -> Rates | None:
        """The version of that name, or None if the file no longer has it."""
        return next((rates for rates in self.versions if rates.version == name), None)


def _first(price: Decimal | None, other: Decimal | None) -> Decimal | None:
    return other if price is None else price


def _charge(name: str, quantity: Decimal, rate: Decimal | None) -> Amount:
    if quantity == 0:
        return Amount()
    return Amount(unpriced=(name,)) if rate is None else Amount(dollars=quantity * rate)
