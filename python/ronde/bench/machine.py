"""What figures depend on besides the code: the machine, and which code it is."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
from pathlib import Path

from .. import __version__, settings

__all__ = ["cpu", "describe"]


def describe() -> dict[str, str]:
    """Of this host: version, date, host, CPU, kernel."""
    commit = _commit()
    return {
        "version": f"ronde {__version__}" + (f" ({commit})" if commit else ""),
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "host": platform.node(),
        "CPU": f"{cpu()}, {settings.cores()} of {os.cpu_count()} cores usable",
        "kernel": platform.release(),
    }


def cpu() -> str:
    """`AMD EPYC (family 26, model 2)`: virtual machines tend to hide the rest of the name."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    if "model name" not in found:
        return platform.machine()
    numbers = f"family {found.get('cpu family')}, model {found.get('model')}"
    return f"{found['model name']} ({numbers})"


def _commit() -> str:
    """Where the package is used from its source tree."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        answer = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    try:
        if not git("ls-files", "--error-unmatch", "__init__.py"):
            return ""  # installed: the repository around it is another one
        changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except OSError:
        return ""
