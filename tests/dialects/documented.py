"""Reads the documents of foreign APIs (`documents/`), and compares answers with their examples."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "documents"
_ENDPOINT = re.compile(r"^(GET|POST|PUT|PATCH|DELETE) (/\S+)$")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass
class Endpoint:
    """One endpoint of a document, with its JSON examples: bodies of requests first, then answers."""

    method: str
    path: str
    examples: list[Any] = field(default_factory=list)

    @property
    def route(self) -> str:
        return self.path.partition("?")[0]


def endpoints(name: str) -> list[Endpoint]:
    """The endpoints of a document, in its order."""
    found: list[Endpoint] = []
    for kind, text in re.findall(r"```(\w*)\n(.*?)```", (FOLDER / name).read_text(), re.DOTALL):
        if not kind and (at := _ENDPOINT.match(text.strip())):
            found.append(Endpoint(at[1], at[2]))
        elif kind == "json" and found:
            found[-1].examples.append(json.loads(_whole(text)))
    return found


def _whole(text: str) -> str:
    """The example as JSON: the documents write `...` for what they leave out."""
    return re.sub(r",?\s*\.\.\.\s*", "", text)


def differences(documented: Any, actual: Any, at: str = "answer") -> list[str]:
    """List the keys and types of the example that the answer lacks. The answer may have more keys."""
    if documented is None:
        return []  # the document shows that there may be nothing
    if isinstance(documented, dict):
        if not isinstance(actual, dict):
            return [f"{at} is no object: {actual!r}"]
        missing = [f"{at}.{key} is missing" for key in documented if key not in actual]
        shared = [key for key in documented if key in actual]
        return missing + [line for key in shared for line in differences(documented[key], actual[key], f"{at}.{key}")]
    if isinstance(documented, list):
        if not isinstance(actual, list) or (documented and not actual):
            return [f"{at} is no list as in the example: {actual!r}"]
        return (
            [line for one in actual[:1] for line in differences(documented[0], one, f"{at}[0]")] if documented else []
        )
    if isinstance(documented, str) and _TIME.fullmatch(documented):
        return [] if isinstance(actual, str) and _TIME.fullmatch(actual) else [f"{at} is no time: {actual!r}"]
    return [] if type(documented) is type(actual) else [f"{at} is {actual!r} and not like {documented!r}"]
