"""What a DistributedOptimizer does with gradients: they are added up over passes, and reduced over ranks.

A *pass* is one call with gradients, a *step* is one update; there are `backward_passes_per_step`
passes to a step.
"""

from __future__ import annotations

import copy
import operator
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from . import context, handles
from ._calls import factor_of, name_of, set_of
from ._groups import Way, reduce_group, submit_group
from ._ready import Ready
from .arrays import View, is_floating, is_torch, view
from .compression import feeding_back, is_function, method_of
from .compression._method import Method
from .errors import RondeError
from .process_set import ProcessSet, global_process_set
from .reductions import Op

__all__ = ["Choice", "Reducer", "reducer", "zeros_like"]


class Choice:
    """Which parameter is compressed how. Compressors that are not right on average get error feedback.

    `compression`: one for all matrices and higher of a floating type (vectors are biases and norms: too short
    to gain anything, and sensitive); or a dictionary from labels, the rest staying exact; or a function of
    label and array.
    """

    def __init__(self, compression: Any) -> None:
        if isinstance(compression, Mapping):
            for label, each in compression.items():
                method_of(each, f"compression[{label!r}]")  # raises for what is none
            self._choose: Callable[[Any, Any], Any] = lambda label, _: compression.get(label)
        elif is_function(compression):
            self._choose = compression
        else:
            method_of(compression)
            self._choose = lambda _, array: compression if _is_matrix(array) else None
        self._compression = compression
        # What was chosen, by itself or by its name, and how it is used.
        self._kept: dict[Method | str, Method | None] = {}
        self._chosen: dict[Any, Method | None] = {}

    def of(self, label: Any, array: Any) -> Method | None:
        """Chosen once for each label: what is chosen keeps state."""
        if label not in self._chosen:
            given = self._choose(label, array)
            # Equal compressors are one, so that their arrays travel together.
            what = f"compression of {label!r}"
            key = given if isinstance(given, str) else method_of(given, what)
            if key is not None and key not in self._kept:
                method = method_of(given, what)
                self._kept[key] = None if method is None else feeding_back(method)
            self._chosen[label] = None if key is None else self._kept[key]
        return self._chosen[label]

    def __reduce__(self) -> tuple[Any, ...]:
        return Choice._again, (self._compression, self._kept, self._chosen)

    @staticmethod
    def _again(
        compression: Any, kept: dict[Method | str, Method | None], chosen: dict[Any, Method | None]
    ) -> Choice:
        choice = Choice(compression)
        choice._kept, choice._chosen = kept, chosen
        return choice


def _is_matrix(array: Any) -> bool:
    seen = view(array)
    return len(seen.shape) > 1 and is_floating(seen.dtype)


