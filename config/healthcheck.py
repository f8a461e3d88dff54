"""Health checks for containers: `python -m config.healthcheck PART [URL]`.

`live` checks that the web process at 127.0.0.1:8000 answers. `workers` and `beat` ask the web process at URL whether
that part worked lately. Exit code 0 means healthy. Uses only the standard library, because it runs every few seconds.
"""

import json
import os
import sys
import urllib.error
import urllib.request


def main(part: str, url: str = "http://127.0.0.1:8000") -> int:
    path = "/health/live" if part == "live" else "/health/ready"
    # The service accepts only its own host names; inside the network of containers it has another name.
    names = os.environ.get("AGENT_JOBS_ALLOWED_HOSTS", "").split(",")
    host = next((name.strip().lstrip(".") for name in names if name.strip() not in {"", "*"}), "localhost")
    request = urllib.request.Request(url + path, headers={"Host": host})  # noqa: S310 - from the compose file
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        if part == "live" or error.code != 503:
            return 1
        body = json.load(error)
    except (OSError, ValueError):
        return 1
    return 0 if part == "live" or body.get("checks", {}).get(part, {}).get("ok") else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
