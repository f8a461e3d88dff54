"""What models cost, by the operator's table (AGENT_JOBS_MODEL_PRICES): money per million tokens, by name, by provider
(`openai:*`), or for every hosted model (`*`).

Sums are rounded up to six places, so that many small calls are never counted as nothing.
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

    def cost(self, usage: llm.Usage) -> Decimal:
        exact = (usage.input_tokens * self.input + usage.output_tokens * self.output) / _MILLION
        return exact.quantize(PLACES, ROUND_UP)

    def output_tokens_for(self, money: Decimal, *, input_tokens: int) -> int | None:
        """How many tokens of output so much money buys beside that input; below 0 where it does not even buy the
        input, None where it buys any number."""
        rest = money * _MILLION - input_tokens * self.input
        if rest < 0:
            return -1
        return int((rest / self.output).to_integral_value(ROUND_FLOOR)) if self.output else None


def of(model: str) -> Price:
    """A model that the table does not know costs nothing; whether it may be called is `check`'s to say."""
    found = _listed(model)
    return Price(*found) if found else Price()


def label(model: str) -> str:
    """A model's name in metrics, of which there are only so many: the operator's table and what ships with the service
    are named, other models of a provider are one. Organisations state whatever names they like."""
    if model in settings.MODEL_PRICES or model in llm.MODELS:
        return model
    provider = llm.provider_of(model)
    return f"{provider}:other" if provider in llm.PROVIDERS else "other"


def check(model: str) -> str:
    """Why the model may not be called for want of a price; empty if it may. What ships with the service is free."""
    if settings.REQUIRE_MODEL_PRICE and llm.provider_of(model) and not _listed(model):
        return "has no price in AGENT_JOBS_MODEL_PRICES, and every model must have one here"
    return ""


def _listed(model: str) -> tuple[Decimal, Decimal] | None:
    provider = llm.provider_of(model)
    names = (model, f"{provider}:*", "*") if provider else (model,)
    return next((settings.MODEL_PRICES[name] for name in names if name in settings.MODEL_PRICES), None)
