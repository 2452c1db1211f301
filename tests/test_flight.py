"""Who waits for whom, by flight records that are made up, or of ranks that are threads."""

from __future__ import annotations

import argparse
import re
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from ronde import _flight, _report, settings
from ronde.cli import inspect, remains


def call(what: str, state: str, sequence: int = 0, peer: int = -1) -> Any:
    return SimpleNamespace(
        what=what,
        state=state,
        sequence=sequence,
        peer=peer,
        number=1,
        bytes=8,
        submitted=1.0,
        began=1.0,
        ended=0.0,
        route="",
        site="",
    )


def lane(*calls: Any, number: int = 0, is_open: bool = True, of: int = 0) -> Any:
    return SimpleNamespace(set=of, lane=number, open=is_open, calls=list(calls))


class Reader:
    """Of a record that is made up."""

    local_size = size = 2
    job, host, phase = "job", "node1", ""

    def __init__(self, rank: int, *lanes: Any) -> None:
        self.rank, self.process, self._lanes = rank, 10_000_000 + rank, list(lanes)
        self.claims: list[float] = []

    def lanes(self) -> Any:
        return self._lanes

    def claim(self, seconds: float) -> bool:
        self.claims.append(seconds)
        return len(self.claims) == 1


def ranks(*readers: Reader) -> list[_flight.Rank]:
    return [_flight.seen(reader) for reader in readers]  # type: ignore[arg-type]


def row(text: str, what: str) -> str:
    return next(line for line in text.splitlines() if what in line)


def test_a_lane_that_has_ended_says_nothing_about_the_next() -> None:
    ended = lane(call("init#", "done", 7), is_open=False)
    late = Reader(1, ended, lane(call("allreduce/a", "done", 1)))
    waits = Reader(0, ended, lane(call("allreduce/b", "begun", 2)))
    assert "rank 1" in row(_flight.render(ranks(waits, late)), "'b'")


def test_asynchronous_calls_wait_for_ranks_that_lack_them_or_for_a_message() -> None:
    first = Reader(
        0,
        lane(),
        lane(call("allreduce/w", "submitted"), call("allreduce/v", "begun", peer=1), number=1),
    )
    text = _flight.render(ranks(first, Reader(1, lane())))
    assert "rank 1" in row(text, "submitted: allreduce 'w'")
    assert "rank 1" in row(text, "runs: allreduce 'v'")
    both = _flight.render(ranks(first, Reader(1, *first.lanes())))
    assert "rank" not in row(both, "submitted: allreduce 'w'")


def test_inspect_shows_ranks_that_end_while_it_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [{("job", 1): Reader(0, lane(call("allreduce/w", "begun")))}, {}]
    monkeypatch.setattr(_flight, "find", lambda processes: answers.pop(0))
    assert inspect.run(argparse.Namespace(process=1, last=5)) == 0
    assert "allreduce 'w'" in capsys.readouterr().out


def test_the_launcher_says_once_what_ranks_did(capsys: pytest.CaptureFixture[str]) -> None:
    records = remains.Records()
    waiting = [Reader(rank, lane(call("allreduce/w", "begun"))) for rank in (1, 0)]
    records._found = {("job", each.process): each for each in waiting}  # type: ignore[misc]
    records.report()
    records.report()
    assert capsys.readouterr().err.count("ranks of the job") == 1
    assert len(waiting[1].claims) == 2 and not waiting[0].claims  # at the record of rank 0


def test_a_report_that_fails_does_not_reach_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(_report.Reporter, "text", fail)
    _report.Reporter().report("why")


def test_a_signal_of_native_code_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with pytest.raises(ValueError, match="SIGUSR2 has a handler already"):
        _report.Reporter().listen(signal.SIGUSR2)


@pytest.mark.parametrize("name", ["CHLD", "CLD", "ABRT", "SIGIOT", "kill"])
def test_signals_that_are_taken_are_refused_by_all_their_names(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape("it cannot be used for that")):
        settings.load({"RONDE_REPORT_SIGNAL": name})
