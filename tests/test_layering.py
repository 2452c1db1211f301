"""Includes go downwards only, as docs/architecture.md draws it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

CSRC = Path(__file__).parent.parent / "csrc"

# From the top. Those of one line do not include each other.
LAYERS = (
    ("bindings",),
    ("engine", "pipeline"),
    ("methods",),
    ("collective",),
    ("schedule", "compress", "node", "transport"),
    ("cuda",),
    ("kernels",),
    ("trace",),
    ("core",),
)
HEIGHT = {name: -depth for depth, names in enumerate(LAYERS) for name in names}
INCLUDE = re.compile(r'^\s*#\s*include\s*"(\w+)/', re.MULTILINE)


def violations(files: Iterable[tuple[str, str]]) -> Iterator[str]:
    """For pairs of a path below csrc/ and a text: what is included and must not be."""
    for path, text in files:
        layer = path.split("/")[0]
        if layer not in HEIGHT:
            yield f"{path}: {layer} is no layer"
            continue
        for included in INCLUDE.findall(text):
            if included == layer:
                continue
            if included not in HEIGHT or HEIGHT[included] >= HEIGHT[layer]:
                yield f"{path}: {layer} must not include {included}"


def sources() -> list[tuple[str, str]]:
    kinds = {".h", ".cc", ".inc", ".cu", ".cuh"}
    return [
        (str(file.relative_to(CSRC)), file.read_text())
        for file in sorted(CSRC.rglob("*"))
        if file.suffix in kinds
    ]


def test_includes_go_downwards() -> None:
    files = sources()
    assert len(files) > 20
    assert list(violations(files)) == []


def test_violations_are_found() -> None:
    fake = [
        ("core/up.h", '#include "kernels/kernels.h"\n'),
        ("transport/sideways.cc", '#include <vector>\n#  include "schedule/schedule.h"\n'),
        ("collective/unknown.cc", '#include "elsewhere/x.h"\n'),
        ("elsewhere/x.h", ""),
        ("collective/good.cc", '#include "collective/a.h"\n#include "core/error.h"\n'),
    ]
    assert list(violations(fake)) == [
        "core/up.h: core must not include kernels",
        "transport/sideways.cc: transport must not include schedule",
        "collective/unknown.cc: collective must not include elsewhere",
        "elsewhere/x.h: elsewhere is no layer",
    ]
