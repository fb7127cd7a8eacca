"""Reads what torch.save wrote, in both of its formats, as tensors and plain values: nothing in the file can run.

Not ``torch.load(weights_only=True)``, which could be bypassed in torch before 2.10 (CVE-2025-32434, CVE-2026-24747),
and takes whatever memory a file declares. The pickle is interpreted by Python's own code with the functions of
:data:`CALLS` in the place of those that it names; every size is compared with the file's before memory is taken.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import FunctionType, MethodType
from typing import IO, Any, ClassVar, NamedTuple

import torch

#: How torch.save's older format (before torch 1.6) begins: its magic number as a pickle.
LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")
#: A pickle holds names and numbers; the tensors' bytes are elsewhere in the file.
LONGEST_PICKLE = 32 << 20
#: Tensors may share memory, but together they have no more bytes than this many times the file.
SHARED = 16
MOST_DIMENSIONS = 64
#: Storage classes by their names, where they differ from ``<type>Storage``.
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "UntypedStorage": "uint8",
}  # fmt: skip
#: What the interpretation of bytes that are no checkpoint, or a damaged one, raises.
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    RecursionError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


class Unreadable(Exception):
    """The file is no checkpoint, or damaged."""


class HoldsMore(Unreadable):
    """The file asks for classes or functions beyond tensors and plain values: *names*."""

    def __init__(self, names: list[str]) -> None:
        self.names = [ascii(name)[1:-1][:100] for name in names]
        super().__init__(", ".join(self.names[:4]))


class TooLarge(Unreadable):
    """The file declares more than it can hold."""


class _LeftOut:
    """In the place of an object that is neither a tensor nor a plain value."""

    def _ignore(self, *_arguments: Any) -> None:
        pass

    append = extend = add = update = __setitem__ = _ignore


class _Storage(NamedTuple):
    """The elements of a storage: one dimension, of its type; ``UntypedStorage``: its bytes."""

    flat: torch.Tensor


def read(path: Path | str) -> Any:
    """Return the content of a file that torch.save wrote, on the CPU.

    Raises
    ------
    HoldsMore : it asks for more than tensors and plain values; nothing of that was made.
    TooLarge : it declares more than its own size; no memory was taken.
    Unreadable : no such file, or a damaged one.
    OSError : it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        kind = _Zip if file.read(2) == b"PK" else _Legacy
        file.seek(0)
        with _one_exception():
            return kind(file, size).content()


@contextmanager
def _one_exception() -> Iterator[None]:
    try:
        yield
    except Unreadable:
        raise
    except FAILURES as error:
        raise Unreadable(str(error) or type(error).__name__) from error


