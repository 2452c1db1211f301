"""A wrong argument is refused in words, on this rank, before anything is sent."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import ronde
from ronde import compression as rc
from ronde import settings

# One process, as MPI can be started only once in each.
PROGRAM = """
import re
import numpy as np
import ronde

x = np.ones(4)


def refused(error, words, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as raised:
        assert type(raised) is error, (call, raised)
        assert re.search(words, str(raised)), (call, raised)
    else:
        raise AssertionError((call, args, kwargs))


refused(TypeError, "communicator of mpi4py", ronde.init, 5)
refused(TypeError, "communicator of mpi4py", ronde.init, [0, 1])
from mpi4py import MPI
refused(ValueError, "COMM_NULL", ronde.init, MPI.COMM_NULL)
ronde.init()

refused(TypeError, "op must be one of", ronde.allreduce, x, op="sum")
refused(TypeError, "name must be a string", ronde.allreduce, x, name=5)
refused(TypeError, "name must be a string", ronde.barrier, 0)
refused(TypeError, "prescale_factor must be a number", ronde.allreduce, x, prescale_factor="a")
refused(ValueError, "too large", ronde.allreduce, x, postscale_factor=10**400)
refused(TypeError, "need a floating type", ronde.allreduce, np.ones(3, int), ronde.Sum, prescale_factor=2)
refused(TypeError, "process_set must be", ronde.gather, x, process_set=[0])
for call in (ronde.reduce, ronde.gather, ronde.broadcast, ronde.scatter, ronde.broadcast_object):
    refused(ValueError, "not one of the ranks 0 to 0", call, x, 1)
    refused(ValueError, "not one of the ranks 0 to 0", call, x, -1)
    refused(ValueError, "not one of the ranks 0 to 0", call, x, 2**40)
    refused(TypeError, "whole number", call, x, "0")
    refused(TypeError, "whole number", call, x, 0.0)
    refused(TypeError, "whole number", call, x, None)
    refused(TypeError, "pass op=ronde.Sum", call, x, ronde.Sum)
    call(x, np.int64(0))
refused(TypeError, "at least one dimension", ronde.reducescatter, np.float64(1))
refused(TypeError, "at least one dimension", ronde.alltoall, 3.0)
refused(TypeError, "at least one dimension", ronde.scatter, np.array(1.0))
refused(TypeError, "must pass an array", ronde.scatter)
refused(TypeError, "whole numbers", ronde.alltoall, x, [4.7])
refused(TypeError, "whole numbers", ronde.alltoall, x, "4")
refused(ValueError, "2 entries for 1 ranks", ronde.alltoall, x, [2, 2])
refused(ValueError, "do not add up to the 4 rows", ronde.alltoall, x, [3])
refused(ValueError, "do not add up to the 4 rows", ronde.scatter, x, splits=[-4])
assert ronde.alltoall(x, np.array([4]))[1] == [4]
refused(TypeError, "masked", ronde.allreduce, np.ma.masked_array(x, x > 0))
refused(ValueError, "read only", ronde.allreduce_, np.broadcast_to(1.0, 3))
refused(TypeError, "list of ranks", ronde.ProcessSet, 5)
refused(TypeError, "whole numbers", ronde.ProcessSet, [0.5])
refused(TypeError, "whole numbers", ronde.ProcessSet, ["0"])
refused(ValueError, "from 0 on", ronde.ProcessSet, [-1])
refused(ValueError, "twice", ronde.ProcessSet, [0, 0])
refused(ValueError, "at least one", ronde.ProcessSet, [])
assert ronde.ProcessSet(np.arange(2)).ranks == [0, 1]
refused(ValueError, "no rank 3", ronde.add_process_set, [0, 3])
refused(ValueError, "already", ronde.add_process_set, [0])
refused(TypeError, "ronde.ProcessSet", ronde.remove_process_set, 5)
refused(ValueError, "cannot be removed", ronde.remove_process_set, ronde.global_process_set)
refused(ronde.RondeError, "not in use", ronde.ProcessSet([0]).size)
refused(ronde.RondeError, "not in use", ronde.barrier, process_set=ronde.ProcessSet([0]))

# All of it has left Ronde as it was.
unaligned = np.frombuffer(bytearray(4 * 8 + 1), np.uint8)[1:].view(np.float64)
unaligned[:] = 3
assert not unaligned.flags.aligned
ronde.allreduce_(unaligned)
assert (ronde.allreduce(unaligned) == 3).all()
matrix = ronde.allreduce(np.matrix([[1.0, 2.0]]))
assert type(matrix) is np.ndarray
print("all refused")
"""


def test_wrong_arguments_are_refused_in_words() -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "all refused" in result.stdout


ronde.init()

x = np.ones((2, 2), np.float32)
payload, ctx = rc.int8().compress(x)


def sgd(params: Any, grads: Any) -> Any:
    return params


# A call, and the words that the error must have: the argument, the value, and what to do.
REFUSED = {
    "ronde.allreduce(3)": ["int64", "op=ronde.Sum", "np.asarray(x, np.float32)"],
    "ronde.allreduce([1.0])": ["x: an array", "not list", "np.asarray"],
    "ronde.allreduce_(3.0)": ["x: a number (3.0)", "np.asarray(3.0)", "allreduce"],
    "ronde.broadcast_(3)": ["x: a number (3)", "np.asarray(3)"],
    "ronde.allreduce(x, process_set=0)": ["process_set", "None for all ranks", "not 0"],
    "ronde.allreduce(x, compression=rc.int4)": ["call it", "ronde.compression.int4(...)"],
    "ronde.allreduce(x, compression=rc.dgc)": ["call it", "ronde.compression.dgc(...)"],
    "ronde.allreduce(x, compression=rc.Auto)": ["call it", "Auto(...)"],
    "ronde.allreduce(x, compression=3)": ["compression must be", "int8()", "not 3"],
    "ronde.allreduce(x, compression='int5')": ["compression='int5'", "did you mean 'int"],
    "ronde.allreduce(x, compression='threshold')": ["ronde.compression.threshold(...)"],
    "ronde.allreduce(x, compression='int8', prescale_factor='a')": ["prescale_factor", "'a'"],
    "ronde.grouped_allreduce({'a': x})": ["xs", "not a dictionary", "list(xs.values())"],
    "ronde.grouped_allreduce(None)": ["xs must be a list of arrays, not None"],
    "ronde.grouped_allreduce([x, 'b'])": ["xs[1]", "not str"],
    "ronde.grouped_allreduce_([x, 3.0])": ["xs[1]", "np.asarray(3.0)"],
    "ronde.grouped_allreduce([x], compression=[None, None])": ["2 entries for 1 arrays"],
    "ronde.grouped_allgather({'a': x})": ["xs", "not a dictionary", "list(xs.values())"],
    "ronde.grouped_allgather([x], 3)": ["name must be a string, not 3"],
    "ronde.grouped_allgather([x, 'b'])": ["xs[1]", "not str"],
    "ronde.grouped_reducescatter([x, 'b'])": ["xs[1]", "not str"],
    "ronde.grouped_reducescatter(3)": ["xs must be a list of arrays, not 3"],
    "ronde.alltoall(x, splits=2.5)": ["splits must be a list of whole numbers", "2.5"],
    "ronde.broadcast_parameters({'w': x, 's': 3.0})": ["params['s']", "np.asarray(3.0)"],
    "ronde.broadcast_parameters({'w': {'v': x}})": ["params['w']", "not dict"],
    "ronde.broadcast_parameters(None)": ["params must be a dictionary of arrays", "not None"],
    "ronde.empty(2.5)": ["shape must be", "(2, 3)", "2.5"],
    "ronde.empty(3, 'x')": ["dtype must be", "np.float32", "'x'"],
    "ronde.empty(-1)": ["shape (-1,)", "negative"],
    "ronde.init(process_sets=3)": ["process_sets must be a list", "3"],
    "ronde.init(process_sets=[[0], [5]])": ["process_sets", "without [5]", "add_process_set"],
    "ronde.init(3)": ["comm must be a communicator of mpi4py, not int"],
    "ronde.add_process_set(3)": ["ranks", "[3]"],
    "ronde.remove_process_set(3)": ["process_set must be", "add_process_set", "3"],
    "ronde.DistributedOptimizer(sgd, compression=rc.int4)": ["call it", "int4(...)"],
    "ronde.DistributedOptimizer(sgd, compression={'w': 3})": ["compression['w'] must be", "not 3"],
    "ronde.DistributedOptimizer(sgd, backward_passes_per_step=1.5)": ["backward_passes", "1.5"],
    "ronde.DistributedOptimizer(sgd, prescale_factor='b')": ["prescale_factor must be", "'b'"],
    "ronde.DistributedOptimizer(sgd, name=3)": ["name must be a string, not 3"],
    "ronde.DistributedOptimizer(sgd)(None, {'w': 'b'})": ["grads['w']", "not str"],
    "rc.ErrorFeedback(rc.auto())": ["keeps its own residual", "compression="],
    "rc.ErrorFeedback(rc.int4)": ["compressor=", "call it"],
    "rc.ErrorFeedback(None)": ["compressor must be one of ronde.compression", "not None"],
    "rc.ErrorFeedback('int4').load_state_dict({})": [
        "state",
        "state_dict()",
        "no where, residuals",
    ],
    "rc.auto().load_state_dict({})": ["state", "state_dict()", "codecs"],
    "rc.dgc().load_state_dict([None])": ["state", "state_dict()", "None"],
    "rc.powersgd().load_state_dict({})": ["state", "factors and steps"],
    "rc.auto().rescale('x')": ["factor must be a number, not 'x'"],
    "rc.auto('int8')": ["candidates must be a list", "'int8'"],
    "rc.auto([rc.dgc()])": ["candidates", "dgc"],
    "rc.auto(min_loss_decrease=2)": ["min_loss_decrease", "from 0 to 1", "2"],
    "rc.linear(2.5)": ["bits must be a whole number, not 2.5"],
    "rc.linear(4, norm=3)": ["norm must be one of max, mean, l2, not 3"],
    "rc.shared_scale(2.5)": ["bits must be a whole number, not 2.5"],
    "rc.powersgd(2.5)": ["rank must be a whole number, not 2.5"],
    "rc.topk(2)": ["ratio", "above 0 and at most 1", "not 2"],
    "rc.block_topk(0.1, 2.5)": ["block must be a whole number, not 2.5"],
    "rc.dgc(clip='x')": ["clip must be a number, not 'x'"],
    "rc.threshold('x')": ["value must be a number, not 'x'"],
    "rc.int8().decompress(3, ctx)": ["payload must be the array", "not 3"],
    "rc.int8().decompress(payload, 3)": ["ctx must be what compress() returned", "not 3"],
    "rc.int8().payload_bytes('x')": ["elements must be a whole number, not 'x'"],
}


@pytest.mark.parametrize("call", REFUSED)
def test_errors_name_the_argument_the_value_and_the_remedy(call: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        eval(call)
    for words in REFUSED[call]:
        assert words in str(raised.value)


def test_names_of_compressors_and_no_process_set_are_enough() -> None:
    for name in rc.__all__:
        if name[0].islower() and name != "threshold":
            assert ronde.allreduce(x, name="w", compression=name).shape == x.shape
            ronde.DistributedOptimizer(sgd, compression=name)(None, [x])
    assert rc.ErrorFeedback("int4").compressor == rc.int4()
    np.testing.assert_array_equal(ronde.broadcast(x, process_set=None), x)
    ronde.broadcast_parameters([x], process_set=None)
    ronde.DistributedOptimizer(sgd, process_set=None)(None, [x])
    ronde.init(process_sets=[[0]])  # as there is


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RONDE_STALL_TIMEOUT", "1h", "'1h' is not a number of seconds"),
        (
            "RONDE_STALL_WARNING",
            "-1",
            "'-1' is not a number of seconds (must be seconds, 0 for never)",
        ),
        ("RONDE_WINDOW", "1e3", "'1e3' is not a whole number"),
        (
            "RONDE_ALGORITHM",
            "\x1b[2J:ring",
            r"'\x1b[2J:ring' is not a list like allreduce:ring,broadcast:tree "
            r"(no such collective: '\x1b[2J:ring')",
        ),
    ],
)
def test_a_variable_is_refused_in_words(name: str, value: str, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        settings.load({name: value})
    assert str(raised.value) == f"{name}={words}"
