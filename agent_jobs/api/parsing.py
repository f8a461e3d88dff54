"""Strict parsing of JSON bodies, query parameters and their values. Invalid input is a 400 that names the field."""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from agent_jobs.errors import FieldError, Invalid

_T = TypeVar("_T")
MAX_DEPTH = 32
MAX_NUMBER = 2**53
MAX_PARAMETERS = 100
MAX_TEXT = 255


# --- Bodies ----------------------------------------------------------------------------------------------------
class LengthRequired(APIException):
    status_code = 411
    default_detail = "a body needs a Content-Length; chunked transfer is not supported"
    default_code = "length_required"


class BodyTooLarge(APIException):
    status_code = 413
    default_code = "body_too_large"

    def __init__(self, most: int = settings.MAX_BODY_BYTES) -> None:
        super().__init__(f"a body may have at most {most} bytes")


class EncodedBody(APIException):
    status_code = 415
    default_detail = "a body must be sent without a Content-Encoding such as gzip"
    default_code = "unsupported_content_encoding"


def check_transfer(request: Request, *, most: int) -> None:
    """Refuse a body that has no length, is longer than `most` bytes or is encoded: the web process reads a body by its
    length only.
    """
    length = request.META.get("CONTENT_LENGTH") or "0"
    if request.META.get("HTTP_TRANSFER_ENCODING") or not (length.isascii() and length.isdigit()):
        raise LengthRequired
    if len(length) > 12 or int(length) > most:
        raise BodyTooLarge(most)
    coding = request.META.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if coding not in ("", "identity"):
        raise EncodedBody


class StrictJSONParser(BaseParser):
    """An object in UTF-8: at most 32 levels, no duplicate keys, no NaN, NUL or lone surrogates, numbers within 2^53."""

    media_type = "application/json"
    max_bytes = settings.MAX_BODY_BYTES
    replaces_broken_text = False

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        raw = stream.read(self.max_bytes + 1)
        if len(raw) > self.max_bytes:
            raise BodyTooLarge(self.max_bytes)
        body = read_json(raw, replaces_broken_text=self.replaces_broken_text)
        if not isinstance(body, dict):
            raise Invalid(FieldError("body", "invalid", "must be a JSON object"))
        return body


class ReportParser(StrictJSONParser):
    """For the reports of executors: large, and with texts of any program. Lets NUL and lone surrogates pass; the view
    replaces them.
    """

    max_bytes = 16 * 1024 * 1024
    replaces_broken_text = True


def read_json(raw: bytes, *, replaces_broken_text: bool = False) -> Any:
    """Decode a JSON body. Raises ParseError (not JSON) or Invalid (JSON that we refuse).

    With `replaces_broken_text`, broken UTF-8 becomes U+FFFD, and the caller replaces what no text may contain.
    """
    try:
        text = raw.decode("utf-8", "replace" if replaces_broken_text else "strict")
    except UnicodeDecodeError as error:
        raise ParseError(f"the body is not UTF-8: byte {error.start} is invalid", code="invalid_json") from None
    if _depth(text) > MAX_DEPTH:  # before json.loads, which recurses
        raise Invalid(FieldError("body", "too_deep", f"may be nested at most {MAX_DEPTH} levels deep"))
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ParseError(f"the body is not JSON: {error.msg} at {place}", code="invalid_json") from None
    if "\\u" in text and not replaces_broken_text:  # only an escape can contain NUL or half a surrogate pair
        for path, string in _strings(value, ""):
            if complaint := _unstorable(string):
                raise Invalid(FieldError(path or "body", "invalid", complaint))
    return value


_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def _depth(text: str) -> int:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                name = key.encode("utf-8", "replace").decode()[:MAX_TEXT]
                raise Invalid(FieldError(name, "duplicate_key", "appears twice in the same object"))
            seen.add(key)
    return found


