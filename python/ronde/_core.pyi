"""The native core. Its types are internal; the API is `ronde`. Sources: csrc/bindings/.

Arrays are contiguous NumPy arrays whose bytes are of the `DType` that the call names.
"""

import builtins
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_T = TypeVar("_T")  # of an array, when the result is one like it
_Bytes = npt.NDArray[np.uint8]

__version__: str

# --- core

class DType:
    """An element type that collectives understand."""

    __members__: ClassVar[dict[str, DType]]
    bool: ClassVar[DType]
    int8: ClassVar[DType]
    int16: ClassVar[DType]
    int32: ClassVar[DType]
    int64: ClassVar[DType]
    uint8: ClassVar[DType]
    uint16: ClassVar[DType]
    uint32: ClassVar[DType]
    uint64: ClassVar[DType]
    float16: ClassVar[DType]
    bfloat16: ClassVar[DType]
    float32: ClassVar[DType]
    float64: ClassVar[DType]
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> builtins.bool: ...
    def __ne__(self, other: object) -> builtins.bool: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class ReduceOp:
    """How two elements become one."""

    __members__: ClassVar[dict[str, ReduceOp]]
    sum: ClassVar[ReduceOp]
    product: ClassVar[ReduceOp]
    min: ClassVar[ReduceOp]
    max: ClassVar[ReduceOp]
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Watchdog:
    """Monitors a call that cannot be interrupted."""

    def __init__(self, text: str, warning: float, timeout: float) -> None: ...
    def stop(self) -> None: ...

SEGMENT_NAMES: tuple[str, ...]
"""What the paths of the files begin with that MPICH and Open MPI make in /dev/shm."""

def segment_names(process: int) -> list[str]:
    """The files that MPI has made in /dev/shm and that a process has open."""

def remove_segment_names() -> None:
    """Removes those of this process. No other rank may need to open them any more."""

def release_kept() -> int:
    """Gives the memory that is kept for large results to come back to the system. Returns how many
    bytes that was."""

# --- torch

def know_torch(
    tensor: type,
    parameter: type,
    strided: object,
    from_numpy: Callable[[_Array], Any],
    bfloat16: object,
    types: dict[Any, DType],
) -> None:
    """From now on tensors of torch are taken as arrays of NumPy are, if they are dense, contiguous, of
    these types and in the memory of the host."""

# --- GPUs

def cuda_architectures() -> set[int]:
    """What this build has kernels for: {90} for sm_90. Empty where it was built without."""

