"""The service's settings for processes that tests start. `TEST_LEASE_SECONDS=3` in their environment overrides one."""

import os

from config.settings import *  # noqa: F403

for _name, _type in {
    "LEASE_SECONDS": int,
    "DELIVERY_GRACE_SECONDS": int,
    "SLACK_API_URL": str,
    "STREAMS": int,
    "STREAMS_PER_ORG": int,
    "STREAM_SECONDS": int,
    "WEB_THREADS": int,
}.items():
    if _value := os.environ.get(f"TEST_{_name}"):
        globals()[_name] = _type(_value)
RATE_TOKEN = RATE_ADDRESS = "off"  # all tests together are one address; those about limits state their own
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a real one takes half a second
HEARTBEAT_SECONDS = globals()["LEASE_SECONDS"] / 3