def _whole(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_NUMBER:
        raise _out_of_range(text)
    return int(text)


def _fraction(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or abs(number) > MAX_NUMBER:
        raise _out_of_range(text)
    return number


def _constant(text: str) -> Any:
    raise Invalid(FieldError("body", "invalid_json", f"{text} is not a JSON number"))


def _out_of_range(text: str) -> Invalid:
    return Invalid(FieldError("body", "out_of_range", f"the number {text[:24]} is beyond 2^53"))


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_fraction, parse_constant=_constant
)


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every key and every string value, each with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield path, key
            yield from _strings(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{path}.{number}" if path else str(number))


def _unstorable(text: str) -> str:
    if "\x00" in text:
        return "may not contain the character U+0000"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "contains half of a surrogate pair"
    return ""


# --- Values ----------------------------------------------------------------------------------------------------
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
MOMENT_FORM = "must be an RFC 3339 time with an offset, as 2026-01-31T09:00:00Z, or a plain date"
# Times outside these years are mistakes, and arithmetic with them would overflow.
_DAY = timedelta(days=1) - timedelta.resolution
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def moment(text: str) -> datetime:
    """An RFC 3339 time with an offset, or a plain date as its midnight UTC. Raises ValueError."""
    if _DATE.fullmatch(text):
        found = datetime.combine(_calendar(date.fromisoformat, text), time(), UTC)
    elif _MOMENT.fullmatch(text):
        # fromisoformat takes at most six digits of a fraction.
        found = _calendar(datetime.fromisoformat, re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text.upper()))
    elif re.fullmatch(r".*[0-9] [0-9]{2}:[0-9]{2}", text):
        raise ValueError(f"{MOMENT_FORM}; in a query the + of an offset is written %2B")
    else:
        raise ValueError(MOMENT_FORM)
    try:
        if _EARLIEST <= found <= _LATEST:
            return found.astimezone(UTC)
    except OverflowError:
        pass
    raise ValueError("must lie between the years 1970 and 9000")


def until(text: str) -> datetime:
    """A time that is an upper bound. Parsed as by `moment`, but a plain date is the last moment of its day."""
    found = moment(text)
    return found + _DAY if _DATE.fullmatch(text) else found


def _calendar(read: Callable[[str], _T], text: str) -> _T:
    try:
        return read(text)
    except ValueError:
        raise ValueError(f"{text} is not a valid calendar date or time") from None


# --- Query parameters ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter: how it is read (`parse` raises ValueError) and how the documentation describes it."""

    parse: Callable[[str], Any]
    about: str = ""
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    default: Any = None
    may_repeat: bool = False  # takes several values: with commas, or by repeating the parameter


_DIGITS = re.compile(r"0|[1-9][0-9]{0,9}")


def whole(low: int, high: int, *, about: str = "", default: int | None = None) -> Param:
    def parse(text: str) -> int:
        if _DIGITS.fullmatch(text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"must be a whole number from {low} to {high}, in plain digits without leading zeros")

    schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
    if default is not None:
        schema["default"] = default
    return Param(parse, about, schema, default)


def one_of(*words: str, about: str = "", default: str | None = None) -> Param:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return Param(parse, about, {"type": "string", "enum": list(words)}, default)


def words(*known: str, about: str = "") -> Param:
    """Several of the known words, separated by commas. Parses to a frozenset."""

    def parse(text: str) -> frozenset[str]:
        found = frozenset(word.strip() for word in text.split(","))
        if not found <= set(known):
            raise ValueError(f"must be {' or '.join(known)}")
        return found

    return Param(parse, about, {"type": "string", "enum": list(known)}, frozenset())


def text(max_length: int = MAX_TEXT, *, about: str = "") -> Param:
    def parse(value: str) -> str:
        if len(value) > max_length:
            raise ValueError(f"may have at most {max_length} characters")
        return value

    return Param(parse, about, {"type": "string", "maxLength": max_length})


def repeated(param: Param) -> Param:
    """A parameter that may be sent several times."""
    return replace(param, may_repeat=True)


def time_param(about: str = "") -> Param:
    return Param(moment, f"{about} A plain date is its midnight, UTC.", {"type": "string", "format": "date-time"})


def until_param(about: str = "") -> Param:
    return Param(until, f"{about} A plain date is the end of that day, UTC.", {"type": "string", "format": "date-time"})


def day_param(about: str = "") -> Param:
    def parse(text: str) -> date:
        if not _DATE.fullmatch(text):
            raise ValueError("must be a day, as 2026-01-31")
        return _calendar(date.fromisoformat, text)

    return Param(parse, about, {"type": "string", "format": "date"})


def read_uuid(text: str) -> UUID:
    """Accepts the canonical form only: UUID() also takes braces, URNs and bare digits. Raises ValueError."""
    found = UUID(text)
    if str(found) != text.lower():
        raise ValueError("must be an id")
    return found


def id_param(what: str, about: str) -> Param:
    """The id of a job or a message."""

    def parse(text: str) -> UUID:
        try:
            return read_uuid(text)
        except ValueError:
            raise ValueError(f"must be the id of a {what}") from None

    return Param(parse, about, {"type": "string", "format": "uuid"})


def query_pairs(raw: str) -> list[tuple[str, str]]:
    """The parameters as sent, percent-decoded. Raises Invalid if they are too many or not UTF-8."""
    try:
        return parse_qsl(
            raw.encode("latin-1").decode("utf-8"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except UnicodeError:
        raise Invalid(FieldError("query", "invalid", "is not UTF-8")) from None
    except ValueError:
        raise Invalid(FieldError("query", "invalid", f"has over {MAX_PARAMETERS} parameters")) from None


def gather(pairs: list[tuple[str, str]], known: Mapping[str, Param]) -> tuple[dict[str, str], list[FieldError]]:
    """The values of known parameters, and errors for the others: unknown, repeated, empty or unstorable."""
    sent: dict[str, str] = {}
    problems: list[FieldError] = []
    for name, value in pairs:
        shown = _printable(name)
        if name not in known:
            near = difflib.get_close_matches(name[:MAX_TEXT], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(FieldError(shown, "unknown_parameter", f"is not a parameter of this request{hint}"))
        elif not value.strip():
            problems.append(FieldError(shown, "blank", "may not be empty"))
        elif complaint := _unstorable(value):
            problems.append(FieldError(shown, "invalid", complaint))
        elif name in sent and not known[name].may_repeat:
            problems.append(FieldError(shown, "repeated_parameter", "may be sent only once"))
        else:
            sent[name] = f"{sent[name]},{value}" if name in sent else value
    return sent, problems


def read(known: Mapping[str, Param], sent: Mapping[str, str]) -> tuple[dict[str, Any], list[FieldError]]:
    """The values of the parameters that were sent, in the order of `known`, and errors for those that are invalid."""
    values: dict[str, Any] = {}
    problems: list[FieldError] = []
    for name, param in known.items():
        if name in sent:
            try:
                values[name] = param.parse(sent[name])
            except ValueError as error:
                problems.append(FieldError(name, "invalid", str(error)))
    return values, problems


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name[:MAX_TEXT])
