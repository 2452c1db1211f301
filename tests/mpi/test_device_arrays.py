"""Jobs whose arrays are in the memory of a GPU, which the fake driver has."""

from __future__ import annotations

import pytest
from fakes import NATIVE, needs_fakes
from jobs import run


@needs_fakes
@pytest.mark.parametrize("shared", ["0", "1"])
@pytest.mark.parametrize("kind", ["interface", "mixed"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_collectives_of_device_arrays(ranks: int, kind: str, shared: str) -> None:
    variables = {"LD_LIBRARY_PATH": str(NATIVE / "fake"), "FAKE_CUDA_DELAYS": "7"}
    job = run(ranks, "device_arrays.py", kind, RONDE_SHARED_MEMORY=shared, **variables)
    assert job.status == 0, job.output
    assert "as with NumPy arrays" in job.output