class OnDevice:
    """An array of a GPU, as the core takes it."""

    def __init__(
        self,
        array: Any,
        pointer: int,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        type: DType,
        writable: bool,
        make: Callable[[list[int], int], OnDevice],
        stream: int | None,
        gpu: int | None = None,
        together: OnDevice | None = None,
    ) -> None:
        """`dtype`: of copies on the host. `make(shape, device)` makes another of the kind. `stream`: in whose
        order the memory may be touched now; None if it may be at once. `gpu`: on which an empty array is;
        None if only the thread's can be meant. `together`: one that was made just before."""

    @property
    def array(self) -> Any: ...
    @property
    def pointer(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def type(self) -> DType: ...
    @property
    def writable(self) -> bool: ...
    def like(self, shape: Sequence[int]) -> OnDevice:
        """A new array of the kind and dtype."""

    def hand_over(self, stream: int | None) -> None:
        """A call has written to it: what is enqueued on `stream` from now on comes after. None: waits
        until it is written."""

    def read(self) -> _Array:
        """Its values, once the stream has come to them."""

    def write(self, values: _Array, stream: int | None) -> None:
        """New values, before what is enqueued on `stream` from now on."""

    def copy_from(self, other: OnDevice) -> None:
        """The values of another, of the same size."""

def cuda_synchronise(device: int, stream: int) -> None:
    """Waits for all that a stream of a GPU has been given."""

class DeviceMemory:
    """Bytes of a GPU, which end with this."""

    def __init__(self, bytes: int, device: int = 0) -> None: ...
    @property
    def pointer(self) -> int: ...

class Lent:
    """An array of a GPU that another library lends by DLPack, until this ends. Takes what a capsule has;
    raises TypeError for what is none."""

    def __init__(self, capsule: Any) -> None: ...
    @property
    def pointer(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> DType | None: ...
    @property
    def writable(self) -> bool: ...
    @property
    def is_contiguous(self) -> bool: ...

def lend(
    owner: Any, pointer: int, shape: Sequence[int], dtype: DType, device: int, versioned: bool
) -> Any:
    """A capsule of DLPack for memory of a GPU, which keeps `owner`."""

def cuda_order(device: int, before: int, after: int) -> None:
    """What a stream of a GPU is given from now on comes after what another has been given."""

def cuda_driver_version() -> int:
    """12090 for CUDA 12.9. Raises UnavailableError if there is no driver."""

def nccl_look_in(file: str) -> None:
    """Where NCCL is, if the process has not loaded one. Before its first use."""

def nccl_version() -> str:
    """As "2.28.9". Raises UnavailableError if there is none."""

def nccl_shares_gpus() -> builtins.bool:
    """Whether several ranks may use one GPU."""

def cuda_uuids() -> list[str]:
    """Of the GPUs for which there are kernels, in hexadecimal digits: the same in all processes. Raises
    UnavailableError if there is no GPU."""

def cuda_devices() -> list[tuple[str, int, bool]]:
    """Of each GPU its name, its architecture, and whether there are kernels for it. Raises
    UnavailableError if there is none."""

# --- kernels

def simd() -> str:
    """The instruction set in use."""

def simd_levels() -> list[str]:
    """The instruction sets that this processor can run, best first."""

def reduce_many(
    op: ReduceOp,
    dtype: DType,
    outs: Sequence[_Array],
    ins: Sequence[_Array],
    *,
    prescale: float = 1.0,
    divisor: float = 1.0,
    postscale: float = 1.0,
    streaming: bool = False,
    simd: str = "",
) -> None:
    """Stores ins[0] op ins[1] op ... to each of outs: contiguous arrays of equally many bytes."""

def mean(
    dtype: DType,
    out: _Array,
    left: _Array,
    left_held: int,
    right: _Array,
    right_held: int,
    *,
    simd: str = "",
) -> None:
    """Stores the mean of the contributions, of a half type, whose means are left and right."""

def add_weighted(
    dtype: DType,
    out: _Array,
    left: _Array,
    left_weight: float,
    right: _Array,
    right_weight: float,
    *,
    simd: str = "",
) -> None:
    """Stores left x left_weight + right x right_weight, of a floating type."""

def dots(
    dtype: DType, left: _Array, right: _Array, *, simd: str = ""
) -> tuple[float, float, float]:
    """The dot products left.left, left.right and right.right of two vectors of a floating type, in double
    precision."""

def copy_bytes(to: _Array, source: _Array, *, streaming: bool = False, simd: str = "") -> None:
    """Copies one array's bytes to another, around the caches where streaming."""

# --- compress

class Norm:
    """What the scale of a block is made of."""

    __members__: ClassVar[dict[str, Norm]]
    max: ClassVar[Norm]
    mean: ClassVar[Norm]
    l2: ClassVar[Norm]
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Rounding:
    """How values become integers."""

    __members__: ClassVar[dict[str, Rounding]]
    nearest: ClassVar[Rounding]
    stochastic: ClassVar[Rounding]
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

def compressor_names() -> list[str]:
    """The names that `Compressor` knows."""

class Compressor:
    """Values to payloads and back; it has no state. csrc/compress/compressor.h says more."""

    def __init__(self, name: str, *, simd: str = "") -> None: ...
    @staticmethod
    def linear(
        bits: int,
        block: int = 1024,
        norm: Norm = ...,
        rounding: Rounding = ...,
        *,
        simd: str = "",
    ) -> Compressor: ...
    @staticmethod
    def topk(ratio: float, *, simd: str = "") -> Compressor: ...
    @staticmethod
    def block_topk(ratio: float, block: int = 1024, *, simd: str = "") -> Compressor: ...
    @staticmethod
    def threshold(value: float, *, simd: str = "") -> Compressor: ...
    @staticmethod
    def randomk(ratio: float, *, simd: str = "") -> Compressor: ...
    @staticmethod
    def shared_scale(
        bits: int, block: int = 1024, rounding: Rounding = ..., *, simd: str = ""
    ) -> SharedScale: ...
    @property
    def grain(self) -> int: ...
    @property
    def unbiased(self) -> builtins.bool: ...
    @property
    def keeps_sums(self) -> builtins.bool: ...  # sums of payloads are sent whole
    @property
    def adds_up(self) -> builtins.bool: ...  # the payload of a sum is the sum of the payloads
    def capacity(self, count: int) -> int:
        """The bytes of a payload of `count` values, at most."""
    def capacity_of_whole(self, count: int) -> int:
        """The bytes of the payload of a whole vector of `count` finite values, at most."""
    def for_vector(
        self,
        values: npt.NDArray[np.float32],
        residual: npt.NDArray[np.float32] | None = None,  # changed in place
    ) -> Compressor:
        """Returns the compressor that encodes the spans of this vector, in any order, each once."""
    def encode(
        self,
        values: npt.NDArray[np.float32],
        residual: npt.NDArray[np.float32] | None = None,  # changed in place
        key: int = 0,
        first: int = 0,  # a multiple of the grain
    ) -> _Bytes: ...
    def decode(
        self, payload: _Bytes, out: npt.NDArray[np.float32], add: builtins.bool = False
    ) -> None: ...

class SharedScale(Compressor):
    """Integers of a step that all ranks share. csrc/compress/shared_scale.h says more."""

    def integer(self, ranks: int) -> DType:
        """In which those of so many ranks are added; `ValueError` if they do not fit."""
    def maxima(
        self,
        values: npt.NDArray[np.float32],
        residual: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The greatest absolute value of each block of values + residual."""
    def quantise(
        self,
        values: npt.NDArray[np.float32],
        maxima: npt.NDArray[np.float32],  # of all ranks
        dtype: np.dtype[Any],  # int8 or int16
        residual: npt.NDArray[np.float32] | None = None,  # changed in place
        key: int = 0,
    ) -> npt.NDArray[Any]:
        """How many steps they are, in one dimension."""
    def dequantise(
        self,
        sums: npt.NDArray[Any],
        maxima: npt.NDArray[np.float32],
        out: npt.NDArray[np.float32],
        factor: float = 1.0,
    ) -> None:
        """out = sums * step * factor"""

class LowRank:
    """Products of matrices of one shape with a few vectors. csrc/compress/low_rank.h says more.

    The vectors are rows: `left` is rank x rows of the matrix, `right` rank x columns.
    """

    def __init__(self, rows: int, columns: int, rank: int, *, simd: str = "") -> None: ...
    def project(
        self,
        matrix: npt.NDArray[np.float32],
        right: npt.NDArray[np.float32],
        residual: npt.NDArray[np.float32] | None = None,  # becomes matrix + residual
    ) -> npt.NDArray[np.float32]:
        """left = matrix right"""
    def back_project(
        self, matrix: npt.NDArray[np.float32], left: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """right = transposed matrix left"""
    def reconstruct(
        self,
        left: npt.NDArray[np.float32],
        right: npt.NDArray[np.float32],
        out: npt.NDArray[np.float32],
        factor: float = 1.0,
        residual: npt.NDArray[np.float32] | None = None,
        ranks: int = 1,
    ) -> None:
        """out = factor * left right; residual -= left right / ranks"""

def orthogonalise(vectors: npt.NDArray[np.float32]) -> builtins.bool:
    """Makes the rows orthonormal, or zero; False, and no change, if some are not finite."""

class Compression:
    """How one allreduce is compressed. `per_rank`: each rank's own values are compressed, over the network,
    even on one machine and with one rank; otherwise machines reduce exactly first."""

    def __init__(
        self,
        compressor: Compressor,
        residual: _Array | None,
        key: int,
        per_rank: builtins.bool = False,
    ) -> None: ...

# --- methods: csrc/methods says more

def key_of(seed: str, step: int, name: str) -> int:
    """64 bits, of which random numbers are made."""

def sum_of_squares(values: _Array) -> float:
    """In float64, as NumPy forms it."""

class Method:
    """A way to reduce arrays in fewer bytes."""

class Codec(Method):
    """A method that takes a residual of whoever keeps one."""

    steps: int  # so far, without error feedback
    @property
    def per_rank(self) -> builtins.bool:
        """Whether each rank compresses its own values, where others share memory with it, too."""

class Residuals:
    """What payloads have left out, by the names of parameters."""

    def __init__(self) -> None: ...
    @property
    def names(self) -> list[str]: ...
    def read(self, name: str) -> npt.NDArray[np.float32] | None: ...
    def rescale(self, factor: float) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def load(self, state: dict[str, Any]) -> None: ...

class Compressing(Codec):
    """A compressor by itself."""

    def __init__(self, compressor: Compressor, seed: str) -> None: ...

class IntegerSums(Codec):
    """Sums of integers of one step for all ranks."""

    def __init__(self, scale: SharedScale, seed: str) -> None: ...

class PowerSgd(Codec):
    """Sums of matrices of a low rank."""

    def __init__(self, rank: int, seed: str) -> None: ...
    def worth_it(self, shape: Sequence[int]) -> builtins.bool: ...
    def first(
        self, rows: int, columns: int, step: int = 0, name: str = ""
    ) -> npt.NDArray[np.float32]:
        """The right vectors that a matrix begins with."""
    def reduce(
        self,
        matrices: Sequence[_Array],
        residuals: Sequence[_Array],
        names: Sequence[str],
        allreduce: Callable[[list[Any]], None],
        ranks: int,
        factor: float,
        outputs: Sequence[_Array],
    ) -> None: ...
    def state(self) -> tuple[dict[str, Any], dict[str, int]]:
        """Factors and steps."""
    def load(self, factors: dict[str, Any], steps: dict[str, int]) -> None: ...

class ErrorFeedback(Method):
    """A codec with residuals."""

    steps: dict[str, int]  # of each bucket, by the name of its first array
    def __init__(self, codec: Codec, residuals: Residuals) -> None: ...

class Dgc(Method):
    """Deep gradient compression."""

    steps: dict[str, int]
    def __init__(
        self,
        ratio: float,
        momentum: float,
        clip: float | None,
        warmup_steps: int,
        accumulated: Residuals,
        velocity: Residuals,
    ) -> None: ...
    def ratio_at(self, step: int) -> float: ...

class PythonMethod(Codec):
    """A method written in Python, of which there is a weak reference."""

    def __init__(self, method: Any, residuals: Residuals | None = None) -> None: ...

class Bucket:
    """Arrays of float32 that travel together, while their call is under way."""

    @property
    def communicator(self) -> Communicator: ...
    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Name and elements of each array."""
    @property
    def inputs(self) -> list[npt.NDArray[np.float32]]: ...
    @property
    def outputs(self) -> list[npt.NDArray[np.float32]]: ...
    @property
    def averages(self) -> builtins.bool: ...
    @property
    def factors(self) -> tuple[float, float]:
        """Before and after the reduction."""
    def scaled(self, added: Sequence[_Array | None] | None = None) -> Bucket:
        """With the factor before applied, and something added to each array or None."""
    def residual(
        self, residuals: Residuals, per_rank: builtins.bool
    ) -> tuple[npt.NDArray[np.float32], list[Any]]:
        """The vector of residuals, and what is to be added to the contribution now."""
    def taken(self, residuals: Residuals) -> list[Any]:
        """All that is left, to be added to the contribution now."""

class Step:
    """What a method written in Python wants the ranks to do: it yields it."""

class Allreduce(Step):
    """Of arrays of one dtype, exactly."""

    def __init__(
        self,
        bucket: Bucket,
        inputs: Sequence[_Array],
        outputs: Sequence[_Array],
        dtype: DType,
        op: Op,
        prescale: float = 1.0,
        postscale: float = 1.0,
    ) -> None: ...

class Allgather(Step):
    """Of bytes, as many as each rank has."""

    def __init__(self, bytes: _Bytes) -> None: ...
    @property
    def data(self) -> _Bytes: ...
    @property
    def rows(self) -> list[int]: ...

class KnowLink(Step):
    """Measures the link, unless it is known."""

    def __init__(self) -> None: ...
    @property
    def link(self) -> Link: ...

class Reduce(Step):
    """Of a bucket, by a codec or exactly."""

    def __init__(
        self,
        bucket: Bucket,
        codec: Codec | None = None,
        residual: _Array | None = None,
        step: int = 0,
    ) -> None: ...

class Plan:
    """What is known of a group of arrays from call to call."""

    def __init__(
        self,
        set: Communicator,
        kind: str,
        name: str | None,
        op: Op,
        prescale: float,
        postscale: float,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[DType],
        labels: list[str],
        ways: Sequence[tuple[str, Method | None, Sequence[int]]],  # in words, by what, which arrays
        fusion_bytes: int,
    ) -> None: ...

# --- transport

class Transport:
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

class MpiLibrary:
    """The MPI library that mpi4py has loaded."""

    def __init__(
        self,
        *,
        extension: str,
        handle_bytes: int,
        status_bytes: int,
        byte_type: int,
        any_source: int,
        success: int,
    ) -> None: ...
    def transport(self, communicator: int, rank: int, size: int) -> Transport: ...
    def version(self) -> str: ...

def find_finalize(extension: str) -> None:
    """Before a fork: finds how mpi4py's module, a file, ends MPI."""

def skip_finalize() -> None:
    """In a forked child: MPI is not ended there."""

class InprocWorld:
    """Ranks as threads of one process, for tests."""

    def __init__(
        self,
        size: int,
        *,
        seed: int = 0,
        delay: float = 0.0,
        truncate: float = 0.0,
        dies: int = -1,
        dies_after: int = 0,
    ) -> None: ...
    @property
    def size(self) -> int: ...
    def transport(self, rank: int, channel: int) -> Transport: ...

# --- trace

COUNTERS: tuple[tuple[str, float, str], ...]  # name, unit in terms of what is counted, meaning

class Recorded:
    """A call in a flight record. Times are seconds of `time.monotonic()`, 0 for none."""

    @property
    def state(self) -> str:
        """submitted, begun, moving, done or failed."""
    @property
    def number(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def submitted(self) -> float: ...
    @property
    def began(self) -> float: ...
    @property
    def ended(self) -> float: ...
    @property
    def peer(self) -> int:
        """The rank that it waits for, if that is known, else -1."""
    @property
    def what(self) -> str:
        """`allreduce/w`, or `allreduce#` without a name."""
    @property
    def route(self) -> str: ...
    @property
    def site(self) -> str: ...

class RecordedLane:
    """The calls of a lane in a flight record."""

    @property
    def set(self) -> int: ...
    @property
    def lane(self) -> int:
        """0: that of blocking calls."""
    @property
    def open(self) -> bool: ...
    @property
    def calls(self) -> list[Recorded]: ...
    @property
    def counts(self) -> list[int]: ...

class FlightReader:
    """The flight record of a process."""

    def __init__(self, path: str) -> None:
        """Raises `UnavailableError`."""
    @property
    def process(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int:
        """Of the job; 0 until the rank knows it, and when that job is over."""
    @property
    def local_size(self) -> int: ...
    @property
    def job(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def phase(self) -> str: ...
    def lanes(self) -> list[RecordedLane]: ...
    def claim(self, seconds: float) -> bool:
        """Whether nobody has claimed it in the last seconds."""

class Timeline:
    """Spans of this rank, in a file."""

    @property
    def on(self) -> bool: ...
    def start(self, file: str, rank: int, host: str, offset: int) -> None:
        """`offset` is added to all times, in nanoseconds."""
    def stop(self) -> None: ...

class FlightRecord:
    """What this rank does and has done."""

    @property
    def path(self) -> str:
        """By which processes of this machine can open it; empty if they cannot."""
    @property
    def timeline(self) -> Timeline: ...
    def describe(self, rank: int, size: int, local_size: int, job: str, host: str) -> None: ...
    def retire(self) -> None:
        """Another job of this process begins."""
    def enter(self, phase: str) -> None: ...
    @property
    def counts(self) -> list[int]:
        """By the order of COUNTERS."""

# --- schedule

_Range = tuple[str, int, int]  # ("input" | "data" | "scratch", offset, count), in elements

# (verb, step, peer, range, source, order): send, recv, recv_reduce, copy or reduce. peer is None for
# copy and reduce, source is theirs alone, order ("range_first" | "other_first") goes with reductions.
_Action = tuple[str, int, int | None, _Range, _Range | None, str | None]

class Schedule:
    @property
    def scratch(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def actions(self) -> list[_Action]: ...

class Cost:
    @property
    def steps(self) -> int: ...
    @property
    def messages(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def received(self) -> int: ...
    @property
    def reduced(self) -> int: ...
    @property
    def seconds(self) -> float: ...

class SimulatedRank:
    @property
    def messages(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def received(self) -> int: ...
    @property
    def reduced(self) -> int: ...

class Simulation:
    @property
    def error(self) -> str: ...
    @property
    def ranks(self) -> list[SimulatedRank]: ...
    @property
    def steps(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def same_bits(self) -> bool: ...
    @property
    def position_independent(self) -> bool: ...
    @property
    def tree(self) -> int: ...

# (collective, name, position_independent, any_size)
def algorithms() -> list[tuple[str, str, bool, bool]]: ...

# {"alpha", "overhead", "beta", "gamma"}, the defaults of cost() in seconds and seconds per byte
def default_link() -> dict[str, float]: ...

# counts: one for each rank; for alltoall the matrix of counts row by row (row = sender).
def schedule(
    collective: str, name: str, rank: int, counts: Sequence[int], root: int = 0
) -> Schedule: ...
def cost(
    collective: str,
    name: str,
    counts: Sequence[int],
    root: int = 0,
    item_bytes: int = 4,
    alpha: float = ...,
    overhead: float = ...,
    beta: float = ...,
    gamma: float = ...,
    rank: int | None = None,  # None: the root
) -> Cost: ...
def candidates(
    collective: str,
    counts: Sequence[int],
    root: int = 0,
    item_bytes: int = 4,
    alpha: float = ...,
    overhead: float = ...,
    beta: float = ...,
    gamma: float = ...,
) -> list[tuple[str, Cost]]: ...  # the one to take first
def simulate(
    collective: str, name: str, counts: Sequence[int], root: int = 0, window: int = 2
) -> Simulation: ...

# --- collective

class Call:
    """What the ranks must have in common, and how to speak of it."""

    def __init__(
        self,
        kind: str,
        name: str = "",
        dtype: DType | None = None,
        shape: Sequence[int] | None = None,
        op: str = "",
        root: int = -1,
        prescale: float = 1.0,
        postscale: float = 1.0,
        detail: str = "",
        needs_all: builtins.bool = False,
    ) -> None: ...

class Settings:
    """What the environment may set (see settings.py)."""

    def __init__(self) -> None: ...
    segment_bytes: int
    window: int
    check: bool
    deterministic: bool
    stall_warning: float
    stall_timeout: float
    spin: bool
    algorithm: dict[str, str]

def is_plain(x: Any, writable: builtins.bool = False) -> builtins.bool:
    """Whether collectives take it as it is: a contiguous array of NumPy, or tensor, of one of our types."""

def piggyback_seconds(bytes: int, ranks: int, link: Link) -> float:
    """How long an allreduce takes whose data goes with phase 0; infinite where it is too long for that."""

class Link:
    """What messages cost: seconds, and seconds per byte."""

    def __init__(self, alpha: float, overhead: float, beta: float, gamma: float) -> None: ...
    @property
    def alpha(self) -> float: ...
    @property
    def overhead(self) -> float: ...
    @property
    def beta(self) -> float: ...
    @property
    def gamma(self) -> float: ...

def better_gathered(payload: int, ranks: int, link: Link) -> builtins.bool:
    """Whether sparse payloads of so many bytes are gathered by all ranks, rather than reduced by slices."""

class Control:
    """Notices between all ranks of the job."""

    def __init__(
        self,
        transport: Transport,
        where: Callable[[], str],
        warn: Callable[[str], object],
        log: Callable[[str], object] | None = None,  # takes a line of how a call goes
        stalled: Callable[[], object] | None = None,  # called where this rank gives up waiting
    ) -> None: ...
    @property
    def flight_record(self) -> FlightRecord: ...
    @property
    def failure(self) -> str: ...
    def fail(self, why: str) -> None: ...
    def listen(self) -> str:
        """Reads what has come, and returns `failure`."""
    def close(self) -> bool:
        """Whether nothing is under way any more."""

def shared_array(bytes: int) -> _Bytes:
    """Bytes in memory that the ranks of this machine can reach, in one dimension."""

class Op:
    """How the contributions of the ranks become one."""

    __members__: ClassVar[dict[str, Op]]
    Sum: ClassVar[Op]
    Average: ClassVar[Op]
    Min: ClassVar[Op]
    Max: ClassVar[Op]
    Product: ClassVar[Op]
    Adasum: ClassVar[Op]
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
    def __ne__(self, other: object) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class Communicator:
    """The collectives of one process set."""

    def __init__(
        self,
        control: Control,
        transport: Transport,
        set: int,
        members: Sequence[int],
        settings: Settings,
    ) -> None: ...
    @property
    def is_inside(self) -> bool: ...  # whether this thread is in a call
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def local_rank(self) -> int: ...  # among the ranks that share memory
    @property
    def local_size(self) -> int: ...
    @property
    def link(self) -> Link: ...
    @property
    def bytes_sent(self) -> int:
        """The bytes of all messages that this rank has sent for the set so far."""
    @property
    def failure(self) -> str:
        """Why this rank cannot use Ronde any more; empty while it can."""
    def set_link(self, link: Link) -> None: ...
    # of each member the number of its machine, none if there is only one
    def share_memory(self, machines: Sequence[int] = ()) -> builtins.bool: ...
    def use_nccl(self) -> None:
        """From now on arrays of GPUs go over NCCL. All ranks must have it, and call this."""
    def use_nccl_inside(self) -> None:
        """From now on the ranks of this machine add up arrays of GPUs over NCCL that are compressed between
        the machines. All of this machine must have it, and call this; others need not."""
    def know_link(self) -> None:
        """Measures the link together with the other ranks, unless it is known."""
    def end(self, call: Call, sets: Sequence[Communicator] = ()) -> None:
        """The last call of the job: a barrier without deadlines, of all ranks. `sets`: the others."""

    def close(self, why: str) -> bool:
        """Refuses all calls from now on. Whether none was given up."""

    # An array comes with the dtype of its bytes; or without, if `is_plain`. Without and not plain nothing is
    # done, and the result is None ("| Any"). Roots are ranks of the set. `algorithm` names one for
    # schedules, and `call` describes the call, where it is a part of something else.
    def allreduce(
        self,
        x: _T,
        output: _T | None,  # None for a new one
        op: Op,
        name: str | None = None,
        prescale: float = 1.0,
        postscale: float = 1.0,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> _T | Any: ...
    def reduce(
        self,
        x: _T,
        root: int,
        op: Op,
        name: str | None = None,
        prescale: float = 1.0,
        postscale: float = 1.0,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> _T | Any: ...  # None too where this rank is not the root
    def reducescatter(
        self,
        x: _T,
        op: Op,
        name: str | None = None,
        prescale: float = 1.0,
        postscale: float = 1.0,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> _T | Any: ...
    def broadcast(
        self,
        x: _T,
        root: int,
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
        call: Call | None = None,
    ) -> _T | None: ...

    # What is gathered comes with the number of rows from each rank.
    def allgather(
        self,
        x: _T,
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
        call: Call | None = None,
    ) -> tuple[_T, list[int]] | Any: ...
    def gather(
        self,
        x: _T,
        root: int,
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> tuple[_T, list[int]] | Any: ...
    def alltoall(
        self,
        x: _T,
        splits: Sequence[int] | None,  # rows for each rank; None for equally many
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> tuple[_T, list[int]] | Any: ...

    # (rows of this rank, their bytes, the root's header)
    def scatter(
        self,
        x: _Array | OnDevice | None,
        rows: Sequence[int],
        row_bytes: int,
        header: Sequence[int],
        root: int,
        name: str | None = None,
        algorithm: str = "",
    ) -> tuple[int, _Bytes, list[int]]: ...
    def barrier(self, name: str | None = None, call: Call | None = None) -> None: ...

    # Arrays of a plan, into new outputs for None: the outputs, and whether they were reduced exactly
    # whatever the plan says. None, with nothing done, unless they are plain, or of the dtypes given, and
    # what the plan says.
    def grouped_allreduce(
        self,
        plan: Plan,
        xs: list[Any],
        outputs: list[Any] | None,
        dtypes: Sequence[DType] | None = None,
    ) -> tuple[list[Any], builtins.bool] | None: ...

    # Arrays of one dtype as one vector.
    def allreduce_bucket(
        self,
        inputs: Sequence[_Array],
        outputs: Sequence[_Array],
        dtype: DType,
        op: Op,
        name: str | None,
        prescale: float,
        postscale: float,
        compression: Compression | None,
        detail: str,  # what else must agree, in words
    ) -> None: ...

class PendingCall:
    """An asynchronous call under way, or a group of them, whose result is a list."""

    def __init__(self, calls: Sequence[PendingCall]) -> None: ...
    @property
    def done(self) -> builtins.bool: ...
    def poll(self) -> builtins.bool:
        """Whether it has ended; moves what is under way."""

    def wait(self, seconds: float | None = None) -> Any:
        """The result, once the call has ended. Raises what has ended it, or `TimeoutError`."""

    def result(self) -> Any:
        """Once done."""

class Engine:
    """Moves asynchronous calls."""

    def __init__(
        self,
        control: Control,
        fusion_bytes: int,
        spin: builtins.bool,
        worker: builtins.bool,
        core: int | None = None,
    ) -> None: ...
    def stop(self) -> None:
        """Ends the worker."""
    def join(self, set: Communicator, contributing: builtins.bool) -> int:
        """Takes part in the calls of other ranks until all have joined; returns the last of the job."""

    # The collectives of a communicator, which is given first: each submits a call, and gives it
    # as a PendingCall; or None, where a communicator would give None.
    def allreduce(
        self,
        set: Communicator,
        x: Any,
        output: Any,
        op: Op,
        name: str | None = None,
        prescale: float = 1.0,
        postscale: float = 1.0,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> Any: ...
    def grouped_allreduce(
        self,
        set: Communicator,
        plan: Plan,
        xs: list[Any],
        outputs: list[Any] | None,
        dtypes: Sequence[DType] | None = None,
    ) -> Any: ...
    def reduce(
        self,
        set: Communicator,
        x: Any,
        root: int,
        op: Op,
        name: str | None = None,
        prescale: float = 1.0,
        postscale: float = 1.0,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> Any: ...
    def reducescatter(
        self,
        set: Communicator,
        x: Any,
        op: Op,
        name: str | None = None,
        prescale: float = 1.0,
        postscale: float = 1.0,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> Any: ...
    def broadcast(
        self,
        set: Communicator,
        x: Any,
        root: int,
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
        call: Call | None = None,
    ) -> Any: ...
    def allgather(
        self,
        set: Communicator,
        x: Any,
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
        call: Call | None = None,
    ) -> Any: ...
    def gather(
        self,
        set: Communicator,
        x: Any,
        root: int,
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> Any: ...
    def scatter(
        self,
        set: Communicator,
        x: Any,
        rows: Sequence[int],
        row_bytes: int,
        header: Sequence[int],
        root: int,
        name: str | None = None,
        algorithm: str = "",
    ) -> Any: ...
    def alltoall(
        self,
        set: Communicator,
        x: Any,
        splits: Sequence[int] | None,
        name: str | None = None,
        dtype: DType | None = None,
        algorithm: str = "",
    ) -> Any: ...
    def barrier(
        self, set: Communicator, name: str | None = None, call: Call | None = None
    ) -> Any: ...
    def leave(self, sets: Sequence[Communicator]) -> None:
        """Before this rank ends: others that wait for what it has not submitted find out."""

    def busy(self, set: Communicator) -> builtins.bool: ...
    def gave_up(self, set: Communicator) -> builtins.bool:
        """Whether messages of calls that were given up may still be under way."""

    def forget(self) -> None:
        """In a child that was forked: nothing is moved or freed any more."""

    def drain(self, set: Communicator, why: str) -> None:
        """Runs what all ranks of the set have pending, and ends the rest; all must call it."""

    def close(self, set: Communicator, why: str) -> builtins.bool:
        """Ends what is pending there. Whether no messages can be under way."""
