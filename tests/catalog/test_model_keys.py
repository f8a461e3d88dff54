"""An organisation's model key goes to its own host only, and the operator's key to no other host than its own."""

from typing import Any

import pytest

from agent_jobs import llm
from agent_jobs.catalog import model_keys
from agent_jobs.errors import Invalid, PermanentError
from agent_jobs.models import AuditEntry, ModelKey, Profile
from agent_jobs.specs import Actor
from tests import rows

pytestmark = pytest.mark.django_db
ADMIN = Actor("token", "ajt_live_admin")
OURS = "https://models.acme.example/v1"


@pytest.fixture(autouse=True)
def operator(settings: Any) -> Any:
    """The operator has a key for OpenAI; nobody's address is looked up."""
    rows.org("acme")
    rows.org("rival")
    settings.MODEL_KEYS = {"openai": "sk-operator", "anthropic": "", "google": ""}
    settings.MODEL_ADDRESSES = {"openai": ""}
    return settings


def profile(**columns: Any) -> Profile:
    return Profile(org_id="acme", key="p", name="p", **columns)


def put(provider: str = "openai", key: str = "sk-acme", **fields: Any) -> ModelKey:
    return model_keys.put_key("acme", provider, key=key, actor=ADMIN, **fields)


def complaints(**columns: Any) -> dict[str, str]:
    return {error.field: error.message for error in model_keys.profile_errors(profile(**columns))}


def refusal_of(**columns: Any) -> PermanentError:
    with pytest.raises(PermanentError) as failure:
        model_keys.resolve("acme", profile(**columns))
    return failure.value


# --- Keys ------------------------------------------------------------------------------------------------------
def test_a_key_is_kept_sealed_and_told_in_the_audit_without_itself() -> None:
    put(base_url=OURS)
    put(key="sk-second")
    kept = ModelKey.objects.get()
    assert "sk-" not in kept.sealed_key
    assert kept.base_url == ""  # each time the whole
    told = list(AuditEntry.objects.filter(object_type="model_key").order_by("id").values_list("action", "after"))
    assert told == [
        ("model_key.created", {"key": "******", "base_url": OURS, "is_new_key": True}),
        ("model_key.updated", {"key": "******", "base_url": "", "is_new_key": True}),
    ]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"key": "two words"}, "key"),
        ({"key": "line\r\nX-Other: 1"}, "key"),
        ({"key": "ключ"}, "key"),
        ({"key": "k" * 501}, "key"),
        ({"base_url": "https://u:p@models.example/v1"}, "base_url"),
        ({"base_url": "https://models.example/v1?x=1"}, "base_url"),
        ({"base_url": "ftp://models.example/v1"}, "base_url"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused(fields: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        put(**fields)
    assert [error.field for error in refusal.value.errors] == [field]
    assert not ModelKey.objects.exists()


@pytest.mark.parametrize("base_url", ["http://models.example/v1", "https://10.0.0.1/v1", "https://localhost/v1"])
def test_a_key_for_a_place_inside_is_refused(base_url: str, settings: Any) -> None:
    settings.ALLOW_PRIVATE_ADDRESSES = False
    with pytest.raises(Invalid) as refusal:
        put(base_url=base_url)
    assert [error.field for error in refusal.value.errors] == ["base_url"]


@pytest.mark.parametrize(
    "base_url",
    [
        "http://host:8290.evil/",
        "http://127.0.0.1:8290.evil/",
        "http://host:99999/",
        "http://[::1/",
        "https://a b/",
        "x",
    ],
)
def test_an_address_that_is_none_is_refused_and_no_fault_of_ours(base_url: str) -> None:
    put(base_url=OURS)
    errors = model_keys.profile_errors(profile(model="openai:gpt-x", base_url=base_url))

    assert [error.field for error in errors] == ["base_url"]
    with pytest.raises(Invalid):
        put(base_url=base_url)


def test_no_name_is_looked_up_for_a_key_or_a_profile(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ALLOW_PRIVATE_ADDRESSES = False
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: pytest.fail("a name is looked up"))
    put(base_url="https://slow.example/v1")

    assert not model_keys.profile_errors(profile(model="openai:gpt-x", base_url="https://slow.example/v1"))


# --- What a profile may say ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ({"model": "scripted"}, set()),
        ({"model": "openai:gpt-x"}, set()),
        ({"model": "gpt-x"}, {"model"}),
        ({"model": "nobody:x"}, {"model"}),
        ({"model": "anthropic:claude-x"}, {"model"}),
        ({"model": "scripted", "base_url": OURS}, {"base_url"}),
        ({"model": "openai:gpt-x", "base_url": OURS}, {"base_url"}),
        ({"model": "openai:gpt-x", "base_url": "https://api.openai.com/v1"}, {"base_url"}),
        ({"model": "openai:gpt-x", "fallback_model": "openai:gpt-y"}, set()),
        ({"model": "openai:gpt-x", "fallback_model": "openai:gpt-x"}, {"fallback_model"}),
        ({"model": "openai:gpt-x", "fallback_model": "scripted"}, {"fallback_model"}),
        ({"model": "openai:gpt-x", "fallback_model": "anthropic:claude-x"}, {"fallback_model"}),
        ({"model": "scripted", "fallback_model": "openai:gpt-x"}, {"fallback_model"}),
        ({"model": "openai:gpt-x", "fallback_model": "?"}, {"fallback_model"}),
        (
            {"model": "google:g", "base_url": OURS, "fallback_model": "google:h"},
            {"model", "base_url", "fallback_model"},
        ),
    ],
)
def test_models_that_cannot_be_reached_are_refused_by_field(columns: dict[str, str], fields: set[str]) -> None:
    assert set(complaints(**columns)) == fields


