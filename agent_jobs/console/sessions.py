"""Browser sessions end after half an hour without a request (settings.SESSION_COOKIE_AGE), and at the latest eight
hours after the login (SESSION_LONGEST_SECONDS).

Extends Django's database sessions (settings.SESSION_ENGINE) and keeps the two times in the session itself.
"""

import time
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends import db

_BEGAN, _SEEN = "_began_at", "_seen_at"
_TOUCH_SECONDS = 60  # at most one write a minute for each session


class SessionStore(db.SessionStore):
    def load(self) -> dict[str, Any]:
        stored: dict[str, Any] = super().load()
        if not stored:
            return stored
        now = time.time()
        if now - stored.get(_BEGAN, 0) > settings.SESSION_LONGEST_SECONDS:
            self.delete()
            self._session_key = None
            return {}
        if now - stored.get(_SEEN, 0) > _TOUCH_SECONDS:
            stored[_SEEN] = now
            self.modified = True  # saving it extends it by another half an hour
        return stored

    def save(self, must_create: bool = False) -> None:
        session = self._get_session(no_load=must_create)  # type: ignore[attr-defined]
        session.setdefault(_BEGAN, time.time())
        session.setdefault(_SEEN, time.time())
        super().save(must_create)

    def cycle_key(self) -> None:
        """Django calls this at a login: the eight hours begin again."""
        super().cycle_key()
        self[_BEGAN] = time.time()
