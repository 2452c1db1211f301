"""Compressors by what people write on a command line."""

from __future__ import annotations

import numpy as np
import pytest
import ronde.compression as rc
from ronde.bench import compressors


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("int8", rc.int8()),
        ("int8()", rc.int8()),
        ("topk", rc.topk()),
        ("topk(0.001)", rc.topk(0.001)),
        ("topk(ratio=1e-3)", rc.topk(0.001)),
        ("linear(3, block=512, norm='l2')", rc.linear(3, block=512, norm="l2")),
        ("qsgd(seed=4)", rc.qsgd(seed=4)),
        ("threshold(2)", rc.threshold(2.0)),
        ("shared_scale(bits=8)", rc.shared_scale(8)),
    ],
)
def test_names_and_parameters_are_those_of_python(text: str, wanted: rc.Compressor) -> None:
    assert compressors.make(text) == wanted


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "'' is not one of bf16, "),
        ("zip", "'zip' is not one of bf16, "),
        ("none", "'none' is not one of"),
        ("Compressor('int8')", "is not one of"),
        ("ErrorFeedback", "is not one of"),
        ("topk(0.1", "is not like topk"),
        ("topk(0.1) + 1", "is not like topk"),
        ("topk(0.1).compress(1)", "is not like topk"),
        ("topk(__import__('os'))", "is not like topk"),
        ("linear(*[3])", "is not like topk"),
        ("linear(**{'bits': 3})", "is not possible: "),
        ("topk(2)", "'topk(2)' is not possible: a ratio must be above 0 and at most 1"),
        ("int8(3)", "'int8(3)' is not possible: "),
        ("threshold", "'threshold' is not possible: .*value"),
        ("linear(bits=9)", "1 to 8 bits"),
    ],
)
def test_what_is_no_compressor_says_why(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(").replace(")", r"\)")):
        compressors.make(text)


def test_commas_in_parentheses_separate_parameters() -> None:
    text = "int8,linear(bits=3, block=512), topk(0.1)"
    assert compressors.split(text) == ["int8", "linear(bits=3, block=512)", "topk(0.1)"]
    assert compressors.split("int8,") == ["int8", ""]


def test_everything_stands_for_every_compressor() -> None:
    names = compressors.everything()
    assert {name.partition("(")[0] for name in names} == set(compressors.known())
    assert {"bf16", "int8", "topk"} <= set(compressors.known())
    assert not {"Compressor", "ErrorFeedback", "none"} & set(compressors.known())
    values = np.random.default_rng(1).standard_normal(1 << 14, np.float32)
    sizes = [compressors.make(name).compress(values)[0].size for name in names]
    assert sizes == sorted(sizes, reverse=True)
