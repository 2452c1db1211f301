#!/usr/bin/env python3
"""Compile a kernel file for one architecture, with NVRTC, which needs neither a toolkit nor a GPU.

    python compile.py kernels/reduce.cu --architecture 90 --output reduce.sm_90.cubin

NVRTC is that of the package nvidia-cuda-nvrtc-cu12, or the library that --nvrtc names. Its version 12.9 knows
all architectures from sm_70 to sm_120, and its cubins (version 7 of their ABI) suit every driver of CUDA 12
and newer ones. A kernel may use no more registers than --registers, and no memory for what they do not hold:
then the compilation fails.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import re
import sys
from pathlib import Path

USAGE = re.compile(r"Used (\d+) registers")
FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


class Error(Exception):
    pass


OLDEST, AFTER_NEWEST = (12, 8), (13, 0)  # that know all architectures


def find_nvrtc() -> Path | None:
    """The library of the package, if that is installed in a version that suits."""
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        for library in sorted(Path(folder).glob("lib/libnvrtc.so.*")):
            if OLDEST <= Nvrtc(library).version() < AFTER_NEWEST:
                return library
    return None


class Nvrtc:
    def __init__(self, library: Path) -> None:
        try:
            self.library = ctypes.CDLL(str(library))
        except OSError as error:
            raise Error(str(error)) from None
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, function: str, *arguments: object) -> None:
        result = self.library[function](*arguments)
        if result:
            raise Error(f"{function}: {self.library.nvrtcGetErrorString(result).decode()}")

    def version(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(self, source: Path, options: list[str]) -> tuple[bytes, str]:
        """The cubin, and what the compiler said."""
        headers = sorted(source.parent.glob("*.h"))
        program = ctypes.c_void_p()
        self.call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.read_bytes(),
            str(source).encode(),
            len(headers),
            (ctypes.c_char_p * len(headers))(*(each.read_bytes() for each in headers)),
            (ctypes.c_char_p * len(headers))(*(each.name.encode() for each in headers)),
        )
        encoded = [each.encode() for each in options]
        try:
            self.call(
                "nvrtcCompileProgram",
                program,
                len(encoded),
                (ctypes.c_char_p * len(encoded))(*encoded),
            )
        except Error as error:
            raise Error(f"{error}\n{self.text(program)}") from None
        return self.get(program, "nvrtcGetCUBIN"), self.text(program)

    def get(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self.call(f"{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(what, program, buffer)
        return buffer.raw

    def text(self, program: ctypes.c_void_p) -> str:
        return self.get(program, "nvrtcGetProgramLog").rstrip(b"\0").decode()


def usage(log: str) -> dict[str, tuple[int, int]]:
    """For each kernel its registers, and the bytes that it keeps in memory for want of them."""
    found = {}
    name, memory = "", 0
    for line in log.splitlines():
        if match := FUNCTION.search(line):
            name, memory = match[1], 0
        elif match := MEMORY.search(line):
            memory = sum(map(int, match.groups()))
        elif match := USAGE.search(line):
            found[name] = int(match[1]), memory
    return found


def check(log: str, most: int) -> None:
    kernels = usage(log)
    if not kernels:
        raise Error(f"the compiler says nothing of any kernel:\n{log}")
    wrong = [
        f"{name} uses {registers} registers and {memory} bytes of memory beside them"
        for name, (registers, memory) in kernels.items()
        if registers > most or memory
    ]
    if wrong:
        raise Error("\n".join([f"at most {most} registers, and no memory:", *wrong]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, nargs="?", help="a .cu file; headers lie beside it")
    parser.add_argument("--architecture", default="90", help="of the cubin, 90 for sm_90 (90)")
    parser.add_argument("--output", type=Path, help="where the cubin goes")
    parser.add_argument("--nvrtc", type=Path, help="the library to compile with")
    parser.add_argument("--registers", type=int, default=128, help="of a thread, at most (128)")
    parser.add_argument("--find", action="store_true", help="only print where NVRTC is")
    parser.add_argument("--usage", action="store_true", help="print what each kernel uses")
    options = parser.parse_args()
    library = options.nvrtc or find_nvrtc()
    if options.find:
        print(library or "")
        return
    if not options.source:
        parser.error("a source is needed")
    if not library:
        sys.exit("no NVRTC: install nvidia-cuda-nvrtc-cu12, or name the library by --nvrtc")
    try:
        cubin, log = Nvrtc(library).compile(
            options.source,
            [
                f"--gpu-architecture=sm_{options.architecture}",
                "--std=c++17",
                "--fmad=false",
                "--ptxas-options=--verbose",
            ],
        )
        check(log, options.registers)
    except Error as error:
        sys.exit(f"{options.source} for sm_{options.architecture}: {error}")
    for name, (registers, memory) in usage(log).items() if options.usage else []:
        print(f"{name:<40} {registers:4} registers {memory:6} bytes")
    if options.output:
        options.output.write_bytes(cubin)


if __name__ == "__main__":
    main()
