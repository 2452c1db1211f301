"""The example of docs/optimizer.md that saves and restores what compression has left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "optimizer.md"


def test_the_checkpoint_with_feedback_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "load_state_dict" in block]
    monkeypatch.chdir(tmp_path)
    runs: list[dict[str, Any]] = [{}, {}]
    for names in runs:
        exec(block, names)
    assert [names["first"] for names in runs] == [0, 10]
    (before, after) = [names["feedback"].state_dict()["steps"] for names in runs]
    assert after == {name: steps + 10 for name, steps in before.items()}
    assert not np.array_equal(runs[0]["params"][0], runs[1]["params"][0])
