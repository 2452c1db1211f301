"""What must be the same on all ranks before their gradients are added up."""

from __future__ import annotations

import hashlib

import numpy as np

from .. import _core
from .._calls import communicator_of
from ..errors import MismatchError
from ._buckets import Gradient
from ._carriers import Reduction

__all__ = ["compare_parameters"]

_SHOWN = 20  # differences, at most


def compare_parameters(
    name: str, step: int, gradients: list[Gradient], reduction: Reduction
) -> None:
    """Raises `MismatchError` on all ranks where they have other parameters or are at another step."""
    facts = [f"before step {step}", f"{len(gradients)} parameters"]
    facts += [f"{each.name}: {each.describe()}" for each in gradients]
    text = "\n".join(facts)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    call = _core.Call("comparison of parameters", name, detail=f"{facts[1]}, digest {digest}")
    communicator = communicator_of(reduction.process_set)
    try:
        communicator.barrier(call=call)
    except MismatchError:
        data = np.frombuffer(text.encode() + b"\0", np.uint8)
        call = _core.Call("parameters that differ", name)
        joined, _ = communicator.allgather(data, call=call)
        texts = bytes(joined).decode().split("\0")[:-1]
        differences = _differences(texts, reduction.process_set.ranks)
        raise MismatchError(
            f"{name}: the ranks do not have the same parameters, or have not made as many steps:\n"
            + differences
        ) from None


def _differences(texts: list[str], ranks: list[int]) -> str:
    """What is not the same everywhere."""
    facts = [text.split("\n") for text in texts]
    common = set(facts[0]).intersection(*facts)
    lines = []
    for distinct in dict.fromkeys(texts):
        who = [str(rank) for rank, text in zip(ranks, texts, strict=True) if text == distinct]
        own = [fact for fact in distinct.split("\n") if fact not in common]
        more = f", and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
        shown = ", ".join(own[:_SHOWN]) or "the others, in another order"
        lines.append(f"  rank{'s' * (len(who) > 1)} {', '.join(who)}: {shown}{more}")
    return "\n".join(lines)