@dataclass
class Reducer:
    """The way of the gradients: they are added up over passes, then reduced over ranks."""

    op: Op
    passes_per_step: int
    prescale_factor: float
    postscale_factor: float
    process_set: ProcessSet
    name: str
    choice: Choice
    asynchronous: bool = False  # of no order with the calls of other threads
    early: Ready = field(default_factory=Ready)  # of this step
    passes: int = 0  # since the last step
    sums: _Gradients | None = None  # of those passes; never modified, so copies may share it
    seconds: float = 0.0
    last: _Structure | None = None

    def update(
        self,
        function: Callable[..., Any],
        position: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        otherwise: Any = None,
    ) -> Any:
        """Calls `function` with its gradients reduced; `otherwise` while more passes are to come.

        The gradients are the keyword `grads`, or the argument at `position`.
        """
        if "grads" in kwargs:
            reduced = self.reduce(kwargs["grads"])
            kwargs = {**kwargs, "grads": reduced}
        elif 0 <= position < len(args):
            reduced = self.reduce(args[position])
            args = (*args[:position], reduced, *args[position + 1 :])
        else:
            raise TypeError("grads: the gradients are missing")
        return otherwise if reduced is None else function(*args, **kwargs)

    def ready(self, label: Any, gradient: Any) -> None:
        """Begins the reduction of one gradient; in the last pass of a step, as before it is not due."""
        self.early.require_new(label)
        if self.passes + 1 < self.passes_per_step:
            return
        total = gradient
        if self.sums is not None:
            if label not in self.sums.labels:
                raise ValueError(f"no pass of this step had a gradient for {label!r}")
            total = _plus(self.sums.arrays[self.sums.labels.index(label)], gradient)
        self.early.add(label, gradient, self._submit(label, total))

    def _submit(self, label: Any, array: Any) -> handles.Handle[Any]:
        return handles.allreduce_async(
            array,
            self.op,
            f"{self.name}[{label!r}]",
            prescale_factor=self.prescale_factor,
            postscale_factor=self.postscale_factor,
            compression=self.choice.of(label, array),
            process_set=self.process_set,
        )

    def reduce(self, grads: Any) -> Any:
        """The reduced gradients of all passes of this step, or None if it was not the last pass.

        If it fails, this pass has not been counted.
        """
        last = None if self.early.in_use or self.passes_per_step > 1 else self.last
        if last is not None and last.fits(grads):
            return last.filled(self._communicate(list(last.order(grads)), last))
        gradients = _Gradients.of(grads)
        self.early.require_same(gradients.present())
        if self.passes_per_step > 1:
            gradients = gradients.added_to(self.sums, self.early)
        if self.passes + 1 < self.passes_per_step:
            self.passes, self.sums = self.passes + 1, gradients
            return None
        # From then on in all steps: another rank may have a gradient ready where this one has none.
        if self.early.in_use:
            reduced = self._finish(gradients.present())
        else:
            self.last = _Structure.of(grads, gradients, self.name)
            present = [array for array in gradients.arrays if array is not None]
            reduced = self._communicate(present, self.last)
        self.passes, self.sums = 0, None
        return gradients.like(grads, reduced)

    def _finish(self, gradients: list[tuple[Any, Any]]) -> list[Any]:
        start = time.perf_counter()
        try:
            return self.early.finish(gradients, self._submit)
        finally:
            self.seconds += time.perf_counter() - start

    def _communicate(self, arrays: list[Any], structure: _Structure) -> list[Any]:
        start = time.perf_counter()
        way = Way(
            "grouped_allreduce",
            self.op,
            structure.name,
            self.prescale_factor,
            self.postscale_factor,
            weakref.ref(self.choice),  # which no other will ever be equal to
        )

        def label(_: list[View]) -> list[tuple[Method | None, str]]:
            return [
                (self.choice.of(label, array), f"{self.name}[{label!r}]")
                for label, array in zip(structure.labels, arrays, strict=True)
            ]

        def what(i: int) -> str:
            return f"grads[{structure.labels[i]!r}]"

        try:
            if not self.asynchronous:
                return reduce_group(arrays, way, self.process_set, label, what)
            call, results_of = submit_group(arrays, way, self.process_set, label, what)
            return results_of(call.wait(None))
        finally:
            self.seconds += time.perf_counter() - start

    def __getstate__(self) -> dict[str, Any]:
        # A process set lives in this process alone; elsewhere its ranks identify it.
        is_global = self.process_set is global_process_set
        ranks = None if is_global else self.process_set.ranks
        # A copy has residuals, and gradients that are ready, of its own.
        own = {"choice": copy.deepcopy(self.choice), "early": copy.copy(self.early)}
        return {**vars(self), **own, "process_set": ranks, "seconds": 0.0, "last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, process_set=_find_process_set(state["process_set"]))


def reducer(
    op: Op,
    passes_per_step: int,
    factors: tuple[float, float],
    process_set: ProcessSet | None,
    name: str | None,
    compression: Any,
    *,
    asynchronous: bool = False,
) -> Reducer:
    """Of the arguments of a DistributedOptimizer, whose errors it raises."""
    context.world()
    if not isinstance(op, Op):
        raise TypeError(
            f"op must be one of ronde.Sum, Average, Min, Max, Product and Adasum, not {op!r}"
        )
    members = set_of(process_set)
    members.rank()  # raises where this rank is not a member
    return Reducer(
        op,
        passes_of(passes_per_step),
        factor_of("prescale_factor", factors[0]),
        factor_of("postscale_factor", factors[1]),
        members,
        name_of(name) or "DistributedOptimizer",
        Choice(compression),
        asynchronous,
    )


def passes_of(per_step: int) -> int:
    try:
        passes = operator.index(per_step)
    except TypeError:
        raise TypeError(
            f"backward_passes_per_step must be a whole number, not {per_step!r}"
        ) from None
    if passes < 1:
        raise ValueError(f"backward_passes_per_step must be at least 1, not {per_step}")
    return passes


def _find_process_set(ranks: list[int] | None) -> ProcessSet:
    if ranks is None:
        return global_process_set
    for process_set, _ in context.world().sets.values():
        if process_set.ranks == ranks:
            return process_set
    raise RondeError(
        f"this DistributedOptimizer belongs to a process set of ranks {ranks}; "
        "call ronde.add_process_set() before it is unpickled"
    )


@dataclass(frozen=True)
class _Gradients:
    """The arrays of a structure in one order on all ranks: dictionaries in that of their keys' `repr`."""

    labels: list[Any]  # keys or numbers; in structures within structures tuples of these
    arrays: list[Any]  # None where a parameter has no gradient

    @staticmethod
    def of(grads: Any) -> _Gradients:
        if grads is None:
            raise TypeError("grads: gradients are needed, not None")
        found = list(_leaves(grads, ()))
        return _Gradients([_label(path) for path, _ in found], [array for _, array in found])

    def present(self) -> list[tuple[Any, Any]]:
        """Labels and arrays of those that there are."""
        pairs = zip(self.labels, self.arrays, strict=True)
        return [(label, array) for label, array in pairs if array is not None]

    def describe(self) -> str:
        """What the shapes do not show: the ranks compare it."""
        are_numbers = self.labels == list(range(len(self.labels)))
        pairs = zip(self.labels, self.arrays, strict=True)
        missing = [label for label, array in pairs if array is None]
        parts = [] if are_numbers else [f"for {self.labels}"]
        return " ".join(parts + ([f"without gradients of {missing}"] if missing else []))

    def added_to(self, sums: _Gradients | None, early: Ready) -> _Gradients:
        """The sum of both, in new arrays, but for what is `early`, whose sums are under way."""
        if sums is None:
            return _Gradients(self.labels, [_plus(None, array) for array in self.arrays])
        if self.labels != sums.labels:
            raise ValueError(
                "the passes of a step need gradients for the same parameters: "
                f"{sums.labels} before, {self.labels} now"
            )
        pairs = zip(sums.arrays, self.arrays, strict=True)
        added = [
            array if label in early else _plus(total, array)
            for label, (total, array) in zip(self.labels, pairs, strict=True)
        ]
        return _Gradients(self.labels, added)

    def like(self, grads: Any, reduced: list[Any]) -> Any:
        """The reduced arrays of those present, in a structure of the type of `grads`."""
        remaining = iter(reduced)
        return _filled(grads, (None if x is None else next(remaining) for x in self.arrays))


@dataclass(frozen=True)
class _Structure:
    """What is known of gradients from step to step. Plain arrays in a list, a tuple or a dictionary need not
    be found and put in order by their labels again."""

    name: str  # of the call: what the shapes do not show, the ranks compare it
    labels: list[Any]  # of the arrays that there are
    kind: type | None  # of a structure whose entries are the arrays, all of them
    keys: list[Any]  # of a dictionary, in its order
    order: Callable[[Any], Any] = list  # its arrays in the order of the labels
    places: Sequence[int] = ()  # of each key in that

    @staticmethod
    def of(grads: Any, gradients: _Gradients, name: str) -> _Structure:
        labels = [label for label, _ in gradients.present()]
        name = f"{name} {gradients.describe()}".rstrip()
        kind = type(grads)
        if kind in (list, tuple) and labels == list(range(len(grads))):
            return _Structure(name, labels, kind, [])
        if kind is dict and len(labels) > 1 and labels == sorted(grads, key=repr):
            places = {label: i for i, label in enumerate(labels)}
            order = operator.itemgetter(*labels)
            return _Structure(
                name, labels, dict, list(grads), order, [places[key] for key in grads]
            )
        return _Structure(name, labels, None, [])

    def fits(self, grads: Any) -> bool:
        """Whether these are the same, and plain arrays."""
        kind = type(grads)
        if kind is not self.kind or len(grads) != len(self.labels):
            return False
        # Equal keys may show themselves in other words.
        if kind is dict and not all(map(operator.is_, grads, self.keys)):
            return False
        return set(map(type, grads.values() if kind is dict else grads)) == {np.ndarray}

    def filled(self, reduced: list[Any]) -> Any:
        if self.kind is dict:
            return dict(zip(self.keys, map(reduced.__getitem__, self.places), strict=True))
        return tuple(reduced) if self.kind is tuple else reduced


def zeros_like(grads: Any) -> Any:
    """Zeros in a structure of the type of `grads`."""
    gradients = _Gradients.of(grads)
    seen = [view(array) for _, array in gradients.present()]
    return gradients.like(
        grads, [each.wrap(np.zeros(each.shape, each.operand.dtype)) for each in seen]
    )


# Structures: dictionaries, lists and tuples in each other, and where JAX is there what it knows.

Path = tuple[Any, ...]


def _label(path: Path) -> Any:
    """A key or a number where there is one; 0 for an array that is in no structure."""
    return path[0] if len(path) == 1 else path or 0


def _leaves(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(tree, Mapping):
        for key in sorted(tree, key=repr):
            yield from _leaves(tree[key], (*path, key))
        return
    node = None if isinstance(tree, (list, tuple)) else _jax_node(tree)
    if node is None and not isinstance(tree, (list, tuple)):
        yield path, tree
        return
    for i, child in enumerate(node.children if node else tree):
        yield from _leaves(child, (*path, i))


def _filled(tree: Any, leaves: Iterator[Any]) -> Any:
    """A structure like this with these leaves, which come in the order of `_leaves`."""
    if isinstance(tree, Mapping):
        found = {key: _filled(tree[key], leaves) for key in sorted(tree, key=repr)}
        return _mapping_like(tree, {key: found[key] for key in tree})
    if isinstance(tree, (list, tuple)):
        filled = [_filled(child, leaves) for child in tree]
        if hasattr(tree, "_make"):  # a named tuple
            return tree._make(filled)
        return tuple(filled) if isinstance(tree, tuple) else filled
    node = _jax_node(tree)
    if node is None:
        return next(leaves)
    return node.make([_filled(child, leaves) for child in node.children])


def _mapping_like(tree: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(tree) is dict:
        return items
    if isinstance(tree, MutableMapping):
        made = copy.copy(tree)
        made.update(items)
        return made
    return type(tree)(items)  # type: ignore[call-arg]


class _Node(NamedTuple):
    children: list[Any]
    make: Callable[[list[Any]], Any]  # a node of the same kind


def _jax_node(tree: Any) -> _Node | None:
    """What JAX takes apart, such as modules of Equinox and data classes of Flax; None for a leaf."""
    jax = sys.modules.get("jax")
    if jax is None or tree is None:
        return None
    children, structure = jax.tree_util.tree_flatten(tree, is_leaf=lambda each: each is not tree)
    is_leaf = jax.tree_util.treedef_is_leaf(structure)
    return None if is_leaf else _Node(children, structure.unflatten)


def _plus(total: Any, grad: Any) -> Any:
    """Their sum, or a copy of the one that is not None; an array of grad's kind."""
    if grad is None:
        return total
    seen = view(grad)
    if total is not None:
        _check_same(view(total), seen)
    if is_torch(grad):  # whose bfloat16 NumPy cannot add
        return grad.detach().clone() if total is None else total + grad.detach()
    if total is None:
        return seen.wrap(seen.array.copy())
    return seen.wrap(np.asarray(view(total).array + seen.array))


def _check_same(before: View, now: View) -> None:
    if (before.shape, before.dtype) != (now.shape, now.dtype):
        raise ValueError(
            "the passes of a step need gradients of the same shape and dtype: "
            f"{before.dtype.name}{list(before.shape)} before, {now.dtype.name}{list(now.shape)} now"
        )
