"""What the package promises before anything runs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ronde
from ronde import _core

ROOT = Path(__file__).parent.parent
PACKAGE = Path(ronde.__file__).parent

Definition = ast.ClassDef | ast.FunctionDef


def test_import_starts_nothing() -> None:
    program = "import sys, ronde; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(out.stdout.split())
    assert "ronde._core" in loaded
    assert not loaded & {"mpi4py.MPI", "torch", "ml_dtypes", "sklearn"}


def test_completion_has_each_name_once() -> None:
    names = dir(ronde)
    assert len(names) == len(set(names))
    assert set(ronde.__all__) < set(names)
    assert all(hasattr(ronde, name) for name in names)


def test_run_time_dependencies() -> None:
    requirements = importlib.metadata.requires("ronde") or []
    always = [text for text in requirements if "extra ==" not in text]
    assert {re.split(r"[^\w.-]", text)[0] for text in always} == {"numpy", "mpi4py"}


def test_version_agrees_everywhere() -> None:
    version = ronde.__version__
    assert _core.__version__ == version
    assert importlib.metadata.version("ronde") == version
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").exists()


# The stub of the native module, against the module.

STUB = ast.parse((PACKAGE / "_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def names_of(body: list[ast.stmt]) -> set[str]:
    """What a stub defines, but for its own aliases and what every class has."""
    names = set()
    for node in body:
        if isinstance(node, Definition):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def members_of(of_class: ast.ClassDef) -> set[str]:
    """Those of its bases too."""
    bases = [CLASSES[base.id] for base in of_class.bases if isinstance(base, ast.Name)]
    return names_of(of_class.body).union(*map(members_of, bases))


def test_stub_names_what_there_is() -> None:
    assert names_of(STUB.body) == public(dir(_core))


@pytest.mark.parametrize("name", CLASSES)
def test_stub_names_the_members_of(name: str) -> None:
    assert members_of(CLASSES[name]) == public(dir(getattr(_core, name)))


def functions() -> list[tuple[str, ast.FunctionDef]]:
    """All functions and methods of the stub, by their dotted names."""
    found = [(node.name, node) for node in STUB.body if isinstance(node, ast.FunctionDef)]
    for name, of_class in CLASSES.items():
        found += [
            (f"{name}.{node.name}", node)
            for node in of_class.body
            if isinstance(node, ast.FunctionDef)
            and not node.decorator_list
            and (node.name == "__init__" or not node.name.startswith("_"))
        ]
    return found


@pytest.mark.parametrize("name,node", functions(), ids=[name for name, _ in functions()])
def test_stub_names_the_parameters_of(name: str, node: ast.FunctionDef) -> None:
    native: object = _core
    for part in name.split("."):
        native = getattr(native, part)
    # pybind11 opens its docstrings with the signature, in types of its own.
    signature = re.match(r"\w+\((.*)\) -> ", native.__doc__ or "")
    assert signature is not None
    flat = signature[1]
    while flat != (flat := re.sub(r"\[[^\[\]]*\]", "", flat)):
        pass  # the brackets of types
    parameters = [part.split(":")[0].strip() for part in flat.split(",") if part.strip() != "*"]
    stub = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    assert [argument.arg for argument in stub] == [each for each in parameters if each]
