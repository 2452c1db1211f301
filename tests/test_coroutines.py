"""`co_await` stands alone in its statement, as csrc/collective/task.h asks for: g++ 12 miscompiles
some other uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

CSRC = Path(__file__).parent.parent / "csrc"

COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\])*"|(?<!\w)'(?:\\.|[^'\\])+'""",
    re.DOTALL,
)
TOKEN = re.compile(r"[(){};]|\bco_await\b")


def parentheses(inside: str, depth: int = 6) -> str:
    """A pattern for a pair of parentheses, around characters of `inside` and other pairs."""
    pattern = rf"\({inside}*\)"
    for _ in range(depth):
        pattern = rf"\((?:{inside}|{pattern})*\)"
    return pattern


TYPE = r"[A-Za-z_][\w:]*(?:<[\w:<>,* ]*>)?\**"
NAME = r"[A-Za-z_]\w*(?:<[\w:<>,* ]*>)?"
NAMES = rf"{NAME}(?:\[\w+\])?(?:(?:::|\.|->){NAME}(?:\[\w+\])?)*"  # lanes[0]->agree
IF = rf"(?:else )?(?:if (?:constexpr )?{parentheses('[^()]')} )?"
RESULT = rf"(?:co_return |(?:(?!co_return |do |throw )(?:const )?{TYPE} )?{NAMES} = )?"
# Lambdas have braces too.
ALONE = re.compile(rf"{IF}{RESULT}co_await {NAMES}(?:{parentheses('[^(){}?]')})?")


def plain(text: str) -> str:
    """The text on the same lines, without comments and without what is in quotes."""

    def blank(match: re.Match[str]) -> str:
        quotes = " " if match[0].startswith("/") else '""'
        return quotes + "\n" * match[0].count("\n")

    return COMMENT_OR_LITERAL.sub(blank, text)


def awaits(text: str) -> Iterator[tuple[int, str]]:
    """The line of each `co_await` of a plain text, and its statement up to the next semicolon."""
    begin = 0  # of the statement
    outside: list[tuple[str, int]] = []  # open brackets, and the statement that each is in
    for token in TOKEN.finditer(text):
        kind = token[0]
        if kind == "co_await":
            statement = text[begin : text.find(";", token.end())]
            yield text.count("\n", 0, token.start()) + 1, " ".join(statement.split())
        elif kind in "({":
            outside.append((kind, begin))
        elif kind in ")}" and outside:
            begin = outside.pop()[1]
        if kind == "{" or (kind in "};" and not (outside and outside[-1][0] == "(")):
            begin = token.end()


def violations(files: Iterable[tuple[str, str]]) -> Iterator[str]:
    """For pairs of a path and a text: where `co_await` does not stand alone."""
    for path, text in files:
        for line, statement in awaits(plain(text)):
            if statement.count("co_await") > 1 or not ALONE.fullmatch(statement):
                yield f"{path}:{line}: {statement}"


def test_co_await_stands_alone() -> None:
    files = [
        (str(file.relative_to(CSRC)), file.read_text())
        for file in sorted(CSRC.rglob("*"))
        if file.suffix in {".h", ".cc"}
    ]
    assert sum(len(list(awaits(plain(text)))) for _, text in files) > 20
    assert list(violations(files)) == []


GOOD = """
co_await work;
co_await std::move(work);
co_await lane.run<float>(piece[0], *lane.across(), size > 1'000, 'c', "{ ? co_await");
auto y = co_await x;
const std::vector<int> got = co_await self->all(a,
                                                b);  // if (co_await x) ?
Frame* frame = co_await x;
y.z = co_await std::make_shared<Round<int>>();
co_await calls[0]->begin();
if (f({1}, [] { return 1; }) ? a : b) co_await x;
if constexpr (kTwo) { co_await x; } else co_return co_await x;
if (a) b(); else if (c) y = co_await x;
spawn([&]() -> Task<> { co_await x; });
for (int i = 0; i < 3; ++i) { /* co_await + */ co_await x; }
"""

BAD = """
co_await (c ? a() : b());
co_await f(c ? a : b);
co_await f({a, 1});
co_await f(Element{});
co_await f(g([] { return 1; }));
co_await f(co_await x);
co_await f(a).second;
co_await f(a)(b);
co_await f() + 1;
f(co_await x);
pair = {co_await x, 1};
int y{co_await x};
const auto [a, b] = co_await x;
sum += co_await x;
const auto got = !co_await x;
co_return y = co_await x;
co_return 1 + co_await x;
if (co_await x) f();
if (const auto y = co_await x; y) f();
while (co_await x) continue;
for (const auto& one : co_await x) f();
for (int i = 0; co_await x; ++i) f();
switch (co_await x) {}
#define AWAIT(x) co_await x;
"""


def test_violations_are_found() -> None:
    assert list(violations([("good.cc", f"Task<> f() {{{GOOD}}}")])) == []
    for statement in BAD.strip().splitlines():
        assert list(violations([("bad.cc", f"Task<> f() {{\n  g();\n  {statement}\n}}")])), (
            statement
        )
    multi_line = 'f("\\"");\n/* a\n b */ y = co_await g(a,\n  {b});'
    assert list(violations([("core/x.h", multi_line)])) == ["core/x.h:3: y = co_await g(a, {b})"]
