"""Renders prompt templates: Jinja2 in a sandbox, with the job's params as names and as `params`.

Templates are untrusted: anyone with a WRITE token of an organisation can write them. `agent_jobs.sandbox` defines and
limits what a template may do. This module decides where it runs: in this process if it is small, has no loop and reads
small params; else in a child process.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent_jobs.errors import PermanentError
from agent_jobs.sandbox import pool, templates

# Compiling costs some 10 microseconds a token.
_MAX_TOKENS = 300
# The most characters of params, multiplied by the number of times that the template may read all of them.
_MAX_READ = 300_000


def check(template: str) -> str:
    """The error of a template, or '' if it is valid. Raises RetryableError (`busy`) if no sandbox process is free."""
    try:
        if _small(template) is None:
            return str(pool.run("check", template=template))
    except (templates.TemplateFault, pool.TooComplexError) as error:
        return str(error)
    return ""


def render(template: str, params: Mapping[str, Any]) -> str:
    """The text of a prompt.

    Raises PermanentError (`prompt_invalid` with the missing name or the error; `prompt_too_complex`) and RetryableError
    (`busy`) if no sandbox process becomes free.
    """
    try:
        small = _small(template)
        if small and not small.has_loop:
            size = len(json.dumps(params)) if small.reads else 0
            if size * small.reads <= _MAX_READ:
                return templates.render(small, params)
        answer = pool.run("render", template=template, params=json.dumps(params))
        if "fault" in answer:
            raise templates.TemplateFault(answer["fault"])
        return str(answer["text"])
    except templates.TemplateFault as fault:
        raise PermanentError(f"start_prompt: {fault}", code="prompt_invalid") from None
    except pool.TooComplexError as error:
        raise PermanentError(f"start_prompt: {error}", code="prompt_too_complex") from None


@lru_cache(maxsize=250)
def _small(template: str) -> templates.Compiled | None:
    """The compiled template, or None if it is so large that the child process compiles it. Raises TemplateFault."""
    if templates.token_count(template, most=_MAX_TOKENS) >= _MAX_TOKENS:
        return None
    return templates.compiled(template)
