"""What there is of CUDA: in this build of Ronde, and on this machine."""

from __future__ import annotations

from . import _core
from .errors import RondeError

__all__ = ["cuda_available", "cuda_built"]


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
        return bool(_core.cuda_devices())
    except RondeError:
        return False
