"""Foreign checkpoints are read as data, and ours are written the same each time."""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scripts.lib.base.problems import UserError
from scripts.lib.model.checkpoint_file import read_foreign, write_checkpoint

WEIGHTS = {"backbone.conv1.weight": torch.arange(12.0).reshape(2, 6), "backbone.steps": torch.tensor(3)}


class Evil:
    """What a hostile pickle is: opening it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


class HistoryBuffer:
    """As mmengine's: an array, and one of its own methods."""

    def __init__(self) -> None:
        self.log, self.how = np.arange(3.0), self.mean

    def mean(self) -> float:
        return float(self.log.mean())


def save(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(got) == list(expected) and all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_the_weights_are_found_wherever_training_codes_keep_them(tmp_path: Path, key: str | None, legacy: bool) -> None:
    content = {key: WEIGHTS, "optimizer": {"lr": 0.1}, "epoch": 3} if key else WEIGHTS
    assert same(read_foreign(save(tmp_path / "x.pth", content, legacy=legacy), "x.pth"), WEIGHTS)


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"state_dict": {**WEIGHTS, "note": "hello", 3: torch.zeros(1)}})
    assert same(read_foreign(path, "x.pth"), WEIGHTS)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    path = save(tmp_path / "x.pth", {"state_dict": WEIGHTS, "meta": Evil(tmp_path / "owned")}, legacy=legacy)
    with pytest.raises(
        UserError, match=r"x\.pth holds more than weights \((posix|nt)\.mkdir\).*trust_pickle: true"
    ) as caught:
        read_foreign(path, "x.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["mmengine", "timm", "lightning"])
def test_what_training_codes_keep_beside_the_weights_is_left_out(
    tmp_path: Path, kind: str, legacy: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """mmengine's logs hold arrays and bound methods; nothing of them is imported when the file is read."""
    caplog.set_level(logging.INFO)
    module = types.ModuleType("mmengine.logging.history_buffer")
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    content: dict[str, Any] = {
        "mmengine": {"meta": {"epoch": 1}, "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}}},
        "timm": {"arch": "resnet18", "args": argparse.Namespace(lr=0.1, path=Path("a"))},
        "lightning": {"hyper_parameters": argparse.Namespace(when=datetime.date(2026, 1, 1))},
    }[kind] | {"state_dict": WEIGHTS}
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    path = save(tmp_path / "x.pth", content, legacy=legacy)
    monkeypatch.undo()
    assert same(read_foreign(path, "x.pth"), WEIGHTS)
    assert "left out" in caplog.text and "mmengine" not in sys.modules


def test_a_file_that_needs_more_is_opened_when_it_is_trusted(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"state_dict": WEIGHTS, "args": types.SimpleNamespace(lr=0.1)})
    with pytest.raises(UserError, match=r"types\.SimpleNamespace"):
        read_foreign(path, "x.pth")
    assert same(read_foreign(path, "x.pth", trust_pickle=True), WEIGHTS)


def test_trust_does_not_make_a_damaged_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    save(path, {"args": types.SimpleNamespace(), "state_dict": WEIGHTS}, legacy=True)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"damaged|cannot be opened"):
        read_foreign(path, "x.pth", trust_pickle=True)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_checkpoint_is_said_to_be_so_in_one_line(tmp_path: Path, share: float, legacy: bool) -> None:
    content = save(tmp_path / "x.pth", {"state_dict": {"w": torch.ones(1000)}}, legacy=legacy).read_bytes()
    (tmp_path / "x.pth").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"truncated|damaged|no PyTorch checkpoint") as caught:
        read_foreign(tmp_path / "x.pth", "x.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("position", range(10, 900, 89))
def test_flipped_bytes_give_weights_or_one_line(tmp_path: Path, position: int) -> None:
    content = bytearray(save(tmp_path / "x.pth", {"state_dict": {"w": torch.ones(8)}}, legacy=True).read_bytes())
    content[position % len(content)] ^= 0xFF
    (tmp_path / "x.pth").write_bytes(content)
    try:
        read_foreign(tmp_path / "x.pth", "x.pth")
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image, no PyTorch checkpoint"),
        (b"PK\x03\x04 and nothing more", "is truncated"),
    ],
)
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_foreign(tmp_path / "x.pth", "x.pth")


