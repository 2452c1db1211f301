"""The blocks of code of a page, and the comments above them that say how they are run.

CONTRIBUTING.md lists the comments. This file is a program too: it runs the Python blocks of a page, in
order and in one namespace, on all ranks of a launcher.

    mpirun -n 4 python tests/docs/blocks.py docs/optimizer.md
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^(?P<comments>(?:[ ]*<!--(?:(?!-->).)*-->\s*\n)*)"
    r"(?P<indent>[ ]*)```(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"<!--\s*([a-z ]+?)\s*(?::[ ]?(.*?))?\s*-->", re.DOTALL)
_COMMENTS = {
    *(
        "not run",
        "needs",
        "without",
        "ranks",
        "file",
        "before",
        "output",
        "of",
        "figures vary",
        "status",
    )
}
_HIDDEN_FILE = re.compile(r"^<!-- hidden file ([\w.]+):\n(.*?)-->$", re.MULTILINE | re.DOTALL)

_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_FIGURE = rf"{_NUMBER}(?:[ ]*(?:[KMG]iB|[KMG]?B|[mun]?s)\b)?"
_TOKEN = re.compile(rf"(?P<any>\.\.\.)|(?P<figure>(?<!\w){_FIGURE})|(?P<space>[ ]+)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # of its text
    language: str
    text: str
    comments: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def is_python(self) -> bool:
        """Whether it is part of the page's program."""
        return self.language == "python" and not self.comments.keys() & {"not run", "file"}

    @property
    def is_shell(self) -> bool:
        if "not run" in self.comments:
            return False
        if self.language == "":
            return "of" in self.comments or self.text.startswith(("$ ", "ronde "))
        return self.language in ("bash", "sh", "console")

    def commands(self) -> Iterator[tuple[str, str | None]]:
        """Each command with what it prints; None where the block shows commands only.

        Raises `ValueError` where the comment `without` leaves out nothing.
        """
        if "of" in self.comments:
            yield self.comments["of"], f"...\n{self.text}...\n"
            return
        if not self.text.startswith("$ "):
            lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
            left_out = re.findall(r"(\S+) \([^)]*\)", self.comments.get("without", ""))
            if stale := [word for word in left_out if not any(word in line for line in lines)]:
                raise ValueError(f"{self.name} has no command with {', '.join(stale)}")
            for line in filter(str.strip, lines):
                if not any(word in line for word in left_out):
                    yield line, None
            return
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def read(page: Path) -> list[Block]:
    """The blocks of a page. Raises `ValueError` for a comment that nobody understands."""
    source = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(source):
        line = source.count("\n", 0, match.start("text")) + 1
        comments = {name: text or "" for name, text in _COMMENT.findall(match["comments"])}
        if wrong := comments.keys() - _COMMENTS:
            raise ValueError(f"{page.name}:{line}: there is no comment {', '.join(wrong)}")
        text = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        found.append(Block(page, line, match["language"], text, comments))
    return found


def files(page: Path) -> dict[str, str]:
    """What its commands find beside them: blocks with the comment `file`, and hidden files."""
    shown = {block.comments["file"]: block.text for block in read(page) if "file" in block.comments}
    return shown | dict(_HIDDEN_FILE.findall(page.read_text(encoding="utf-8")))


def require_same(block: Block, expected: str, printed: str) -> None:
    """Raises `AssertionError` unless that is what the block shows; `...` is any text, or any lines."""
    words = [_pattern(line, "figures vary" in block.comments) for line in expected.splitlines()]
    if not re.fullmatch("".join(words), "".join(f"{x.rstrip()}\n" for x in printed.splitlines())):
        raise AssertionError(f"{block.name} shows\n{expected}\nbut it is\n{printed}")


def _pattern(line: str, vary: bool) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*"
    line, pattern, end = line.rstrip(), "", 0
    for token in _TOKEN.finditer(line):
        pattern += re.escape(line[end : token.start()])
        end = token.end()
        if token["any"]:
            pattern += ".*"
        elif not vary:
            pattern += re.escape(token[0])
        else:
            pattern += _FIGURE if token["figure"] else "[ ]+"
    return pattern + re.escape(line[end:]) + r"\n"


def run_python(page: Path) -> None:
    """Runs the page's program on this rank."""
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = read(page)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if not block.is_python:
            continue
        if "before" in block.comments:
            exec(
                compile(textwrap.dedent(block.comments["before"]), f"{block.name}, before", "exec"),
                names,
            )
        printed = io.StringIO()
        code = "\n" * (block.line - 1) + block.text  # so that tracebacks show the page's lines
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), names)
        if following is not None and "output" in following.comments and _is_first():
            require_same(following, following.text, printed.getvalue())


def _is_first() -> bool:
    import ronde

    return not ronde.is_initialized() or ronde.rank() == 0


if __name__ == "__main__":
    run_python(Path(sys.argv[1]))