def test_a_missing_key_is_told_by_the_providers_name() -> None:
    assert complaints(model="anthropic:claude-x") == {
        "model": "there is no key for anthropic: neither the organization nor the operator has one"
    }


def test_the_operators_key_goes_to_no_address_of_an_organisations() -> None:
    assert "the operator's goes to no address but openai's" in complaints(model="openai:x", base_url=OURS)["base_url"]
    error = refusal_of(model="openai:x", base_url=OURS)
    assert (error.code, "base_url" in error.message) == ("model_key_missing", True)


@pytest.mark.parametrize(
    ("key_at", "base_url", "is_fine"),
    [
        (OURS, OURS, True),
        (OURS, "https://models.acme.example/other/v2", True),
        (OURS, "https://models.acme.example:443/v1", True),
        (OURS, "https://MODELS.acme.example/v1", True),
        (OURS, "https://models.acme.example:8443/v1", False),
        (OURS, "http://models.acme.example/v1", False),
        (OURS, "https://thief.example/v1", False),
        (OURS, "https://models.acme.example.thief.example/v1", False),
        ("", "https://thief.example/v1", False),
        ("", "https://api.openai.com/v1", True),
    ],
)
def test_a_profile_sends_a_key_only_to_the_host_that_it_is_for(key_at: str, base_url: str, is_fine: bool) -> None:
    """Else whoever writes profiles could have a key that they may not see sent to a place of theirs."""
    put(base_url=key_at)
    columns = {"model": "openai:x", "base_url": base_url}
    assert (complaints(**columns) == {}) is is_fine
    if is_fine:
        assert model_keys.resolve("acme", profile(**columns))[0].access.base_url == base_url
    else:
        assert refusal_of(**columns).code == "model_address_refused"


# --- How a model is reached ------------------------------------------------------------------------------------
def test_without_a_profile_the_scripted_model_answers() -> None:
    assert model_keys.resolve("acme", None) == (llm.Route("scripted"),)
    assert model_keys.resolve("acme", profile()) == (llm.Route("scripted"),)


def test_the_organisations_own_key_goes_before_the_operators() -> None:
    assert model_keys.resolve("acme", profile(model="openai:x"))[0].access.api_key == "sk-operator"
    put(base_url=OURS)
    (route,) = model_keys.resolve("acme", profile(model="openai:x"))
    assert (route.model, route.access.api_key, route.access.base_url) == ("openai:x", "sk-acme", OURS)


def test_the_strangers_key_is_never_used() -> None:
    model_keys.put_key("rival", "anthropic", key="sk-rival", actor=ADMIN)
    assert refusal_of(model="anthropic:x").code == "model_key_missing"
    rivals = ModelKey.objects.get(org_id="rival")
    ModelKey.objects.create(org_id="acme", provider="anthropic", sealed_key=rivals.sealed_key)
    error = refusal_of(model="anthropic:x")
    assert (error.code, "sk-rival" in error.message) == ("model_key_unreadable", False)


def test_the_operators_own_address_is_reached_wherever_it_is(operator: Any) -> None:
    operator.ALLOW_PRIVATE_ADDRESSES = False
    operator.MODEL_ADDRESSES = {"openai": "http://10.0.0.7:8000/v1"}
    access = model_keys.resolve("acme", profile(model="openai:x"))[0].access
    assert (access.base_url, access.allow_private) == ("http://10.0.0.7:8000/v1", True)
    put(base_url=OURS)
    access = model_keys.resolve("acme", profile(model="openai:x"))[0].access
    assert (access.base_url, access.allow_private) == (OURS, False)


def test_bounds_of_the_profile_count_for_its_fallback_too() -> None:
    put("anthropic", "sk-ant")
    routes = model_keys.resolve(
        "acme",
        profile(model="openai:x", fallback_model="anthropic:y", timeout_seconds=7, max_output_tokens=99),
    )
    assert [(route.model, route.access.api_key) for route in routes] == [
        ("openai:x", "sk-operator"),
        ("anthropic:y", "sk-ant"),
    ]
    assert {(route.access.timeout_seconds, route.access.max_output_tokens) for route in routes} == {(7, 99)}


def test_a_fallback_whose_key_went_away_keeps_nobody_from_the_model() -> None:
    routes = model_keys.resolve("acme", profile(model="openai:x", fallback_model="anthropic:y"))
    first, fallback = routes
    assert (first.model, first.access.api_key, first.unreachable) == ("openai:x", "sk-operator", "")
    assert (fallback.model, fallback.access.api_key) == ("anthropic:y", "")
    assert fallback.unreachable == "there is no key for anthropic: neither the organization nor the operator has one"


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"name"}, set()),
        ({"model"}, {"model", "base_url", "fallback_model"}),
        ({"base_url"}, {"base_url"}),
        ({"fallback_model"}, {"fallback_model"}),
        ({"name", "base_url", "fallback_model"}, {"base_url", "fallback_model"}),
    ],
)
def test_a_key_that_went_away_is_held_only_against_changes_that_hang_on_it(changed: set[str], fields: set[str]) -> None:
    kept = profile(model="google:x", base_url=OURS, fallback_model="anthropic:y")
    assert {error.field for error in model_keys.profile_errors(kept, changed)} == fields


def test_a_key_that_went_away_ends_it_in_a_sentence() -> None:
    put("anthropic")
    model_keys.remove_key("acme", "anthropic", actor=ADMIN)
    error = refusal_of(model="anthropic:x")
    assert (error.code, error.message) == (
        "model_key_missing",
        "there is no key for anthropic: neither the organization nor the operator has one",
    )
