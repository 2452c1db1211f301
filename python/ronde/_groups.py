"""Groups of arrays that are reduced as one call.

What is known of a group from call to call is its *plan* (csrc/methods/group.h): shapes and types, names, and
methods. It is made once, and found again by what the caller says. Then plain arrays go straight to the core.
"""

from __future__ import annotations

import logging
import operator
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from . import _core, context
from ._calls import communicator_of, factor_of
from .arrays import View, views
from .compression._method import Method
from .process_set import ProcessSet

__all__ = ["Labelled", "Way", "key_of", "reduce_group", "submit_group"]

_log = logging.getLogger("ronde")

# Of each array of a group, how it is compressed, and its name, under which more may be known of it.
Labelled = Sequence[tuple[Method | None, str]]

_MOST = 4096  # plans that are kept of a communicator
_EXACTLY = object()  # the key of no compression, which equals that of no name
_plans: weakref.WeakKeyDictionary[_core.Communicator, dict[Any, _core.Plan]]
_plans = weakref.WeakKeyDictionary()


class Way(NamedTuple):
    """How a call goes, but for its arrays."""

    kind: str
    op: _core.Op
    name: str | None
    prescale_factor: float
    postscale_factor: float
    key: Any
    """What the methods and names of arrays follow from, with shapes, types and the rest. None for what
    never comes again."""


def key_of(compression: Any) -> Any:
    """Of what was given as `compression=`."""
    if compression is None:
        return _EXACTLY
    if isinstance(compression, str):
        return compression
    if isinstance(compression, Method):
        return weakref.ref(compression._native)  # which no other object will ever be equal to
    if isinstance(compression, (list, tuple)):
        keys = tuple(map(key_of, compression))
        return None if None in keys else keys
    return None


def reduce_group(
    xs: list[Any],
    way: Way,
    process_set: ProcessSet | None,
    label: Callable[[list[View]], Labelled],
    what: Callable[[int], str],
    *,
    in_place: bool = False,
) -> list[Any]:
    """Reduces arrays of any kind. `what`: how errors call one of them."""
    communicator = communicator_of(process_set)
    make = communicator.grouped_allreduce
    done, results_of = _called(make, communicator, xs, way, label, what, in_place)
    return results_of(done)


def submit_group(
    xs: list[Any],
    way: Way,
    process_set: ProcessSet | None,
    label: Callable[[list[View]], Labelled],
    what: Callable[[int], str],
    *,
    in_place: bool = False,
) -> tuple[_core.PendingCall, Callable[[Any], list[Any]]]:
    """Submits what `reduce_group` does. Returns the call, and what makes the arrays of its result."""
    communicator = communicator_of(process_set)
    make = partial(context.world().engine.grouped_allreduce, communicator)
    return _called(make, communicator, xs, way, label, what, in_place)


def _called(
    make: Callable[..., Any],
    communicator: _core.Communicator,
    xs: list[Any],
    way: Way,
    label: Callable[[list[View]], Labelled],
    what: Callable[[int], str],
    in_place: bool,
) -> tuple[Any, Callable[[Any], list[Any]]]:
    plan = _known(communicator, way)
    if plan is not None and not _log.isEnabledFor(logging.DEBUG):
        done = make(plan, xs, xs if in_place else None)
        if done is not None:
            return done, operator.itemgetter(0)
    seen = views(xs, what, writable=in_place)
    labelled = label(seen)  # whose methods live until the call has been made
    plan = _made(communicator, way, seen, labelled)
    arrays, dtypes = [each.operand for each in seen], [each.dtype for each in seen]
    done = make(plan, arrays, arrays if in_place else None, dtypes)
    assert done is not None

    def results_of(done: tuple[list[Any], bool]) -> list[Any]:
        outputs, exactly = done
        if _log.isEnabledFor(logging.DEBUG):
            _explain(way.kind, seen, labelled, exactly)
        if in_place:
            for each in seen:
                each.write_back()
            return list(xs)
        return [each.wrap(output) for each, output in zip(seen, outputs, strict=True)]

    return done, results_of


def _known(communicator: _core.Communicator, way: Way) -> _core.Plan | None:
    plans = _plans.get(communicator)
    if plans is None or way.key is None:
        return None
    try:
        return plans.get(way)
    except TypeError:  # what cannot be a key is no name or factor: the core says so
        return None


def _made(
    communicator: _core.Communicator, way: Way, seen: list[View], labelled: Labelled
) -> _core.Plan:
    for what in ("prescale_factor", "postscale_factor"):
        factor_of(what, getattr(way, what))
    members: dict[Method | None, list[int]] = {}
    for i, (method, _) in enumerate(labelled):
        members.setdefault(method, []).append(i)
    plan = _core.Plan(
        communicator,
        way.kind,
        way.name,
        way.op,
        way.prescale_factor,
        way.postscale_factor,
        [each.shape for each in seen],
        [each.dtype for each in seen],
        [label for _, label in labelled],
        [
            (repr(method), None if method is None else method._native, each)
            for method, each in members.items()
        ],
        context.world().settings.fusion_bytes,
    )
    if way.key is not None:
        plans = _plans.setdefault(communicator, {})
        if len(plans) >= _MOST:
            plans.pop(next(iter(plans)), None)  # the oldest
        plans[way] = plan
    return plan


def _explain(kind: str, seen: list[View], labelled: Labelled, exactly: bool) -> None:
    """Says once of each array what is done with it."""
    explained = context.world().explained
    for i, (x, (method, label)) in enumerate(zip(seen, labelled, strict=True)):
        text = "exactly"
        if method is not None:
            text = f"by {method!r}" + ("" if x.dtype.name == "float32" else ", in float32")
            if exactly:
                text = (
                    "exactly, as some values are not finite or beyond float32 or ranks have joined, "
                    "instead of " + text
                )
        line = f"{kind} {label or f'[{i}]'} ({x.dtype.name}, shape {x.shape}): {text}"
        if line not in explained:
            explained.add(line)
            _log.debug("%s", line)
