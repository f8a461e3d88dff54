"""The work of a webhook job: its shape, its limits, and where its secrets are.

    {"url": "https://example.com/{{ path }}", "method": "POST", "headers": {"X-Team": "a"},
     "body": {"name": "{{ name }}"}, "auth": {"type": "bearer", "token": "…"}, "success_codes": [200, 202],
     "sign_with": "whsec_…", "header_prefix": "X-Chronos"}

Texts of the body, of headers that hold no secret, and the part of the address behind its host are templates, unless
`verbatim` is true.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from agent_jobs import rules
from agent_jobs.errors import FieldError, PermanentError
from agent_jobs.rules import Rule
from agent_jobs.runners import prompts
from agent_jobs.work import Path, WorkRules
from infra.egress import addresses

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
DEFAULT_PREFIX = "X-Agent-Jobs"
DEFAULT_API_KEY_HEADER = "X-API-Key"
MAX_BODY_BYTES = 256 * 1024
LONGEST_ATTEMPT_SECONDS = 300.0
_MAX_HEADERS = 50
_MAX_HEADER_BYTES = 16 * 1024
_MAX_TEMPLATES = 20
_MAX_TEMPLATE_CHARACTERS = 20_000
_MAX_CREDENTIAL = 4_096
_LEAST_SIGNING_CHARACTERS = 16
KEYS = ("url", "method", "headers", "body", "auth", "success_codes", "sign_with", "header_prefix", "verbatim")
_AUTH_KEYS = {"basic": ("username", "password"), "bearer": ("token",), "api_key": ("key", "header")}
_AUTH_SECRETS = {"basic": "password", "bearer": "token", "api_key": "key"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_UNFIT_VALUE = re.compile(r"[^\t\x20-\x7e]")
_SECRET_HEADER = re.compile(r"auth|cookie|secret|token|passw|api-?key|credential|session", re.IGNORECASE)
# The connection sets these itself, or they would let a request pass for two.
_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
    | {"accept-encoding", "proxy-authorization", "proxy-connection", "webhook-id", "webhook-timestamp"}
    | {"webhook-signature"}
)
# Any address at all: the settings say which ones are allowed, and `destinations` tells them what to judge.
_ANY = addresses.Rules(allow_private=True)
_TEMPLATE_MARKS = ("{{", "{%", "{#")


def is_template(text: str) -> bool:
    return any(mark in text for mark in _TEMPLATE_MARKS)


def is_secret_header(name: str) -> bool:
    """Whether the values of this header are secrets, by its name."""
    return bool(_SECRET_HEADER.search(name))


def value_complaint(value: str) -> str:
    """Why this cannot be a header's value; "" if it can."""
    if _UNFIT_VALUE.search(value) or value != value.strip():
        return "must be printable ASCII without line breaks, and without spaces at its ends"
    return ""


def signing_key(secret: str) -> bytes:
    """The key of a Standard Webhooks signature: any text as it is, or `whsec_` and base64 (else ValueError)."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    encoded = secret.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


# --- Checks ----------------------------------------------------------------------------------------------------
def _check(work: Mapping[str, Any], params: Mapping[str, Any] | None) -> list[FieldError]:
    errors = [
        FieldError(f"work.{key}", "unknown_field", f"is not a key of a webhook's work; the keys are {', '.join(KEYS)}")
        for key in work
        if key not in KEYS
    ]
    if "url" not in work:
        errors.append(FieldError("work.url", "required", "is missing: the address that is called"))
    for key in filter(work.__contains__, KEYS):
        if key in _CHECKS:
            errors += _CHECKS[key](work[key])
        elif complaint := _RULES[key](work[key]):
            errors.append(FieldError(f"work.{key}", "invalid", complaint))
    return errors or list(_template_errors(work, params))


def _url(url: Any) -> str:
    if not isinstance(url, str):
        return "must be a text"
    if is_template(url) and not _fixed_part(url):
        return "must name its host before the first placeholder: https://host/{{ … }}"
    return addresses.refusal_of_shape(_fixed_part(url) or url, _ANY) or ""


def _fixed_part(url: str) -> str:
    """The text before the first placeholder of an address if it has scheme and host; "" otherwise."""
    begin = min((place for mark in _TEMPLATE_MARKS if (place := url.find(mark)) >= 0), default=len(url))
    fixed = url[:begin]
    is_whole = begin == len(url) or re.match(r"https?://[^/?#]+[/?]", fixed)
    return fixed if is_whole else ""


def origin(url: str) -> str:
    """Scheme, host and port, which placeholders may not change."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def fixed_origin(url: str) -> str:
    return origin(_fixed_part(url))


