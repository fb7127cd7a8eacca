"""Files of torch.save: the same tensors as torch reads, nothing hostile run, and no memory for mere claims."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.lib.base import tensor_file
from scripts.lib.base.tensor_file import HoldsMore, TooLarge, Unreadable

BASE = torch.arange(1000.0).reshape(100, 10)


def everything() -> dict[str, Any]:
    """What checkpoints hold: views of one memory, types, nesting, and the values beside the weights."""
    weights = collections.OrderedDict(
        whole=BASE, view=BASE[::2, 1:4], turned=BASE.t(), brain=torch.randn(3).bfloat16(), scalar=torch.tensor(3),
        empty=torch.zeros(0, 3), truth=torch.tensor([True, False]), parameter=torch.nn.Parameter(torch.ones(2)),
        complex=torch.randn(2).to(torch.complex64), short=torch.arange(3, dtype=torch.int16), half=torch.ones(4).half(),
        repeated=torch.ones(1).expand(3),
    )  # fmt: skip
    values = [1, 2.5, None, "ü", (1, 2), {1, 2}, b"bytes", complex(1, 2), 1 << 70, True, torch.float32]
    network = torch.nn.BatchNorm1d(2).state_dict()
    return {"state_dict": weights, "values": values, "size": torch.Size([1, 2]), "optimizer": {0: {"m": BASE * 2}},
            "network": network}  # fmt: skip


def same(got: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        alike = got.dtype == expected.dtype and got.shape == expected.shape and got.stride() == expected.stride()
        return alike and torch.equal(got, expected)
    if isinstance(expected, dict):
        return list(got) == list(expected) and all(same(got[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(map(same, got, expected))
    return got == expected


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_reads_is_read_bit_for_bit(tmp_path: Path, zipped: bool, protocol: int) -> None:
    content = everything()
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save(content, tmp_path / "x.pth", **options)  # type: ignore[arg-type]
    got = tensor_file.read(tmp_path / "x.pth")
    assert same(got, torch.load(tmp_path / "x.pth", weights_only=False)) and same(got, content)
    weights = got["state_dict"]
    assert weights["view"].data_ptr() == weights["whole"].data_ptr() + 4  # one memory, as it was
    assert got["network"]._metadata == content["network"]._metadata


class Call:
    """A hostile pickle: opening it calls *function*."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(mark: str) -> dict[str, Any]:
    write = f"open({mark!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "eval": Call(builtins.eval, write),
        "exec": Call(builtins.exec, write),
        "open": Call(builtins.open, mark, "w"),
        "import": Call(builtins.__import__, "antigravity"),
        "getattr": Call(builtins.getattr, Call(builtins.__import__, "os"), "mkdir"),
        "nested": Call(os.mkdir, Call(os.path.join, Call(os.getcwd), mark)),
        "rebuild": Call(torch._utils._rebuild_tensor_v2, Call(os.mkdir, mark), 0, (1,), (1,), False, {}),
        "from type": Call(torch._tensor._rebuild_from_type_v2, os.mkdir, torch.Tensor, (mark,), {}),
        "load in load": Call(torch.load, mark),
        "hub": Call(torch.hub.load, mark, "x"),
        "module": torch.nn.Linear(2, 2),
        "key": {Call(os.mkdir, mark): 1},
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("way", list(hostile("")))
def test_nothing_in_a_file_is_run(tmp_path: Path, way: str, zipped: bool) -> None:
    mark = tmp_path / "ran"
    content = {"state_dict": {"w": BASE}, "more": hostile(str(mark))[way]}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(Unreadable) as caught:
        tensor_file.read(tmp_path / "x.pth")
    assert not mark.exists() and "\n" not in str(caught.value)
    if way != "from type":  # where what is called is no function that the file may name
        assert isinstance(caught.value, HoldsMore) and caught.value.names


