"""The choices that are compared, each by its name, and what trains with them.

A *trainer* holds a model of its own and makes one step with a batch of this rank. Those of Ronde share
`model.gradients` and differ in the compression; those of torch are the same model in torch, whose
parameters lie in the same arrays, under DistributedDataParallel over Gloo: as it is, with torch's fp16 hook,
or with Ronde's hook.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import ronde

from .data import Bytes
from .model import Floats, MomentumSGD, gradients, new_parameters

MOMENTUM = 0.9
EXACT, HALF, AUTO = "fp32", "bf16", "auto"
HALF_AGAIN = "bf16 again"  # bf16 against itself shows the noise of times
DGC = "dgc 1%"
TORCH = "torch "


def is_torch(name: str) -> bool:
    return name.startswith(TORCH)


def is_auto(name: str) -> bool:
    """Whether it depends on the link what it computes."""
    return name.removeprefix(TORCH) == AUTO


def exact_inside_machine(name: str) -> bool:
    """Whether it computes the same as exact training where nothing crosses machines."""
    return not is_torch(name) and name != DGC


class Trainer(Protocol):
    params: list[Floats]

    def step(self, rate: float, contexts: Bytes, following: Bytes) -> None:
        """One update of `params` with the mean of all ranks' gradients."""


class RondeTrainer:
    """NumPy, with `ronde.DistributedOptimizer`."""

    def __init__(self, compression: Any, momentum: float) -> None:
        self.params = new_parameters()
        self._optimizer = ronde.DistributedOptimizer(
            MomentumSGD(self.params, momentum), compression=compression
        )

    def step(self, rate: float, contexts: Bytes, following: Bytes) -> None:
        self._optimizer.rate = rate
        self._optimizer.step(gradients(self.params, contexts, following))


class TorchTrainer:
    """torch, with DistributedDataParallel, which sends while gradients are still computed."""

    def __init__(self, register: Callable[[Any], None] | None = None) -> None:
        """`register`: a communication hook, with the model."""
        import torch
        from torch.nn.parallel import DistributedDataParallel

        from .torch_model import Model

        start_gloo()
        self._torch = torch
        self.params = new_parameters()
        self._model = DistributedDataParallel(Model(self.params))
        if register:
            register(self._model)
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=0.0, momentum=MOMENTUM, fused=True
        )

    def step(self, rate: float, contexts: Bytes, following: Bytes) -> None:
        torch = self._torch
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.zero_grad()
        logits = self._model(torch.from_numpy(contexts).long())
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(following).long())
        loss.backward()
        self._optimizer.step()


def start_gloo() -> None:
    """Connects torch.distributed, on all ranks."""
    import torch
    from mpi4py import MPI
    from torch import distributed

    if distributed.is_initialized():
        return
    torch.set_num_threads(1)
    comm = MPI.COMM_WORLD
    address, interface = _address()
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    with socket.create_server(("", 0)) as probe:
        port = probe.getsockname()[1]
    address, port = comm.bcast((address, port))
    distributed.init_process_group(
        "gloo", init_method=f"tcp://{address}:{port}", rank=comm.rank, world_size=comm.size
    )


def _address() -> tuple[str, str]:
    """Of this host on the cluster's network, or on its own where there is none. Nothing is sent."""
    if "eth0" not in {name for _, name in socket.if_nameindex()} or ronde.cross_size() == 1:
        return "127.0.0.1", "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.77.0.254", 9))
        return str(probe.getsockname()[0]), "eth0"


def makers() -> dict[str, Callable[[], Trainer]]:
    """What makes a trainer, of all choices that are installed here. To be called on all ranks."""
    offered = ronde.compression
    compressions: dict[str, Callable[[], Any]] = {
        EXACT: offered.none,
        HALF: offered.bf16,
        HALF_AGAIN: offered.bf16,
        "fp8": offered.fp8,
        "int8": offered.int8,
        "int4": offered.int4,
        "linear 3": partial(offered.linear, 3, block=512),
        "sign": offered.sign,
        "topk 1%": partial(offered.topk, 0.01),
        "powersgd 4": partial(offered.powersgd, 4),
        "powersgd 24": partial(offered.powersgd, 24),
        "powersgd 32": partial(offered.powersgd, 32),
        DGC: partial(offered.dgc, 0.01, momentum=MOMENTUM),
        AUTO: offered.auto,
    }
    found: dict[str, Callable[[], Trainer]] = {
        # DGC has the momentum in itself.
        name: partial(_ronde_trainer, make, 0.0 if name == DGC else MOMENTUM)
        for name, make in compressions.items()
    }
    if importlib.util.find_spec("torch"):
        found[f"{TORCH}fp32"] = TorchTrainer
        found[f"{TORCH}fp16"] = partial(TorchTrainer, _register_fp16)
        for name in ("int4", AUTO):
            found[TORCH + name] = partial(TorchTrainer, partial(_register_ronde, name))
    return found


def _register_fp16(model: Any) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    model.register_comm_hook(None, default_hooks.fp16_compress_hook)


def _register_ronde(compression: str, model: Any) -> None:
    from ronde.torch import CommHookState, comm_hook

    model.register_comm_hook(CommHookState(compression), comm_hook)


def _ronde_trainer(make: Callable[[], Any], momentum: float) -> RondeTrainer:
    return RondeTrainer(make(), momentum)
