"""What runs in environments without Ronde must not need it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import ronde.bench

BENCH = Path(ronde.bench.__file__).parent
# What only the process that starts the launches uses, and the peer that is Ronde.
WITH_RONDE = {
    *("rounds.py", "machine.py", "table.py", "chart.py", "compressors.py", "codecs.py"),
    *("ronde.py", "ronde_cuda.py"),
}
FILES = [file for file in sorted(BENCH.rglob("*.py")) if file.name not in WITH_RONDE]
OF_PEERS = {
    "mpi.py": {"mpi4py"},
    "gloo.py": {"torch"},
    "horovod.py": {"torch", "horovod"},
    "deepspeed.py": {"torch", "deepspeed", "mpi4py"},
    "nccl.py": {"cupy", "mpi4py"},
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_imports_stay_within_the_folder(file: Path) -> None:
    depth = len(file.relative_to(BENCH).parts)  # one dot for each folder up to bench/
    allowed = {*sys.stdlib_module_names, "numpy", *OF_PEERS.get(file.name, set())}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= depth, ast.unparse(node)
            if node.level == depth:
                names = {node.module} if node.module else {alias.name for alias in node.names}
                assert not {f"{name}.py" for name in names} & WITH_RONDE
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).partition(".")[0] in allowed
        elif isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
