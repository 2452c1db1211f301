"""Emulated hosts: several machines on one, joined by links of a limited rate.

A cluster is one process, the head, in namespaces of its own. It holds a bridge, the switch. Each host
is a process below it, again in namespaces of its own: a network with one interface `eth0` to the
switch, a hostname, process numbers, and a private /dev/shm and temporary folder, so that hosts
share neither memory nor sight of each other's processes. Token buckets at both ends of each link limit
its rate in both directions.

Nothing of this has a name outside: when the head dies, by whatever signal, the kernel takes with
it all processes, interfaces and mounts. All that may be left is a folder with a file that says which
process the head was; it is removed by the next `down`.

It needs Linux with iproute2 and util-linux, and either root or the permission to make user
namespaces.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ronde.cli import launch

_FOLDER = Path(__file__).resolve().parent
_AGENT = _FOLDER / "agent.sh"
_TOOLS = ("ip", "tc", "unshare", "nsenter", "setpriv", "mount", "hostname")
_NAMESPACES = ("--net", "--uts", "--ipc", "--mount")
_BOUND = ("setpriv", "--pdeathsig")
UNLIMITED = "unlimited"  # no rate is set: as fast as the machine is
_UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_START_SECONDS = 20.0
_HEAD = "10.77.0.254"


class Unavailable(Exception):
    """Hosts cannot be emulated here; the text says why."""


def bytes_per_second(rate: str) -> float:
    """Of a rate as tc writes it, `10mbit` or `1gbit`; infinite for `unlimited`. Raises `ValueError` for
    anything else."""
    if rate == UNLIMITED:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(kbit|mbit|gbit)", rate)
    if not match or float(match[1]) <= 0:
        raise ValueError(f"a rate is written like 100mbit or 1gbit, or {UNLIMITED}, not {rate!r}")
    return float(match[1]) * _UNITS[match[2]] / 8


@dataclass(frozen=True)
class Cluster:
    """Hosts that are up."""

    name: str
    pid: int  # of the head, as seen from here
    started: str  # when, as the kernel counts: a later process may have the same number
    hosts: int
    rate: str

    @property
    def folder(self) -> Path:
        return _runtime() / self.name

    @property
    def alive(self) -> bool:
        return _start_of(self.pid) == self.started

    @property
    def addresses(self) -> list[str]:
        return [f"10.77.0.{host + 1}" for host in range(self.hosts)]

    def on_head(self, *command: str) -> list[str]:
        """The command line that runs `command` on the head, in this folder.

        It ends when the process that starts it ends, as does what it runs.
        """
        user = ["--user", "--preserve-credentials"] if os.geteuid() else []
        space = f"--pid=/proc/{self.pid}/ns/pid_for_children"
        enter = ["nsenter", "--target", str(self.pid), *user, *_NAMESPACES, space]
        # nsenter keeps signals to itself, and leaves us in the root folder.
        there = [*_BOUND, "TERM", "sh", "-c", 'cd "$0" && exec "$@"', os.getcwd()]
        return [*_BOUND, "TERM", *enter, *there, *command]

    def on_host(self, host: int, *command: str) -> list[str]:
        """The command line that runs `command` on a host."""
        return self.on_head(str(_AGENT), self.addresses[host], shlex.join(command))

    def environment(self) -> dict[str, str]:
        return _environment(self.folder)

    def launcher(
        self, ranks: int, per_host: int, program: Sequence[str], mpi: launch.Mpi
    ) -> tuple[list[str], dict[str, str]]:
        """The command that starts `program` on so many ranks, and its whole environment.

        Ranks fill a host before the next.
        """
        if not 1 <= ranks <= per_host * self.hosts:
            raise ValueError(f"{ranks} ranks do not fit on {self.hosts} hosts with {per_host} each")
        makers = {"Open MPI": _open_mpi, "MPICH": _mpich, "Intel MPI": _intel_mpi}
        if mpi.vendor not in makers:
            raise Unavailable(f"{mpi.vendor} is not known to start on emulated hosts")
        used = self.addresses[: -(-ranks // per_host)]
        arguments, variables = makers[mpi.vendor](used, ranks, per_host)
        # As on one host, and then what several need.
        (launcher, *_), usual = launch.command(ranks, program, mpi=mpi)
        command = self.on_head(launcher, *arguments, *program)
        return command, self.environment() | usual | variables

    def down(self) -> None:
        """Ends all processes of the cluster and removes its folder."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            _wait(lambda: not self.alive, "the head does not end")
        shutil.rmtree(self.folder, ignore_errors=True)


