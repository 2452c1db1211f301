"""Gradients of JAX, in compiled functions and outside of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.experimental
import numpy as np

from ._gradients import Reducer

__all__ = ["reduced"]


def reduced(reducer: Reducer, arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays of JAX by their labels, reduced over the ranks.

    Where JAX traces, the compiled function will do it on the host, in the order of the program.
    """

    def on_host(values: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = reducer.reduce(
            {label: np.asarray(value) for label, value in values.items()}
        )
        return done

    if not arrays:
        return {}
    if not any(isinstance(each, jax.core.Tracer) for each in arrays.values()):
        return {label: jax.numpy.asarray(each) for label, each in on_host(arrays).items()}
    like = {label: jax.ShapeDtypeStruct(each.shape, each.dtype) for label, each in arrays.items()}
    done: dict[str, Any] = jax.experimental.io_callback(on_host, like, arrays, ordered=True)
    return done
