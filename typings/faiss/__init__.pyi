"""The part of faiss 1.15 that membudget_engine.index uses; the wheel's own stubs are too loose for strict checking."""

from typing import overload

import numpy as np
import numpy.typing as npt

__version__: str
METRIC_INNER_PRODUCT: int
IO_FLAG_MMAP_IFC: int
IO_FLAG_MMAP: int

_Float32 = npt.NDArray[np.float32]
_Int64 = npt.NDArray[np.int64]

class SwigPointer:
    """An untyped C pointer; int() gives its address."""

    def __int__(self) -> int: ...

class FloatPointer:
    """Of a vector's floats."""

class ClusteringParameters:
    seed: int
    niter: int
    min_points_per_centroid: int

class LinearTransform:
    d_in: int
    d_out: int
    A: FloatVector
    def apply(self, x: _Float32) -> _Float32: ...

class RandomRotationMatrix(LinearTransform):
    is_trained: bool
    def __init__(self, d_in: int, d_out: int, /) -> None: ...
    def init(self, seed: int, /) -> None: ...

class TransformChain:
    def size(self) -> int: ...
    def at(self, place: int, /) -> LinearTransform: ...

class FloatVector:
    def data(self) -> FloatPointer: ...
    def size(self) -> int: ...

class ByteVector:
    def data(self) -> SwigPointer: ...

class ScalarQuantizer:
    QT_fp16: int
    QT_8bit: int
    qtype: int
    d: int
    code_size: int
    trained: FloatVector
    def compute_codes(self, x: _Float32) -> npt.NDArray[np.uint8]: ...
    def __init__(self, d: int, qtype: int, /) -> None: ...
    def decode(self, codes: npt.NDArray[np.uint8]) -> _Float32: ...

class RaBitQuantizer:
    nb_bits: int

class IVFRaBitQSearchParameters:
    def __init__(self, *, nprobe: int, qb: int, centered: bool) -> None: ...

class ZeroCopyIOReader:
    def __init__(self, data: SwigPointer, size: int, /) -> None: ...

class InvertedLists:
    code_size: int
    def list_size(self, list_no: int, /) -> int: ...
    def get_codes(self, list_no: int, /) -> SwigPointer: ...
    def get_ids(self, list_no: int, /) -> SwigPointer: ...

class Index:
    d: int
    ntotal: int
    metric_type: int
    is_trained: bool
    def add(self, x: _Float32) -> None: ...
    def reset(self) -> None: ...
    def train(self, x: _Float32) -> None: ...
    def search(
        self, x: _Float32, k: int, *, params: IVFRaBitQSearchParameters | None = None
    ) -> tuple[_Float32, _Int64]: ...
    def reconstruct_n(self, first: int, count: int) -> _Float32: ...

class IndexFlatIP(Index):
    def __init__(self, d: int, /) -> None: ...
    def get_xb(self) -> SwigPointer: ...

class IndexScalarQuantizer(Index):
    sq: ScalarQuantizer
    code_size: int
    codes: ByteVector
    def __init__(self, d: int, qtype: int, metric: int, /) -> None: ...

class IndexIVFScalarQuantizer(Index):
    nlist: int
    nprobe: int
    code_size: int
    cp: ClusteringParameters
    quantizer: Index
    invlists: InvertedLists
    sq: ScalarQuantizer
    def __init__(self, quantizer: Index, d: int, nlist: int, qtype: int, metric: int, by_residual: bool, /) -> None: ...
    def search_preassigned(self, x: _Float32, k: int, Iq: _Int64, Dq: _Float32) -> tuple[_Float32, _Int64]: ...

class IndexPreTransform(Index):
    index: Index
    chain: TransformChain
    def __init__(self, transform: LinearTransform, index: Index, /) -> None: ...

class IndexIVFRaBitQ(Index):
    nlist: int
    nprobe: int
    qb: int
    code_size: int
    quantizer: Index
    invlists: InvertedLists
    rabitq: RaBitQuantizer
    def __init__(self, quantizer: Index, d: int, nlist: int, metric: int, own_invlists: bool, bits: int, /) -> None: ...
    def encode_vectors(
        self, n: int, x: SwigPointer, lists: SwigPointer, codes: SwigPointer, include_lists: bool, /
    ) -> None: ...
    def search_preassigned_c(
        self,
        n: int,
        x: SwigPointer,
        k: int,
        lists: SwigPointer,
        likeness: SwigPointer,
        distances: SwigPointer,
        labels: SwigPointer,
        store_pairs: bool,
        params: IVFRaBitQSearchParameters,
        /,
    ) -> None: ...

class IndexIVFFlat(Index):
    nlist: int
    nprobe: int
    cp: ClusteringParameters
    quantizer: Index
    invlists: InvertedLists
    def __init__(self, quantizer: Index, d: int, nlist: int, metric: int, /) -> None: ...
    def search_preassigned(self, x: _Float32, k: int, Iq: _Int64, Dq: _Float32) -> tuple[_Float32, _Int64]: ...

def swig_ptr(array: _Float32 | _Int64 | npt.NDArray[np.uint8], /) -> SwigPointer: ...
@overload
def rev_swig_ptr(pointer: SwigPointer, count: int, /) -> _Int64: ...
@overload
def rev_swig_ptr(pointer: FloatPointer, count: int, /) -> _Float32: ...
def downcast_VectorTransform(transform: LinearTransform, /) -> LinearTransform: ...
def downcast_index(index: Index, /) -> Index: ...
def vector_to_array(vector: FloatVector, /) -> _Float32: ...
def copy_array_to_vector(array: _Float32, vector: FloatVector, /) -> None: ...
def serialize_index(index: Index, /) -> npt.NDArray[np.uint8]: ...
def read_index(source: str | ZeroCopyIOReader, io_flags: int = ..., /) -> Index: ...
def write_index(index: Index, path: str, /) -> None: ...
def omp_set_num_threads(threads: int, /) -> None: ...
def omp_get_max_threads() -> int: ...
def get_deserialization_vector_byte_limit() -> int: ...
def set_deserialization_vector_byte_limit(value: int, /) -> None: ...
def get_deserialization_loop_limit() -> int: ...
def set_deserialization_loop_limit(value: int, /) -> None: ...