def _open_mpi(
    addresses: Sequence[str], ranks: int, per_host: int
) -> tuple[list[str], dict[str, str]]:
    hosts = ",".join(f"{address}:{per_host}" for address in addresses)
    arguments = ["-n", str(ranks), "--host", hosts, "--map-by", "slot:OVERSUBSCRIBE"]
    arguments += ["--bind-to", "none", "--prtemca", "plm_ssh_agent", str(_AGENT)]
    # All hosts have the cores of one machine, so a rank that waits must leave them to the others.
    variables = {"OMPI_MCA_mpi_yield_when_idle": "1"}
    variables |= {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl_tcp_if_include": "eth0"}
    names = ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM")
    variables |= {f"{tool}_{name}": "1" for tool in ("OMPI", "PRTE") for name in names}
    return arguments, variables


def _mpich(addresses: Sequence[str], ranks: int, per_host: int) -> tuple[list[str], dict[str, str]]:
    arguments = ["-n", str(ranks), "-ppn", str(per_host), "-hosts", ",".join(addresses)]
    arguments += ["-launcher", "ssh", "-launcher-exec", str(_AGENT), "-localhost", _HEAD]
    variables = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "1", "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1"}
    return arguments, variables


def _intel_mpi(
    addresses: Sequence[str], ranks: int, per_host: int
) -> tuple[list[str], dict[str, str]]:
    arguments = ["-n", str(ranks), "-ppn", str(per_host), "-hosts", ",".join(addresses)]
    # The head is known by its network: hosts do not know its name.
    arguments += ["-bootstrap", "ssh", "-bootstrap-exec", str(_AGENT), "-iface", "br0"]
    # Each host would bind its first rank to the same core; and a rank that waits must yield.
    variables = {"I_MPI_PIN": "0", "I_MPI_THREAD_YIELD": "3"}
    variables |= {"FI_PROVIDER": "tcp", "FI_TCP_IFACE": "eth0"}
    return arguments, variables


@contextmanager
def cluster(hosts: int, rate: str, *, lasting: bool = False) -> Iterator[Cluster]:
    """Hosts for the time of a `with`. They end with this process at the latest, whatever ends it,
    or, if `lasting`, stay up after the `with` where it has not failed."""
    made = _up(hosts, rate, lasting)
    try:
        yield made
    except BaseException:
        made.down()
        raise
    if not lasting:
        made.down()


def known() -> list[Cluster]:
    """The clusters that are up. What dead ones have left is removed."""
    found = []
    for file in _runtime().glob("*/cluster.json"):
        with suppress(FileNotFoundError):
            candidate = Cluster(**json.loads(file.read_text()))
            if candidate.alive:
                found.append(candidate)
            else:
                candidate.down()
    return found


def require() -> None:
    """Raises `Unavailable` with the reason where hosts cannot be emulated."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"emulated hosts need {', '.join(missing)} (iproute2, util-linux)")
    with cluster(1, "1gbit"):
        pass


def _up(hosts: int, rate: str, lasting: bool) -> Cluster:
    if not 1 <= hosts <= 64:
        raise ValueError(f"1 to 64 hosts can be emulated, not {hosts}")
    per_second = bytes_per_second(rate)
    name = f"cluster-{secrets.token_hex(4)}"
    folder = _runtime() / name
    (folder / "hosts").mkdir(parents=True)
    bound = () if lasting else (*_BOUND, "KILL")
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    spaces = [*_NAMESPACES, "--pid", "--fork", "--kill-child"]
    # A bucket of 2 ms of the rate smooths; it must hold at least a few packets.
    burst = 0 if math.isinf(per_second) else int(max(per_second * 2e-3, 16 << 10))
    script = ["sh", str(_FOLDER / "head.sh"), name, str(hosts), rate, str(burst)]
    with open(folder / "log", "w+") as log:
        head = subprocess.Popen(
            [*bound, "unshare", *user, *spaces, *script],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    made = Cluster(name, head.pid, _start_of(head.pid), hosts, rate)
    (folder / "cluster.json").write_text(json.dumps(vars(made)))
    try:
        log = folder / "log"
        _wait(lambda: "ready\n" in log.read_text() or head.poll() is not None, "no host came up")
        if head.poll() is not None:
            reason = log.read_text().strip() or f"unshare ended with status {head.returncode}"
            raise Unavailable(f"hosts cannot be emulated here: {reason}")
    except BaseException:
        made.down()
        raise
    return made


def _environment(folder: Path) -> dict[str, str]:
    hosts = folder / "hosts"
    return launch.environment() | {"CLUSTER_HOSTS": str(hosts), "TMPDIR": str(hosts / "tmp")}


def _runtime() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"ronde-clusters-{os.getuid()}"


def _start_of(pid: int) -> str:
    """When a process began; empty for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise Unavailable(f"{otherwise} within {_START_SECONDS:.0f} s")
        time.sleep(0.01)