def _headers_errors(headers: Any) -> Iterator[FieldError]:
    if not isinstance(headers, Mapping):
        yield FieldError("work.headers", "invalid", "must be an object of names and texts")
        return
    if len(headers) > _MAX_HEADERS:
        yield FieldError(
            "work.headers", "too_many", f"has {len(headers):,} headers; at most {_MAX_HEADERS} are allowed"
        )
        return
    seen: set[str] = set()
    for name, value in headers.items():
        field = f"work.headers.{name[:128]}"
        if complaint := _name_complaint(name):
            yield FieldError(field, "invalid", complaint)
        elif name.lower() in seen:
            yield FieldError(field, "invalid", "is there twice, in another case")
        elif not isinstance(value, str):
            yield FieldError(field, "invalid", "must be a text")
        elif complaint := value_complaint(value):
            yield FieldError(field, "invalid", complaint)
        seen.add(name.lower())
    size = sum(len(name) + len(value) for name, value in headers.items() if isinstance(value, str))
    if size > _MAX_HEADER_BYTES:
        yield FieldError("work.headers", "too_large", f"has {size:,} characters; at most {_MAX_HEADER_BYTES:,} fit")


def _name_complaint(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        return "is no name of a header"
    return "is set by the service and cannot be given" if name.lower() in _OURS else ""


def _body_errors(body: Any) -> Iterator[FieldError]:
    if not isinstance(body, str | Mapping | list):
        yield FieldError("work.body", "invalid", "must be a text, an object or a list")
        return
    size = len((body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).encode("utf-8", "replace"))
    if size > MAX_BODY_BYTES:
        yield FieldError("work.body", "too_large", f"has {size:,} bytes; at most {MAX_BODY_BYTES:,} are allowed")


def _auth_errors(auth: Any) -> Iterator[FieldError]:
    kind = auth.get("type") if isinstance(auth, Mapping) else None
    if not isinstance(auth, Mapping) or not isinstance(kind, str) or kind not in _AUTH_KEYS:
        yield FieldError("work.auth.type", "invalid", f"must be one of {', '.join(_AUTH_KEYS)}")
        return
    for key in auth:
        if key not in ("type", *_AUTH_KEYS[kind]):
            message = f"is no key of {kind} auth; the keys are type, {', '.join(_AUTH_KEYS[kind])}"
            yield FieldError(f"work.auth.{key}", "unknown_field", message)
    for key in _AUTH_KEYS[kind]:
        yield from _credential_errors(kind, key, auth.get(key))


def _credential_errors(kind: str, key: str, value: Any) -> Iterator[FieldError]:
    field = f"work.auth.{key}"
    if value is None and key != "header":
        yield FieldError(field, "required", f"is missing: {kind} auth needs it")
    elif value is None:
        return
    elif (
        not isinstance(value, str)
        or len(value) > _MAX_CREDENTIAL
        or (not value and key not in ("username", "password"))
    ):
        yield FieldError(field, "invalid", f"must be a text of at most {_MAX_CREDENTIAL:,} characters")
    elif key == "header":
        if complaint := _name_complaint(value):
            yield FieldError(field, "invalid", complaint)
    elif kind == "basic":
        if re.search(r"[\x00-\x1f\x7f]", value) or (key == "username" and ":" in value):
            yield FieldError(field, "invalid", "must have no control characters, and a user name no colon")
    elif complaint := value_complaint(value):
        yield FieldError(field, "invalid", complaint)


def _codes(codes: Any) -> str:
    are_fit = isinstance(codes, list) and 0 < len(codes) <= 100 and not any(map(rules.whole(200, 599), codes))
    return "" if are_fit else "must be a list of 1 to 100 status codes from 200 to 599"


def _signing_secret(secret: Any) -> str:
    if not isinstance(secret, str) or not _LEAST_SIGNING_CHARACTERS <= len(secret) <= _MAX_CREDENTIAL:
        return f"must be a text of {_LEAST_SIGNING_CHARACTERS} to {_MAX_CREDENTIAL:,} characters"
    try:
        is_fit = bool(signing_key(secret))
    except (ValueError, binascii.Error):
        is_fit = False
    return "" if is_fit else "must have base64 after whsec_"


def _prefix(prefix: Any) -> str:
    if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", prefix) or prefix.endswith("-"):
        return "must be a name of letters, digits and dashes, as X-Chronos"
    return ""


_RULES: Mapping[str, Rule] = {
    "url": _url,
    "method": rules.one_of(*METHODS),
    "success_codes": _codes,
    "sign_with": _signing_secret,
    "header_prefix": _prefix,
    "verbatim": rules.flag,
}
_CHECKS: Mapping[str, Callable[[Any], Iterable[FieldError]]] = {
    "headers": _headers_errors,
    "body": _body_errors,
    "auth": _auth_errors,
}


# --- Templates -------------------------------------------------------------------------------------------------
def templates(work: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts with placeholders, each with its field: `("work.body.name", "{{ name }}")`."""
    if work.get("verbatim"):
        return
    for field, text in _texts(work):
        if is_template(text):
            yield field, text


def _texts(work: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "work.url", work.get("url", "")
    for name, value in work.get("headers", {}).items():
        if not is_secret_header(name):
            yield f"work.headers.{name}", value
    yield from _leaves("work.body", work.get("body", ""))


def _leaves(field: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{field}.{key}", inner)
    elif isinstance(value, Sequence):
        for number, inner in enumerate(value):
            yield from _leaves(f"{field}.{number}", inner)


def _template_errors(work: Mapping[str, Any], params: Mapping[str, Any] | None) -> Iterator[FieldError]:
    found = list(templates(work))
    size = sum(len(text) for _, text in found)
    if len(found) > _MAX_TEMPLATES or size > _MAX_TEMPLATE_CHARACTERS:
        limits = f"{_MAX_TEMPLATES} texts with placeholders, of {_MAX_TEMPLATE_CHARACTERS:,} characters in all"
        yield FieldError("work", "too_complex", f"has {len(found):,} of {size:,} characters; allowed are {limits}")
        return
    for field, text in found:
        if complaint := prompts.check(text):
            yield FieldError(field, "invalid", complaint)
        elif params is not None:
            try:
                prompts.render(text, params)
            except PermanentError as error:
                yield FieldError(field, "invalid", error.message.removeprefix("start_prompt: "))


# --- Secrets and destinations ----------------------------------------------------------------------------------
def _secret_paths(work: Mapping[str, Any]) -> Iterator[Path]:
    auth, headers = work.get("auth"), work.get("headers")
    if isinstance(auth, Mapping) and (key := _AUTH_SECRETS.get(str(auth.get("type")))) and key in auth:
        yield ("auth", key)
    if "sign_with" in work:
        yield ("sign_with",)
    if isinstance(headers, Mapping):
        yield from (("headers", name) for name in headers if is_secret_header(name))


def _destinations(work: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(url := work.get("url"), str):
        yield "work.url", _fixed_part(url) or url


def _recipient(work: Mapping[str, Any]) -> str:
    url = work.get("url")
    return fixed_origin(url) if isinstance(url, str) else ""


RULES = WorkRules(
    check=_check,
    secret_paths=_secret_paths,
    recipient=_recipient,
    destinations=_destinations,
    longest_attempt_seconds=LONGEST_ATTEMPT_SECONDS,
)
