"""Compressors by what people write on a command line: int8, topk(0.001), "linear(bits=3, block=512)"."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import get_type_hints

import numpy as np

from ronde import compression  # not by a relative import: standalone.py makes this folder a package
from ronde.compression import Compressor

__all__ = ["everything", "known", "make", "split"]

# Where the defaults say nothing or too little of a family, what stands for it among all.
_EXAMPLES = {
    "linear": ("linear(bits=3)",),
    "threshold": ("threshold(2.5)",),
    "topk": ("topk(0.01)", "topk(0.001)"),
}


def known() -> dict[str, Callable[..., Compressor]]:
    """What makes the compressors of `ronde.compression`, by name."""
    public = {name: getattr(compression, name) for name in compression.__all__}
    return {name: each for name, each in public.items() if _makes_compressors(each)}


def _makes_compressors(function: object) -> bool:
    if not inspect.isfunction(function):
        return False
    made = get_type_hints(function).get("return")
    return inspect.isclass(made) and issubclass(made, Compressor)


def everything() -> list[str]:
    """All of them, as `make` takes them, from the most bytes to the fewest."""
    texts = [text for name in known() for text in _EXAMPLES.get(name, (name,))]
    sample = np.random.default_rng(0).standard_normal(1 << 14, np.float32)
    return sorted(texts, key=lambda text: -make(text).compress(sample)[0].size)


def split(text: str) -> list[str]:
    """The parts between the commas that are not in parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text)]


def make(text: str) -> Compressor:
    """The compressor of a name, with parameters as in Python. Raises `ValueError` for what is none."""
    name, _, rest = text.partition("(")
    makers = known()
    if name not in makers:
        raise ValueError(f"'{text}' is not one of {', '.join(makers)}")
    try:
        call = ast.parse(text if rest else f"{text}()", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("not one call")
        positional = [ast.literal_eval(each) for each in call.args]
        named = {each.arg or "**": ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"'{text}' is not like topk(0.001) or linear(bits=3)") from None
    try:
        return makers[name](*positional, **named)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{text}' is not possible: {error}") from None