def archive(
    path: Path, data: bytes, storages: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> Path:
    """Write a checkpoint by hand."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", data)
        for key, content in (storages or {"0": bytes(16)}).items():
            file.writestr(f"archive/data/{key}", content)
    return path


class Storage:
    """Pickled as the reference to a storage."""

    def __init__(self, count: int, key: str = "0") -> None:
        self.pid = ("storage", torch.FloatStorage, key, "cpu", count)


def pickled(*arguments: Any, function: Any = torch._utils._rebuild_tensor_v2) -> bytes:
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 2)
    pickler.persistent_id = lambda value: value.pid if isinstance(value, Storage) else None  # type: ignore[method-assign,assignment]
    pickler.dump({"w": Call(function, *arguments)})
    return stream.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        (Storage(4), 0, (2_000_000_000,), (0,)),  # 8 GB out of one number
        (Storage(4), 0, (10**6, 10**6), (0, 0)),
        (Storage(4), 0, (5,), (1,)),
        (Storage(4), 3, (2,), (1,)),
        (Storage(4), 0, (2,), (10,)),
        (Storage(10**12), 0, (1,), (1,)),
        (Storage(4), -1, (1,), (1,)),
        (Storage(4), 0, (-5,), (1,)),
        (Storage(4), 0, (2,), (-1,)),
        (Storage(4), 0, (2, 2), (1,)),
        (Storage(4), 0, (2.5,), (1,)),
        (Storage(4, "1"), 0, (1,), (1,)),
        ("no storage", 0, (1,), (1,)),
    ],
)
def test_a_tensor_that_is_not_in_the_file_takes_no_memory(tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    path = archive(tmp_path / "x.pth", pickled(*arguments, False, {}))
    with pytest.raises(Unreadable) as caught:
        tensor_file.read(path)
    assert "\n" not in str(caught.value)


def test_a_compressed_entry_is_not_unpacked(tmp_path: Path) -> None:
    data = pickled(Storage(50_000_000), 0, (50_000_000,), (1,), False, {})
    path = archive(tmp_path / "x.pth", data, {"0": bytes(200_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(TooLarge, match="compressed"):
        tensor_file.read(path)


def test_one_memory_is_not_taken_a_thousand_times(tmp_path: Path) -> None:
    torch.save([torch.as_strided(BASE, (900,), (1,), (i % 100)) for i in range(1000)], tmp_path / "x.pth")
    with pytest.raises(TooLarge, match="declares tensors"):
        tensor_file.read(tmp_path / "x.pth")


def test_a_storage_of_the_older_format_takes_no_more_than_the_file_has(tmp_path: Path) -> None:
    torch.save(torch.zeros(8), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pth").read_bytes()
    for old, new in ((b"K\x08N", b"J\xff\xff\xff\x7fN"), (struct.pack("<q", 8), struct.pack("<q", 1 << 40))):
        assert old in data
        (tmp_path / "y.pth").write_bytes(data.replace(old, new))
        with pytest.raises(Unreadable):
            tensor_file.read(tmp_path / "y.pth")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02r\xff\xff\xff\x7f.",  # a place in the memo that makes Python's reader in C take 16 GB
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",  # an array of bytes of a terabyte
        b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b".",
        b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b".",
        b"\x80\x02\x82\x01.",  # the registry of extensions
        b"\x80\x02}" + b"(" * 40 + b".",
        b"\x80\x02" + b")\x85" + b"q\x00h\x00\x86" * 60 + b"}h\x00K\x01s.",  # a key whose hash takes 2 ** 60 steps
        b"",
        b".",
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
    ],
)
def test_a_pickle_made_to_harm_is_one_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        tensor_file.read(archive(tmp_path / "x.pth", data))
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_tensor_is_seen(tmp_path: Path) -> None:
    torch.save({"w": BASE}, tmp_path / "x.pth")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    data[data.index(struct.pack("<ff", 500.0, 501.0))] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(Unreadable, match="CRC"):
        tensor_file.read(tmp_path / "x.pth")


def test_numpy_s_scalars_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    torch.save({"state_dict": {"w": BASE}, "best": numpy.float64(0.5), "row": numpy.arange(3)}, tmp_path / "x.pth")
    assert same(tensor_file.read(tmp_path / "x.pth")["state_dict"], {"w": BASE})
