"""The tuning file: where it is, that it comes back as it was written, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ronde import __version__, tuning

LINK = {"alpha": 2e-5, "overhead": 5e-6, "beta": 1e-9, "gamma": 2e-10}
MADE = tuning.Tuning(
    tuning.Conditions("Open MPI 5.0.11", ["A, 2 cores"], 2, [2]),
    ["node1", "node2"],
    "2026-01-02 03:04+00:00",
    {tuning.BETWEEN: LINK | {"beta": 8e-9}, tuning.INSIDE: LINK},
    128 << 10,
)


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "tuning.json"
    tuning.write(str(path), MADE)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_where_it_is() -> None:
    home = os.path.expanduser("~")
    usual = f"{home}/.config/ronde/tuning.json"
    assert tuning.path({}) == usual
    assert tuning.path({"XDG_CONFIG_HOME": "/etc/xdg"}) == "/etc/xdg/ronde/tuning.json"
    assert tuning.path({"XDG_CONFIG_HOME": "not/absolute"}) == usual
    assert tuning.path({"RONDE_TUNING_FILE": "here.json"}) == "here.json"
    assert tuning.path({"RONDE_TUNING_FILE": "~/here.json"}) == f"{home}/here.json"
    assert tuning.path({"RONDE_TUNING_FILE": ""}) is None
    assert tuning.path({"RONDE_TUNING_FILE": "none"}) is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "tuning.json"
    for tuned in (MADE, dataclasses.replace(MADE, segment_bytes=32 << 10)):
        tuning.write(str(path), tuned)
        assert tuning.parse(tuning.read(str(path))) == tuned
    assert list(path.parent.iterdir()) == [path]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    tuning.write(str(link), MADE)
    assert link.is_symlink()
    assert tuning.parse(target.read_text()) == MADE


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file / "tuning.json", tmp_path):
        for attempt in (tuning.require_writable, lambda path: tuning.write(path, MADE)):
            with pytest.raises(OSError):
                attempt(str(path))
    assert list(tmp_path.iterdir()) == [file]
    tuning.require_writable(str(tmp_path / "folder" / "tuning.json"))
    assert list((tmp_path / "folder").iterdir()) == []


def test_which_link_is_whose() -> None:
    between, inside = MADE.link_between(["a", "b", "b"]), MADE.link_between(["a", "a"])
    assert between is not None and inside is not None
    assert (between.beta, inside.beta) == (8e-9, 1e-9)
    assert dataclasses.replace(MADE, links={}).link_between(["a", "b"]) is None


def test_what_it_is_good_for() -> None:
    def here(**changes: Any) -> str:
        return tuning.why_not(MADE, dataclasses.replace(MADE.made_for, **changes))

    assert here() == ""
    assert here(machines=5) == ""
    assert "on 2 machines, and the ranks are on one machine" in here(machines=1)
    assert "with 2 ranks on a machine, and there are 1 or 2" in here(ranks_per_machine=[1, 2])
    assert "under Open MPI 5.0.11, and this is MPICH 5.0.2" in here(mpi="MPICH 5.0.2")
    assert "(A, 2 cores), and this is A, 2 cores and B" in here(processors=["A, 2 cores", "B"])


def test_conditions_of_a_job() -> None:
    found = tuning.conditions("M 1", ["b", "a", "b"], ["Y", "X", "Y"])
    assert found == tuning.Conditions("M 1", ["X", "Y"], 2, [1, 2])


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("format", 2, "its format"),
        ("format", None, "its format"),
        ("ronde", "0.0.1", f"made by Ronde 0.0.1, and this is {__version__}"),
        ("segment_bytes", "128K", "no whole number"),
        ("segment_bytes", True, "is no number"),
        ("segment_bytes", 10**400, "is not between"),
        ("segment_bytes", 1, "is not between 4096 and"),
        ("links", {"between": {}}, "not complete"),
        ("links", [], "not complete"),
        ("links", {"inside": "fast"}, "not complete"),
        ("made_for", None, "not complete"),
        ("hosts", 3, "not complete"),
    ],
)
def test_what_cannot_be_is_refused(
    written: dict[str, Any], field: str, value: Any, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        tuning.parse(json.dumps(written | {field: value}))


@pytest.mark.parametrize("value", [0, -1e-9, float("nan"), float("inf"), 1e300, "1e-9", None, True])
@pytest.mark.parametrize("field", LINK)
def test_a_link_that_cannot_be_is_refused(written: dict[str, Any], field: str, value: Any) -> None:
    written["links"]["between"][field] = value
    with pytest.raises(ValueError, match=f"its {field} is "):
        tuning.parse(json.dumps(written))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 60_000, "\0", "\ufffd"])
def test_what_is_no_file_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        tuning.parse(text)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(st.sampled_from(["made_for", "hosts", "date", "links", "segment_bytes"]), _json)
)
def test_nothing_but_a_value_error_comes_of_it(fields: dict[str, Any]) -> None:
    whole = {"format": 1, "ronde": __version__, **dataclasses.asdict(MADE)}
    with contextlib.suppress(ValueError):
        tuning.parse(json.dumps(whole | fields))


def test_what_is_too_long_or_no_file_is_not_read(tmp_path: Path) -> None:
    long = tmp_path / "long"
    long.write_text(" " * (1 << 17))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (long, pipe, tmp_path):
        with pytest.raises(ValueError):
            tuning.read(str(path))
    with pytest.raises(FileNotFoundError):
        tuning.read(str(tmp_path / "none"))
