"""Runs the worker in an environment without Ronde: this folder becomes a package of its own."""

import importlib
import os
import sys
import types

if __name__ == "__main__":
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path = [path for path in sys.path if path != folder]  # its modules must not hide others
    package = types.ModuleType("ronde_bench")
    package.__path__ = [folder]
    sys.modules[package.__name__] = package
    importlib.import_module("ronde_bench.worker").main()
