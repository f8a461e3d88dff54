"""A JSON column that keeps the order of keys, which `jsonb` would change.

PostgreSQL's `json` has no equality and no operators but `->` and `->>`: to search by a key, take it out as text (`KT`).
"""

from typing import Any

from django.db import models
from psycopg.types.json import Json, Jsonb


class OrderedJSONField(models.JSONField):
    def db_type(self, connection: Any) -> str:
        return "json"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        prepared_value = super().get_db_prep_value(value, connection, prepared)
        if isinstance(prepared_value, Jsonb):
            return Json(prepared_value.obj, dumps=prepared_value.dumps)
        return prepared_value

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value  # psycopg has read it
