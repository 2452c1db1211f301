"""What there is of CUDA: in this build of Ronde, and on this machine."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from . import _core
from .errors import RondeError

__all__ = ["cuda_available", "cuda_built", "nccl_version"]


def cuda_built() -> bool:
    """Return whether this build of Ronde has kernels for GPUs.

    It needs neither a GPU nor a driver. `ronde doctor` says for which GPUs.
    """
    return bool(_core.cuda_architectures())


def cuda_available() -> bool:
    """Return whether Ronde can use a GPU here.

    That takes a build with kernels for it, the NVIDIA driver, and a GPU that this process may use.
    `ronde doctor` says what is missing.
    """
    try:
        return any(has_kernels for _, _, has_kernels in _core.cuda_devices())
    except RondeError:
        return False


def nccl_version() -> str | None:
    """Return the version of NCCL that Ronde finds, "2.28.9" say, or None if it finds none.

    It is that of the process, of a package `nvidia-nccl-cu12` or `nvidia-nccl-cu13`, or of the system. It
    needs no driver. `ronde doctor` says what is missing.
    """
    try:
        return require_nccl()
    except RondeError:
        return None


@functools.cache
def require_nccl() -> str:
    """The version. Raises UnavailableError, which says what is missing."""
    library = packaged_nccl()
    if library is not None:
        _core.nccl_look_in(str(library))
    return _core.nccl_version()


def packaged_nccl() -> Path | None:
    """The library of NVIDIA's packages for pip, looked up without an import."""
    try:
        spec = importlib.util.find_spec("nvidia.nccl")
    except ModuleNotFoundError:
        return None
    folders = (spec.submodule_search_locations if spec else None) or []
    found = (Path(folder) / "lib/libnccl.so.2" for folder in folders)
    return next((library for library in found if library.exists()), None)