class _Reader:
    """What both formats have in common: the pickle, and the bookkeeping of sizes.

    Attributes
    ----------
    size : of the file, in bytes.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size
        self.in_storages = self.in_tensors = 0

    def unpickle(self, file: IO[bytes]) -> Any:
        """Return the plain content of the pickle that *file* stands at."""
        unpickler = _Unpickler(_Limited(file), self)
        try:
            content = unpickler.load()
        except FAILURES:
            if unpickler.unknown:
                raise HoldsMore(sorted(unpickler.unknown)) from None
            raise
        if unpickler.unknown:
            raise HoldsMore(sorted(unpickler.unknown))
        return content

    def take(self, count: int, dtype: torch.dtype) -> bytearray:
        """Return memory for a storage of *count* elements, if the file can hold it."""
        nbytes = _whole(count) * element_size(dtype)
        self.in_storages += nbytes
        if self.in_storages > self.size:
            raise TooLarge(f"it declares {self.in_storages} bytes of weights, but has {self.size}")
        return bytearray(nbytes)

    def tensor(self, flat: torch.Tensor, offset: int, size: Any, stride: Any) -> torch.Tensor:
        """Return the view of a storage that a tensor is; it lies within the storage."""
        size, stride = tuple(map(_whole, size)), tuple(map(_whole, stride))
        if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
            raise ValueError("a tensor has more sizes than strides, or too many")
        count = prod(size)
        last = _whole(offset) + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if count and last >= len(flat):
            raise TooLarge("a tensor does not lie in its storage")
        nbytes = count * flat.element_size()
        self.in_tensors += nbytes
        if nbytes > self.size or self.in_tensors > SHARED * self.size:
            raise TooLarge(f"it declares tensors of {self.in_tensors} bytes, but has {self.size}")
        return torch.as_strided(flat, size, stride, offset) if count else flat.new_empty(size)

    def storage(self, dtype: torch.dtype, key: str, count: int, view: Any) -> _Storage:
        """Return the storage of *key*."""
        raise NotImplementedError

    def content(self) -> Any:
        """Return the content of the file."""
        raise NotImplementedError


class _Zip(_Reader):
    """The format since torch 1.6: a zip archive of ``data.pkl`` and a file for each storage."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, size)
        self.archive = zipfile.ZipFile(file)
        self.entries = {entry.filename: entry for entry in self.archive.infolist()}
        pickles = [name for name in self.entries if name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(self.entries) != len(self.archive.infolist()):
            raise ValueError("not one data.pkl in it, or a file that is in it twice")
        self.folder = pickles[0].removesuffix("data.pkl")
        self.storages: dict[str, tuple[torch.dtype, _Storage]] = {}

    def content(self) -> Any:
        if f"{self.folder}byteorder" in self.entries and self._open("byteorder").read(6) != b"little":
            raise ValueError("it was written by a big-endian machine")
        with self._open("data.pkl") as file:
            return self.unpickle(file)

    def storage(self, dtype: torch.dtype, key: str, count: int, view: Any) -> _Storage:
        if key not in self.storages:
            entry = self.entries[f"{self.folder}data/{key}"]
            if entry.file_size != _whole(count) * element_size(dtype):
                raise TooLarge(f"storage {key} declares {count} elements, but has {entry.file_size} bytes")
            memory = self.take(count, dtype)
            with self._open(f"data/{key}") as file:
                _fill(file, memory)
            self.storages[key] = dtype, _Storage(_flat(memory, dtype))
        known, storage = self.storages[key]
        if known != dtype:
            raise ValueError(f"storage {key} has two types")
        return storage

    def _open(self, name: str) -> IO[bytes]:
        entry = self.entries[self.folder + name]
        # torch.save never compresses: a compressed entry could be a thousand times as large as the file.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > self.size:
            raise TooLarge(f"{name[:40]} in it is compressed, or larger than the file")
        return self.archive.open(entry)


class _Legacy(_Reader):
    """The format before torch 1.6: five pickles, then the storages' bytes one after the other."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, size)
        self.memories: dict[str, tuple[torch.dtype, bytearray]] = {}

    def content(self) -> Any:
        magic, _version, system = (self.unpickle(self.file) for _ in range(3))
        if magic != int.from_bytes(LEGACY_MAGIC, "little") or system["little_endian"] is not True:
            raise ValueError("not the format of torch.save, or written by a big-endian machine")
        content, keys = self.unpickle(self.file), self.unpickle(self.file)
        if sorted(keys) != sorted(self.memories):
            raise ValueError("its storages are not those that its tensors name")
        for key in keys:
            dtype, memory = self.memories[key]
            if int.from_bytes(self.file.read(8), "little") * element_size(dtype) != len(memory):
                raise ValueError(f"storage {key} has two sizes")
            _fill(self.file, memory)
        return content

    def storage(self, dtype: torch.dtype, key: str, count: int, view: Any) -> _Storage:
        if key not in self.memories:
            self.memories[key] = dtype, self.take(count, dtype)
        known, memory = self.memories[key]
        if known != dtype or len(memory) != _whole(count) * element_size(dtype):
            raise ValueError(f"storage {key} has two types or sizes")
        flat = _flat(memory, dtype)
        if view is not None:
            _, offset, length = view
            if _whole(offset) + _whole(length) > len(flat):
                raise TooLarge(f"a view of storage {key} does not lie in it")
            flat = flat[offset : offset + length]
        return _Storage(flat)


def element_size(dtype: torch.dtype) -> int:
    """Return the bytes of an element; ``dtype.itemsize`` is there since torch 2.1 only."""
    return torch.empty(0, dtype=dtype).element_size()


def _flat(memory: bytearray, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(memory, dtype=dtype) if memory else torch.empty(0, dtype=dtype)


def _fill(file: IO[bytes], memory: bytearray) -> None:
    view = memoryview(memory)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise EOFError("it ends within a tensor")
        view = view[count:]


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"a size is {str(value)[:20]}")
    return value


class _Limited:
    """The part of a file that one pickle may take, unbuffered: the next one begins where it ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, LONGEST_PICKLE

    def read(self, count: int) -> bytes:
        return self._counted(self.file.read(min(count, self.left)))

    def readline(self) -> bytes:
        return self._counted(self.file.readline(self.left))

    def _counted(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left <= 0:
            raise TooLarge(f"its names and numbers take more than {LONGEST_PICKLE >> 20} MB")
        return data


# --- what a pickle may ask for ----------------------------------------------------------------------------------------


def _left_out(*_arguments: Any) -> _LeftOut:
    return _LeftOut()


def _parameter(data: torch.Tensor, *_more: Any) -> torch.Tensor:
    return data  # the weights themselves: whoever reads them makes parameters of his own


def _ordered(items: Any = ()) -> collections.OrderedDict:
    result: collections.OrderedDict = collections.OrderedDict()
    for key, value in items:
        result[_key(key)] = value
    return result


def _default_dict(*_factory: Any) -> dict[Any, Any]:
    return {}


def _counter(items: Any = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in dict(items).items()}


def _set(items: list[Any] | tuple[Any, ...] = ()) -> set[Any]:
    return set(map(_key, _instance(items, list, tuple)))


def _complex(real: float, imaginary: float) -> complex:
    return complex(_instance(real, float), _instance(imaginary, float))


def _bytes_of(text: str, encoding: str = "latin1") -> bytes:
    return _instance(text, str).encode("latin1" if encoding != "utf-8" else "utf-8")


def _byte_array(content: Any = b"", encoding: str = "latin1") -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _bytes_of(content, encoding))


def _size(lengths: Any = ()) -> torch.Size:
    return torch.Size(map(_whole, lengths))


def _device(*arguments: Any) -> str:
    return ":".join(map(str, arguments))[:40]


def _instance(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"{type(value).__name__} in the place of {kinds[0].__name__}")
    return value


def _key(key: Any) -> Any:
    """Return a key of a table; of nested ones, the hash may take for ever."""
    items = key if isinstance(key, tuple) else (key,)
    if len(items) > MOST_DIMENSIONS or any(isinstance(item, tuple) for item in items):
        raise ValueError("a key is a nested tuple")
    return key


#: The functions and classes that a checkpoint may name, and what stands in their place. All are functions of this
#: module, so that nothing can be set on them that matters. NumPy's arrays and scalars are no weights: left out.
CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered, "collections.defaultdict": _default_dict, "collections.Counter": _counter,
    "_codecs.encode": _bytes_of, "torch.Size": _size, "torch.device": _device,
    "torch.serialization._get_layout": _left_out,
    "torch._utils._rebuild_parameter": _parameter, "torch._utils._rebuild_parameter_with_state": _parameter,
}  # fmt: skip
_BUILTINS: dict[str, Callable[..., Any]] = {
    "set": _set, "frozenset": _set, "complex": _complex, "bytearray": _byte_array, "dict": _default_dict,
    "list": _left_out, "int": _left_out, "float": _left_out,
}  # fmt: skip
CALLS |= {f"{module}.{name}": call for module in ("builtins", "__builtin__") for name, call in _BUILTINS.items()}
_NUMPY = ("dtype", "ndarray", *(f"{core}.multiarray.{name}" for core in ("core", "_core")
                               for name in ("scalar", "_reconstruct")))  # fmt: skip