def test_a_zip_of_images_is_no_checkpoint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("images/cat.jpg", b"...")
    with pytest.raises(UserError, match="zip archive, but no PyTorch checkpoint"):
        read_foreign(tmp_path / "x.pth", "x.pth")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "x.pth"))
    with pytest.raises(UserError, match="TorchScript"):
        read_foreign(tmp_path / "x.pth", "x.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], {"state_dict": {}}, torch.zeros(3)])
def test_a_checkpoint_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="holds no weights"):
        read_foreign(save(tmp_path / "x.pth", content), "x.pth")


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    write_checkpoint(WEIGHTS, tmp_path / "one" / "a.pth")
    write_checkpoint({key: value.clone() for key, value in WEIGHTS.items()}, tmp_path / "another name.pth")
    assert (tmp_path / "one" / "a.pth").read_bytes() == (tmp_path / "another name.pth").read_bytes()
    assert str(os.getpid()).encode() not in (tmp_path / "one" / "a.pth").read_bytes()


def test_what_is_written_is_plain_tensors_in_mmcvs_form(tmp_path: Path) -> None:
    base = torch.zeros(1000, 10)
    write_checkpoint({"w": torch.nn.Parameter(base[:, :1]), **WEIGHTS}, tmp_path / "x.pth")
    content = torch.load(tmp_path / "x.pth", weights_only=True)
    assert content["meta"] == {} and type(content["state_dict"]["w"]) is torch.Tensor
    assert content["state_dict"]["w"].shape == (1000, 1)
    assert (tmp_path / "x.pth").stat().st_size < 20_000  # the view, not the 40 kB that it looks at
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer", "git lfs pull"),
        (b"\x08\x07\x12\x07pytorch" + bytes(80), "ONNX", "the .pth"),
        (b"\x1f\x8b\x08" + bytes(80), "gzip", "gunzip"),
        (b"\x80\x04\x95" + bytes(80), "a pickle", "torch.save"),
        (b"\x93NUMPY" + bytes(80), "NumPy", "the .pth"),
        (b"<html>log in</html>", "web page", "check the address"),
        (b'{"metadata": {}, "weight_map": {}}', "index of weights in several files", "as one file"),
        (b"a.pth" + bytes(252) + b"ustar" + bytes(250), "a tar archive", "the .pth that is in it"),
        (b"anything else" * 10, "is a text, no PyTorch checkpoint", "safetensors"),
        ("下载失败".encode(), "is a text, no PyTorch checkpoint", "safetensors"),
        (b"\0\0\0\x20ftypisom" + bytes(80), "is video, no PyTorch checkpoint", "safetensors"),
        (bytes(128) + b"DICM" + bytes(80), "is DICOM, no PyTorch checkpoint", "safetensors"),
        (b"\xff\xd8\xff\xe0" + bytes(80), "JPEG image, no PyTorch checkpoint", "safetensors"),
        (b"%PDF-1.7" + bytes(80), "PDF, no PyTorch checkpoint", "safetensors"),
        (b"\xfd7zXZ\0" + bytes(80), "is compressed data, no PyTorch checkpoint", "safetensors"),
        (b"GGUF\3\0\0\0" + bytes(80), "GGUF", "image model"),
        (b"", "empty", "fetch it again"),
    ],
)
def test_a_file_of_another_kind_has_a_way_out(tmp_path: Path, content: bytes, message: str, remedy: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_foreign(tmp_path / "x.pth", "x.pth")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("base", [object, dict, list])
def test_a_checkpoint_that_holds_objects_of_a_package_that_is_not_here_is_read_when_trusted(
    tmp_path: Path, base: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("no_such_engine")
    module.History = type("History", (base,), {"__module__": "no_such_engine"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "no_such_engine", module)
    history = module.History()
    history.note = "of training"
    path = save(tmp_path / "x.pth", {"message_hub": {"loss": history}, "state_dict": WEIGHTS})
    monkeypatch.delitem(sys.modules, "no_such_engine")
    with pytest.raises(UserError, match="trust_pickle"):
        read_foreign(path, "x.pth")
    assert same(read_foreign(path, "x.pth", trust_pickle=True), WEIGHTS)


@pytest.mark.parametrize("key", ["ema_state_dict", "model_ema", "student", "algorithm"])
def test_weights_under_any_key_are_found_and_an_optimizer_is_none(
    tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "more": {f"p{i}": torch.zeros(1) for i in range(9)}}
    path = save(tmp_path / "x.pth", {"optimizer": optimizer, "epoch": 3, key: {"weights": WEIGHTS}})
    assert same(read_foreign(path, "x.pth"), WEIGHTS)
    assert f"the weights under '{key}.weights' are taken" in caplog.text


def test_a_whole_network_that_is_trusted_gives_its_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"model": torch.nn.Linear(2, 3), "epoch": 1})
    assert set(read_foreign(path, "x.pth", trust_pickle=True)) == {"weight", "bias"}
