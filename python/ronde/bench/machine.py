"""What figures depend on besides the code: the machine, and which code it is."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
from pathlib import Path

from .. import __version__, settings

__all__ = ["describe"]


def describe() -> dict[str, str]:
    """Of this host: version, date, host, CPU, kernel."""
    commit = _commit()
    return {
        "version": f"ronde {__version__}" + (f" ({commit})" if commit else ""),
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "host": platform.node(),
        "CPU": f"{_cpu()}, {settings.cores()} of {os.cpu_count()} cores usable",
        "kernel": platform.release(),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


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
