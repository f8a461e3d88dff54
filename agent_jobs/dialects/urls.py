"""Mounts the dialects, and registers their formats of errors with the API."""

from typing import Any

from django.urls import URLPattern, path

from agent_jobs import dialects
from agent_jobs.api import errors
from agent_jobs.dialects.base import Dialect


def patterns(dialect: Dialect, mount: str, **kwargs: Any) -> list[URLPattern]:
    return [path(f"{mount}{route}", view.as_view(**kwargs)) for route, view in dialect.routes]


def all_patterns() -> list[URLPattern]:
    """The addresses of all dialects. Those of ROOT_DIALECT at the root are left out of the OpenAPI document."""
    mounted = [pattern for dialect in dialects.DIALECTS for pattern in patterns(dialect, dialect.mount)]
    rooted = dialects.at_root()
    return [*mounted, *(patterns(rooted, "", schema=None) if rooted else ())]


errors.speak(dialects.envelope_of)
urlpatterns = all_patterns()
