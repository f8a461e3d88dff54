"""Prompt templates: Jinja2 in a sandbox, with the job's params as names and as `params`.

Whoever holds a WRITE token of an organisation writes them. `agent_jobs.sandbox` says what a template may do and bounds
it; here is decided which template runs in this process: a small one without loops, on small params.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent_jobs.errors import PermanentError
from agent_jobs.sandbox import pool, templates

# Compiling costs some 10 microseconds a token.
_MAX_TOKENS = 300
# Characters of params, times how often the template may read all of them.
_MAX_READ = 300_000


def check(template: str) -> str:
    """What is wrong with a template as such; '' where nothing is. Raises RetryableError (`busy`)."""
    try:
        if _small(template) is None:
            return str(pool.run("check", template=template))
    except (templates.TemplateFault, pool.TooComplexError) as error:
        return str(error)
    return ""


def render(template: str, params: Mapping[str, Any]) -> str:
    """The text of a prompt. Raises PermanentError: `prompt_invalid`, which name is missing, or what went wrong, and
    `prompt_too_complex`; and RetryableError (`busy`)."""
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
    """The compiled template, None where compiling it is for the child. Raises TemplateFault."""
    if templates.token_count(template, most=_MAX_TOKENS) >= _MAX_TOKENS:
        return None
    return templates.compiled(template)
