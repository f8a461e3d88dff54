"""The people, the job types and the words of the demo organisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PEOPLE: Sequence[tuple[str, str, str, str]] = (
    ("mara", "Mara", "Lindqvist", "admin"),
    ("ben", "Ben", "Okafor", "admin"),
    ("ann", "Ann", "Castellanos", "member"),
    ("jonas", "Jonas", "Weiß", "member"),
)
CUSTOMERS = (
    *("Brightwave", "Kestrel Foods", "Norvale GmbH", "Cobalt Dairy", "Harbour Nine", "Lindgren AB", "Tessera"),
    *("Oakfield", "Northmill", "Hollis & Park", "Serrano Tiles", "Blue Fjord", "Maple & Main", "Quarry Lane"),
)
COLLEAGUES = (
    *("Priya Nair", "Tom Hale", "Leo Marchetti", "Ana Castell", "Yusuf Demir", "Greta Holm", "Paul Adeyemi"),
    *("Sofia Lindt", "Mikael Berg", "Chloé Martin"),
)
TEAMS = ("orion", "lisbon", "atlas", "vega")
REGIONS = ("DACH", "Nordics", "Iberia", "Benelux", "UK and Ireland", "Italy", "Poland")
RELEASES = (
    "api 2.41.0 to production",
    "web 5.9.2 to staging",
    "billing 1.18.4 to production",
    "api 2.40.3 to production",
)


@dataclass(frozen=True, slots=True)
class DemoType:
    """A job type of the demo. `a_day`: its jobs on a working day. `failing`: the share that fails, with the codes in
    `errors`.
    """

    key: str
    name: str
    description: str
    runner: str
    channels: Sequence[tuple[str, str]]  # platform, code
    a_day: int
    story: str
    config: Mapping[str, Any]
    failing: float = 0.0
    errors: Sequence[tuple[str, str]] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)


def _config(**more: Any) -> Mapping[str, Any]:
    return {"profile_id": "finance-assistant", "max_time_to_complete": 7_200, **more}


def _schema(**fields: Any) -> Mapping[str, Any]:
    """The JSON Schema of params that are all texts. A string is a description, a tuple lists the allowed values."""
    rules = {
        name: {"type": "string", "description": rule} if isinstance(rule, str) else {"type": "string", "enum": [*rule]}
        for name, rule in fields.items()
    }
    return {"params_schema": {"type": "object", "properties": rules}}


_INVOICE = _schema(
    invoice="Its number, such as INV-2041", customer="Whose invoice it is", name="Whom to ask", amount="As it is said"
)
TYPES: Sequence[DemoType] = (
    DemoType(
        key="invoice-chase",
        name="Invoice chase",
        description="Asks a customer's contact about an invoice that is overdue.",
        runner="conversation",
        channels=(("slack", "#finance"), ("web", "finance-desk")),
        a_day=14,
        failing=0.03,
        errors=(
            ("deadline_exceeded", "Nobody answered within 5 days"),
            ("tool_unreachable", "erp.get_invoice did not answer within 30 s"),
        ),
        story="invoice",
        config=_config(
            max_follow_ups=3, follow_up_interval=120, max_cost="0.50", start_prompt="Ask about {{ invoice }}."
        ),
        columns={"max_cost_per_day": "10", **_INVOICE},
    ),
    DemoType(
        key="standup",
        name="Stand-up",
        description="Asks each person of a team what they are working on, and posts a summary.",
        runner="conversation",
        channels=tuple(("slack", f"#team-{team}") for team in TEAMS),
        a_day=30,
        failing=0.01,
        errors=(("channel_unreachable", "Slack: the bot is not in #team-atlas"),),
        story="standup",
        config=_config(max_follow_ups=2, follow_up_interval=30, start_prompt="Ask {{ name }}."),
        columns=_schema(name="Whom to ask"),
    ),
    DemoType(
        key="nightly-report",
        name="Nightly report",
        description="Collects the figures of a region and posts the report at night.",
        runner="conversation",
        channels=(("slack", "#ops-reports"),),
        a_day=14,
        failing=0.35,
        errors=(("tool_unreachable", "warehouse.query did not answer within 30 s"),),
        story="report",
        config=_config(
            max_task_retries=3, task_retry_interval=10, max_cost="1.00", start_prompt="Report on {{ region }}."
        ),
        columns={"max_cost_per_day": "8", **_schema(title="Of the report", region=REGIONS)},
    ),
    DemoType(
        key="inventory-sync",
        name="Inventory sync",
        description="Sends the changed stock of a customer to their warehouse.",
        runner="message",
        channels=(("webhook", "wms.kestrelfoods.example"), ("webhook", "wms.blue-fjord.example")),
        a_day=60,
        failing=0.06,
        errors=(("http_502", "POST to wms.kestrelfoods.example answered 502"),),
        story="sync",
        config=_config(max_task_retries=4, task_retry_interval=0, start_prompt="{{ customer }}"),
    ),
    DemoType(
        key="deploy-approval",
        name="Deploy approval",
        description="Checks a release and asks a release manager to let it go.",
        runner="conversation",
        channels=(("slack", "#releases"),),
        a_day=6,
        failing=0.02,
        errors=(("approval_expired", "the approval of deploy.release has expired"),),
        story="deploy",
        config=_config(max_follow_ups=1, start_prompt="Release {{ release }}."),
        columns=_schema(release=RELEASES),
    ),
    DemoType(
        key="contract-renewal",
        name="Contract renewal",
        description="Prepares the renewal of a contract with the account's owner.",
        runner="conversation",
        channels=(("slack", "#sales-uk"), ("slack", "#sales-dach")),
        a_day=5,
        failing=0.04,
        errors=(("model_timeout", "the model did not answer within 60 s"),),
        story="invoice",
        config=_config(
            max_follow_ups=3, follow_up_interval=240, max_task_retries=3, start_prompt="Renew {{ customer }}."
        ),
        columns=_INVOICE,
    ),
    DemoType(
        key="onboarding-checkin",
        name="Onboarding check-in",
        description="Asks new colleagues how their first weeks go.",
        runner="conversation",
        channels=(("slack", "@leo"), ("slack", "@ana"), ("slack", "@greta")),
        a_day=4,
        story="standup",
        config=_config(max_follow_ups=2, follow_up_interval=240, start_prompt="Ask {{ name }}."),
    ),
    DemoType(
        key="media-transcode",
        name="Media transcode",
        description="Turns an uploaded film into the formats of the player.",
        runner="message",
        channels=(("null", "executor"),),
        a_day=8,
        failing=0.05,
        errors=(("worker_lost", "The executor gpu-2 was not heard of for 60 s"),),
        story="long",
        config=_config(start_prompt="{{ file }}"),
        columns={"max_running": 2},
    ),
    DemoType(
        key="backup-verify",
        name="Backup verify",
        description="Restores the last backup beside the database and compares it.",
        runner="message",
        channels=(("null", "command"),),
        a_day=2,
        story="long",
        config=_config(start_prompt="{{ database }}"),
    ),
)
CHASES: Sequence[tuple[str, str]] = (
    (
        "Hi {first}, {invoice} for {customer} ({amount}) is 12 days over. Have they told you when they pay, or what"
        " holds it up?",
        "They say two pallets were missing on delivery and want 5 % off before they pay. Sounds fair if it is true.",
    ),
    (
        "Hello {first}, could you find out when {customer} will pay {invoice}? It has been open since last month.",
        "They had no purchase order number on it. I sent them the corrected one this morning.",
    ),
    (
        "Good morning {first}. {invoice}, {customer}: {amount} are still open. Shall I send the second reminder?",
        "Please wait until Friday, their accountant is back then.",
    ),
)
FOLLOW_UPS = (
    "Good morning {first}, did you hear from {customer} about {invoice}?",
    "Shall I go ahead with {invoice}, {first}?",
    "A last try, {first}: is there anything new about {customer}?",
)
STANDUPS = (
    ("Hi {first}, what are you working on today, and does anything hold you up?", "Release notes, then the importer."),
    ("Morning {first}! What did you finish yesterday, and what comes next?", "Reviews mostly. Next is the flaky test."),
    ("Hello {first}, how does the week look?", "Good. Waiting for the design of the settings page."),
)
THANKS = ("Thank you, {first}. I have noted it.", "Thanks! That is all I needed.", "Perfect, thank you {first}.")
