"""Model prices from the operator's table (AGENT_JOBS_MODEL_PRICES): money per million tokens, by name, by provider
(`openai:*`), or for every hosted model (`*`). Input that the provider had cached may have a price of its own.
`config.settings` reads the table.

Sums are rounded up to six decimal places, so that many small calls never count as nothing.
"""

from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_UP, Decimal

from django.conf import settings

from agent_jobs import llm

PLACES = Decimal("0.000001")
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Money per million tokens."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cached_input: Decimal | None = None  # the price of input, if it is not stated

    def cost(self, usage: llm.Usage) -> Decimal:
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        read = (usage.input_tokens - cached) * self.input + cached * cached_price
        exact = (read + usage.output_tokens * self.output) / _MILLION
        return exact.quantize(PLACES, ROUND_UP)

    def output_tokens_for(self, money: Decimal, *, input_tokens: int) -> int | None:
        """How many output tokens this money buys after paying for the input: below 0 if it does not cover the input,
        None if output is free.
        """
        rest = money * _MILLION - input_tokens * self.input
        if rest < 0:
            return -1
        return int((rest / self.output).to_integral_value(ROUND_FLOOR)) if self.output else None


def of(model: str) -> Price:
    """The model's price. A model missing from the table is free here; `check` decides whether it may be called."""
    found = _listed(model)
    return Price(*found) if found else Price()


def label(model: str) -> str:
    """A model's name as a metrics label, with bounded cardinality: organisations may configure any model name.

    Models in the operator's table and models that ship with the service keep their names; a provider's others share
    one.
    """
    if model in settings.MODEL_PRICES or model in llm.MODELS:
        return model
    provider = llm.provider_of(model)
    return f"{provider}:other" if provider in llm.PROVIDERS else "other"


def check(model: str) -> str:
    """Why a missing price forbids calling the model; empty if it may be called. Models that ship with the service are
    free.
    """
    if settings.REQUIRE_MODEL_PRICE and llm.provider_of(model) and not _listed(model):
        return "has no price in AGENT_JOBS_MODEL_PRICES, and every model must have one here"
    return ""


def _listed(model: str) -> tuple[Decimal, ...] | None:
    provider = llm.provider_of(model)
    names = (model, f"{provider}:*", "*") if provider else (model,)
    return next((settings.MODEL_PRICES[name] for name in names if name in settings.MODEL_PRICES), None)
