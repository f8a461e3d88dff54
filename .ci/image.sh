#!/bin/sh
# Builds the image and starts it, without a container engine: buildah under chroot isolation, on a stand-in for the base
# image that debootstrap makes (Debian 12 with its Python 3.11, under the same name). Needs root, about 1 GB and three
# minutes; without root or buildah it says so and does nothing. Compose itself is not run: that needs an engine.
#
#   .ci/image.sh [WORK_FOLDER]     the folder is kept, so that a second run is faster; by default a new one, removed
set -eu
cd "$(dirname "$0")/.."

for tool in buildah debootstrap; do
    if ! command -v "$tool" >/dev/null; then
        echo "image: $tool is not installed, so the image is not built (apt-get install buildah crun debootstrap)"
        exit 0
    fi
done
if [ "$(id -u)" != 0 ]; then
    echo "image: building needs root here, so the image is not built"
    exit 0
fi

base=docker.io/library/python:3.11-slim-bookworm
image=localhost/agent-jobs:ci
port=${PORT:-8077}
if [ $# -gt 0 ]; then
    work=$1
    is_kept=1
    mkdir -p "$work"
else
    is_kept=0
    work=$(mktemp -d /var/tmp/agent-jobs-image.XXXXXX)
fi
work=$(cd "$work" && pwd)
data=$(mktemp -d /tmp/aj-image.XXXXXX)
stack_pid=""
web_pid=""

b() {
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

finish() {
    [ -z "$web_pid" ] || kill "$(cat "$data/image/pid")" 2>/dev/null || :
    [ -z "$stack_pid" ] || kill "$stack_pid" 2>/dev/null || :
    wait || :
    rm -rf "$data"
    [ $is_kept = 1 ] || rm -rf "$work"
}
trap finish EXIT

if ! b inspect --type image "$base" >/dev/null 2>&1; then
    echo "image: making a stand-in for $base"
    # The mirror that this machine itself uses.
    mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' \
        /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1 | cut -d ' ' -f 1)
    [ -d "$work/rootfs/usr/bin" ] || debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
        bookworm "$work/rootfs" $mirror >"$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log"; exit 1; }
    container=$(b from scratch)
    mounted=$(b mount "$container")
    cp -a "$work/rootfs/." "$mounted/"
    ln -sf /usr/bin/python3 "$mounted/usr/local/bin/python"
    b umount "$container" >/dev/null
    b commit -q "$container" "$base" >/dev/null
    b rm "$container" >/dev/null
fi

echo "image: building"
# A machine behind a private certificate authority or a package mirror hands both on to pip.
mounts="-v /etc/ssl/certs:/etc/ssl/certs:ro"
[ ! -f /etc/pip.conf ] || mounts="$mounts -v /etc/pip.conf:/etc/pip.conf:ro"
# shellcheck disable=SC2086 # several options
b build --isolation chroot --pull=never --format docker $mounts -t "$image" . >"$work/build.log" 2>&1 ||
    { tail -n 40 "$work/build.log"; exit 1; }
b inspect --type image "$image" | python3 -c '
import json, sys
config = json.load(sys.stdin)["Docker"]["config"]
assert config["User"] == "10001:10001", config["User"]
assert config["Healthcheck"]["Test"][0] == "CMD", config["Healthcheck"]
print("image: built; user", config["User"], "health check", " ".join(config["Healthcheck"]["Test"]))
'

echo "image: starting it against a PostgreSQL and a Redis of this machine"
chmod 755 "$data"
python3 manage.py up --no-demo --port 0 --data-dir "$data" >"$work/up.log" 2>&1 &
stack_pid=$!
python3 - "$data" <<'PYTHON'
import json, sys, threading, urllib.request
from pathlib import Path

pause = threading.Event()
for _ in range(600):
    try:
        stack = json.loads((Path(sys.argv[1]) / "stack.json").read_text())
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(stack["web_url"] + "/health/ready", timeout=5)
        break
    except (OSError, ValueError):
        pause.wait(0.2)
else:
    sys.exit("image: the servers to run it against did not start")
lines = [f"{name}={value}" for name, value in stack["environment"].items()]
Path(sys.argv[1], "environment").write_text("\n".join(lines) + "\n")
PYTHON
chmod 755 "$data/sockets" && chmod 777 "$data/sockets/.s.PGSQL.5432" # the image's account is another one
container=$(b from --pull=never "$image")
set -- $(sed 's/^/--env /' "$data/environment")
echo "image: manage.py migrate --check: $(b run --isolation chroot -v "$data:$data" "$@" "$container" -- \
    sh -c 'id -u; python manage.py migrate --check && echo applied' | tr '\n' ' ')"
# Ended by its own pid file: buildah, when told to stop, kills what it started and leaves that one's children behind.
mkdir -m 777 "$data/image"
b run --isolation chroot -v "$data:$data" "$@" "$container" -- \
    sh -c 'echo $$ >"$1/image/pid"; exec python -m config.serve --port "$2"' web "$data" "$port" >"$work/web.log" 2>&1 &
web_pid=$!
python3 - "$port" <<'PYTHON'
import sys, threading, urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
pause = threading.Event()
for _ in range(100):
    try:
        for path in ("/health/live", "/health/ready", "/docs", "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css"):
            with opener.open(f"http://127.0.0.1:{sys.argv[1]}{path}", timeout=5) as answer:
                print("image:", path, answer.status)
        sys.exit(0)
    except OSError:
        pause.wait(0.2)
sys.exit("image: the web process of the image did not answer")
PYTHON
echo "image: built and started under chroot isolation on a stand-in base; docker compose up was not run"
