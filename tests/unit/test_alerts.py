"""The alert rules speak of metrics that exist, with labels that they have, and the manual knows every alert."""

import re
from pathlib import Path

import pytest
import yaml

from agent_jobs import prometheus_page

DOCS = Path(__file__).resolve().parents[2] / "docs"
RULES = [rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
_BUILT_IN = {"le", "by"}


def known() -> dict[str, tuple[str, ...]]:
    """Every name on the page and its labels."""
    names = {prometheus_page.PREFIX + name: gauge.labels for name, gauge in prometheus_page.GAUGES.items()}
    names |= {
        f"{prometheus_page.PREFIX}{name}_total": counter.labels for name, counter in prometheus_page.COUNTERS.items()
    }
    for name, histogram in prometheus_page.HISTOGRAMS.items():
        for part in ("bucket", "count", "sum"):
            names[f"{prometheus_page.PREFIX}{name}_{part}"] = histogram.labels
    return names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
class TestEveryAlert:
    def test_speaks_of_metrics_and_labels_that_are_on_the_page(self, rule: dict[str, str]) -> None:
        used = re.findall(r"(agent_jobs_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert used
        available: set[str] = set()
        for name, selector in used:
            assert name in known()
            available |= set(known()[name])
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= set(known()[name])
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in group.split(",")}
        assert grouped <= available | _BUILT_IN
        told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert told <= available

    def test_is_explained_in_the_manual(self, rule: dict[str, str]) -> None:
        assert f"| {rule['alert']} |" in (DOCS / "operations.md").read_text()

    def test_says_how_urgent_it_is(self, rule: dict[str, str]) -> None:
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_manual_explains_no_alert_that_there_is_not() -> None:
    manual = (DOCS / "operations.md").read_text()
    table = manual.split("## Alerts")[1].split("## Stop")[0]
    assert set(re.findall(r"^\| ([A-Z]\w+) \|", table, re.M)) - {"Alert"} == {rule["alert"] for rule in RULES}