CALLS |= {f"numpy.{name}": _left_out for name in _NUMPY}
#: Rebuilt by a reader, which knows the storages.
REBUILT = (
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
    "torch._tensor._rebuild_from_type_v2",
)  # fmt: skip


_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_PythonUnpickler):
    """Interprets a pickle in Python: the faster one in C takes memory by what a pickle declares.

    Attributes
    ----------
    unknown : names that it asked for and did not get.
    """

    #: Without arrays of bytes of a declared size, buffers from elsewhere, and the registry of extensions.
    dispatch: ClassVar[dict[int, Callable[..., Any]]] = {
        opcode: function
        for opcode, function in _PythonUnpickler.dispatch.items()
        if bytes([opcode])
        not in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4)
    }

    def __init__(self, file: _Limited, reader: _Reader) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.reader = reader
        self.unknown: set[str] = set()
        names = {name: getattr(self, name.rpartition(".")[2]) for name in REBUILT}
        self.calls = {**CALLS, **names}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in the place of a name; nothing is imported."""
        full = f"{module}.{name}"
        if full in self.calls:
            return self.calls[full]
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return getattr(torch, STORAGES[name])
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if full in ("torch._tensor.Tensor", "torch.Tensor", "torch.nn.parameter.Parameter"):
            return _left_out
        self.unknown.add(full)
        return _left_out

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage."""
        kind, dtype, key, _location, count, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str | int):
            raise ValueError("it refers to something that is no storage")
        return self.reader.storage(dtype, str(key), count, view[0] if view else None)

    def _rebuild_tensor(self, storage: _Storage, offset: int, size: Any, stride: Any, *_more: Any) -> torch.Tensor:
        return self.reader.tensor(_instance(storage, _Storage).flat, offset, size, stride)

    _rebuild_tensor_v2 = _rebuild_tensor

    def _rebuild_tensor_v3(
        self, storage: _Storage, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_more: Any
    ) -> torch.Tensor:
        flat = _instance(storage, _Storage).flat.view(_instance(dtype, torch.dtype))
        return self.reader.tensor(flat, offset, size, stride)

    def _rebuild_from_type_v2(self, function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
        return self._called(function, arguments)

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, FunctionType | MethodType):  # all of them are ours
            raise pickle.UnpicklingError("it calls what is no function")
        return function(*_instance(arguments, tuple))

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], arguments)

    def _load_build(self) -> None:
        """Leave the state of an object out, but what torch keeps with the weights: the versions of the modules."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is collections.OrderedDict and isinstance(state, dict) and "_metadata" in state:
            target._metadata = state["_metadata"]  # type: ignore[attr-defined]

    def _load_newobj(self) -> None:
        self.stack.pop()
        self.stack[-1] = _LeftOut()

    def _load_newobj_ex(self) -> None:
        self.stack.pop()
        self._load_newobj()

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_key(key)] = value

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def _load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(map(_key, items))

    def _load_frozenset(self) -> None:
        self.append(_set(self.pop_mark()))

    def _instantiate(self, _klass: Any, _arguments: Any) -> None:
        self.append(_LeftOut())

    def get_extension(self, code: int) -> None:
        """Refuse the registry of extensions, which others may have filled."""
        raise pickle.UnpicklingError("it asks for an extension")


_Unpickler.dispatch |= {
    pickle.REDUCE[0]: _Unpickler._load_reduce,
    pickle.BUILD[0]: _Unpickler._load_build,
    pickle.NEWOBJ[0]: _Unpickler._load_newobj,
    pickle.NEWOBJ_EX[0]: _Unpickler._load_newobj_ex,
    pickle.SETITEM[0]: _Unpickler._load_setitem,
    pickle.SETITEMS[0]: _Unpickler._load_setitems,
    pickle.DICT[0]: _Unpickler._load_dict,
    pickle.ADDITEMS[0]: _Unpickler._load_additems,
    pickle.FROZENSET[0]: _Unpickler._load_frozenset,
}
