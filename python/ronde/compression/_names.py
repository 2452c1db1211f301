"""What stands for a compressor: its name, and what does not: its name in Python, when it is not called."""

from __future__ import annotations

import difflib
from typing import Any

from ._method import Method

__all__ = ["resolved"]


def _makers() -> dict[str, Any]:
    from .. import compression  # which imports this module

    classes = ("Auto", "Compressor", "ErrorFeedback")
    return {name: getattr(compression, name) for name in compression.__all__ if name not in classes}


def resolved(what: str, given: Any) -> Any:
    """What is meant by an argument called `what`: a name stands for a compressor with its usual parameters.

    Raises `ValueError` for unknown names, and `TypeError` for what makes compressors and was not called.
    """
    if isinstance(given, str):
        return _named(what, given)
    _refuse_uncalled(what, given)
    return given


def _named(what: str, name: str) -> Method | None:
    makers = _makers()
    if name not in makers:
        close = difflib.get_close_matches(name, makers, n=1)
        hint = f"did you mean {close[0]!r}? There are" if close else "there are"
        raise ValueError(
            f"{what}={name!r} is not a compressor of ronde.compression; {hint} {', '.join(makers)}"
        )
    try:
        return makers[name]()  # type: ignore[no-any-return]
    except TypeError:
        raise ValueError(
            f"{what}={name!r} needs parameters: pass ronde.compression.{name}(...)"
        ) from None


def _refuse_uncalled(what: str, given: Any) -> None:
    name = next((name for name, maker in _makers().items() if maker is given), None)
    if name is None and isinstance(given, type) and issubclass(given, Method):
        name = given.__name__
    if name is not None:
        raise TypeError(
            f"{what}=ronde.compression.{name} is not a compressor but makes one: call it, "
            f"{what}=ronde.compression.{name}(...)"
        )
