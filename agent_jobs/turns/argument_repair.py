"""Repairs arguments and results of a model that miss their JSON schema, where the meaning is plain.

Many models fill in every optional field with null, or write an object or a list as JSON text. Dropping the field or
parsing the text makes such a value fit, and saves another call of the model.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from agent_jobs.llm import answer_parsing
from agent_jobs.sandbox import json_schema
from infra.storable_text import storable

_ROOT = "value"
_ROUNDS = 4


def fitted(schema: Mapping[str, Any], value: Any) -> Any:
    """The repaired value, or `value` itself if the repairs do not make it fit. Repairs fields of a wrong type only:

    a null field is removed; a text that is the JSON of an object or a list is parsed.
    """
    mended = copy.deepcopy(value)
    for _ in range(_ROUNDS):
        errors = json_schema.params_errors(schema, mended, at=_ROOT)
        if not errors:
            return mended
        box: dict[str, Any] = {_ROOT: mended}
        count = sum(_mended_at(box, error.field.split(".")) for error in errors)
        if not count:
            return value
        mended = box[_ROOT]
    return value if json_schema.params_errors(schema, mended, at=_ROOT) else mended


def _mended_at(box: Any, path: list[str]) -> bool:
    *parents, last = path
    for name in parents:
        box = _inside(box, name)
    if isinstance(box, list) and last.isdigit() and int(last) < len(box):
        return _read(box, int(last))
    if not isinstance(box, dict) or last not in box:
        return False
    if box[last] is None and parents:
        del box[last]
        return True
    return _read(box, last)


def _inside(box: Any, name: str) -> Any:
    if isinstance(box, dict):
        return box.get(name)
    if isinstance(box, list) and name.isdigit() and int(name) < len(box):
        return box[int(name)]
    return None


def _read(box: Any, at: Any) -> bool:
    text = box[at]
    if not isinstance(text, str) or text.strip()[:1] not in ("{", "["):
        return False
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    if answer_parsing.unfit(value):
        return False
    box[at] = storable(value)
    return True
