"""Pages of the site whose source is not in docs/, and links between them.

Links in all sources point to files of the repository, so that they work there. On the site a link to a file
of `_pages` leads to its page.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {  # source: page
    "README.md": "index.md",
    "examples/train.py": "example.md",
    "examples/gpu_train.py": "gpu_example.md",
    **{
        f"examples/{name}.py": f"{name}.md"
        for name in ("torch_train", "torch_language_model", "torch_ddp", "torch_lightning")
    },
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "SECURITY.md": "security_policy.md",
    "benchmarks/README.md": "benchmarks.md",
    **{
        f"benchmarks/results/{path.name}": f"results/{path.name}"
        for path in (ROOT / "benchmarks" / "results").glob("*.md")
    },
}
SOURCES = {page: source for source, page in PAGES.items()}


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".py"):
            text = f"# {source}\n\n```python\n{text}```\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def on_site(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match["path"]))
        target = PAGES.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{match['anchor']})"

    return re.sub(r"\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*|)\)", on_site, markdown)
