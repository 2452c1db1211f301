"""Compressed groups give the bits that they have always given, and take up states of earlier versions."""

from __future__ import annotations

import json

import pytest
import recorded
import ronde

ronde.init()

DIGESTS = json.loads(recorded.DIGESTS.read_text())
STATES = json.loads(recorded.STATES.read_text())


@pytest.mark.parametrize("name", recorded.METHODS)
def test_results_and_states_are_the_recorded_ones(name: str) -> None:
    assert recorded.digests(name) == DIGESTS[name]


@pytest.mark.parametrize("name", recorded.KEPT)
def test_states_of_earlier_versions_are_taken_up(name: str) -> None:
    states = recorded.from_json(STATES[name])
    job = recorded.KEPT_JOB
    results = recorded.run(recorded.METHODS[name], job, list(states))
    found = [recorded.digest_of(each) for each in zip(*results, strict=True)]
    assert found == DIGESTS[name][f"{job} restored on {job}"]
