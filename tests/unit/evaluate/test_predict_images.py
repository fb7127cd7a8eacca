"""Predictions on a split: the same numbers as mmcls's own, in the split's order, whatever reads the images."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcls.apis import single_gpu_test
from mmcls.datasets import build_dataloader
from mmcls.models import build_classifier
from mmcv import Config, ConfigDict
from mmcv.runner import load_checkpoint
from tiny_run import CLASSES, TinyRun, make_run

from scripts.evaluate import predict_images
from scripts.lib.base.files import read_lines
from scripts.lib.base.problems import UserError
from scripts.lib.model import inference
from scripts.lib.runs.predictions import read_predictions, write_predictions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_run(tmp_path_factory.mktemp("run"))


def predict(run: TinyRun, output: Path, *more: str) -> bytes:
    args = predict_images.build_parser().parse_args([*run.options(output), *more])
    predict_images.main(args)
    return output.read_bytes()


def test_rows_are_in_the_order_of_the_split(run: TinyRun, tmp_path: Path) -> None:
    predict(run, tmp_path / "p.csv")
    predictions = read_predictions(tmp_path / "p.csv")
    lines = [f"{file} {label}" for file, label in zip(predictions.files, predictions.labels, strict=True)]
    assert lines == read_lines(run.split)
    assert predictions.classes == CLASSES


def test_probabilities_are_mmcls_own_bit_by_bit(run: TinyRun, tmp_path: Path) -> None:
    predict(run, tmp_path / "p.csv", "--batch-size", "8")
    config = Config.fromfile(str(run.folder / "config.py"))
    dataset = predict_images.test_dataset(config, run.images, run.split, CLASSES)
    model = build_classifier(config.model)
    load_checkpoint(model, str(run.folder / "best.pth"), map_location="cpu")
    loader = build_dataloader(dataset, 8, 0, dist=False, shuffle=False, persistent_workers=False)
    expected = np.stack(single_gpu_test(model.eval(), loader))
    predictions = read_predictions(tmp_path / "p.csv")
    assert np.array_equal(predictions.probabilities.astype(np.float32), expected)
    assert np.array_equal(predictions.predictions, expected.argmax(axis=1))
    assert len(set(predictions.predictions)) > 1, "the network of this test must tell images apart"


def test_neither_workers_nor_a_second_time_change_a_byte(run: TinyRun, tmp_path: Path) -> None:
    alone = predict(run, tmp_path / "a.csv", "--workers", "0", "--batch-size", "4")
    assert predict(run, tmp_path / "b.csv", "--workers", "2", "--batch-size", "4") == alone
    assert predict(run, tmp_path / "c.csv", "--workers", "2", "--batch-size", "4") == alone


def test_features_are_what_the_last_layer_makes_the_probabilities_of(run: TinyRun, tmp_path: Path) -> None:
    predict(run, tmp_path / "p.csv", "--batch-size", "8", "--features", str(tmp_path / "f.npy"))
    features = np.load(tmp_path / "f.npy")
    config = Config.fromfile(str(run.folder / "config.py"))
    dataset = predict_images.test_dataset(config, run.images, run.split, CLASSES)
    model = inference.build_model(config, inference.read_checkpoint(run.folder / "best.pth")[0], "cpu")
    loader = build_dataloader(dataset, 8, 0, dist=False, shuffle=False, persistent_workers=False)
    with torch.no_grad():
        expected = torch.cat([model.extract_feat(batch["img"], stage="pre_logits") for batch in loader])
        probabilities = model.head.fc(torch.from_numpy(features)).softmax(1).numpy()
    assert features.dtype == np.float32 and np.array_equal(features, expected.numpy())
    assert np.allclose(probabilities, read_predictions(tmp_path / "p.csv").probabilities, atol=1e-6)


@pytest.mark.long
def test_features_change_no_byte_of_the_table_and_are_the_same_bytes_again(run: TinyRun, tmp_path: Path) -> None:
    without = predict(run, tmp_path / "p.csv", "--batch-size", "4")
    for name in ("a.npy", "b.npy"):
        assert predict(run, tmp_path / "p.csv", "--batch-size", "4", "--features", str(tmp_path / name)) == without
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


TRANSFORMER = {"arch": {"embed_dims": 16, "num_layers": 1, "num_heads": 2, "feedforward_channels": 16}, "img_size": 32}


def features_and_outputs(backbone: dict[str, Any], head: dict[str, Any]) -> tuple[np.ndarray, Any, torch.nn.Module]:
    """What is noted of two batches of two images, what the backbone gives for the four, and the model."""
    torch.manual_seed(0)
    model = build_classifier(ConfigDict(type="ImageClassifier", backbone=backbone, head=head)).eval()
    images = torch.randn(4, 1 if backbone["type"] == "LeNet5" else 3, 32, 32)
    batches: list[np.ndarray] = []
    with torch.no_grad(), inference.noted_features(model, 7, batches):
        for batch in images.split(2):
            model(img=batch, return_loss=False)
    with torch.no_grad():
        model(img=images, return_loss=False)
        assert [len(batch) for batch in batches] == [2, 2], "outside the block nothing is noted"
        return np.concatenate(batches), model.backbone(images), model


def test_a_layer_in_the_backbone_that_makes_the_scores_is_found() -> None:
    features, outputs, model = features_and_outputs({"type": "LeNet5", "num_classes": 7}, {"type": "ClsHead"})
    with torch.no_grad():
        logits = model.backbone.classifier[-1](torch.from_numpy(features))
    assert features.shape == (4, 84) and torch.allclose(logits, outputs[-1], atol=1e-6)


def test_behind_a_hidden_layer_the_features_are_the_hidden_ones() -> None:
    head = {"type": "VisionTransformerClsHead", "num_classes": 7, "in_channels": 16, "hidden_dim": 12}
    features, outputs, model = features_and_outputs({"type": "VisionTransformer", **TRANSFORMER}, head)
    with torch.no_grad():
        assert np.allclose(features, model.head.pre_logits(outputs).numpy(), atol=1e-6)
    assert features.shape == (4, 12)


def test_of_a_head_with_two_layers_the_pooled_output_of_the_backbone_is_taken() -> None:
    head = {"type": "DeiTClsHead", "num_classes": 7, "in_channels": 16}
    features, outputs, _ = features_and_outputs({"type": "DistilledVisionTransformer", **TRANSFORMER}, head)
    patches, of_class, distilled = (output.numpy() for output in outputs[-1])
    assert np.allclose(features, np.hstack([patches.mean((2, 3)), of_class, distilled]), atol=1e-6)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_broken_image_is_named_and_leaves_no_table(tmp_path: Path, workers: str) -> None:
    run = make_run(tmp_path, per_class=1)
    broken = run.images / CLASSES[0] / "a 0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, match=r"苹果/a 0\.png: not an image"):
        predict(run, tmp_path / "p.csv", "--workers", workers)
    assert not list(tmp_path.glob("*p.csv*")) and not list(tmp_path.glob(".p*"))


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, per_class=1)
    (run.images / CLASSES[0] / "a 0.png").unlink()
    with pytest.raises(UserError, match=r"苹果/a 0\.png: No such file"):
        predict(run, tmp_path / "p.csv")


def test_a_fault_of_the_pipeline_is_not_taken_for_a_broken_image(run: TinyRun) -> None:
    config = Config.fromfile(str(run.folder / "config.py"))
    dataset = predict_images.test_dataset(config, run.images, run.split, CLASSES)

    def faulty(sample: Any) -> Any:
        raise TypeError("a fault")

    dataset.pipeline = faulty
    with pytest.raises(TypeError, match="a fault"):
        inference.OrReason(dataset)[0]


def test_a_label_beyond_the_classes_is_refused(run: TinyRun, tmp_path: Path) -> None:
    split = tmp_path / "test.txt"
    split.write_text(f"{CLASSES[0]}/a 0.png {len(CLASSES)}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1: the label must be a number below 7"):
        predict(run, tmp_path / "p.csv", "--split", str(split))


def test_an_empty_split_is_refused(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("")
    with pytest.raises(UserError, match="names no image"):
        predict(run, tmp_path / "p.csv", "--split", str(tmp_path / "test.txt"))


def test_a_model_of_other_classes_is_refused(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join([*CLASSES, "one more"]), encoding="utf-8")
    with pytest.raises(UserError, match="the model knows 7 classes"):
        predict(run, tmp_path / "p.csv", "--classes", str(tmp_path / "classes.txt"))


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def test_code_in_a_checkpoint_is_not_run(run: TinyRun, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "meta": Bomb(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth: damaged, or no checkpoint of plain tensors"):
        predict(run, tmp_path / "p.csv", "--checkpoint", str(tmp_path / "evil.pth"))
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(UserError, match="damaged, or no checkpoint"):
        predict(run, tmp_path / "p.csv", "--checkpoint", str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_truncated_or_missing_checkpoint_is_one_line(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "half.pth").write_bytes((run.folder / "best.pth").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"half\.pth: damaged"):
        inference.read_checkpoint(tmp_path / "half.pth")
    with pytest.raises(UserError, match="no such checkpoint"):
        inference.read_checkpoint(tmp_path / "none.pth")


def test_weights_of_another_model_are_refused(run: TinyRun) -> None:
    weights, _ = inference.read_checkpoint(run.folder / "best.pth")
    del weights["head.fc.weight"]
    with pytest.raises(UserError, match=r"does not fit the config.*head\.fc\.weight"):
        inference.build_model(Config.fromfile(str(run.folder / "config.py")), weights, "cpu")


def test_the_second_copy_of_averaged_weights_is_ignored(run: TinyRun) -> None:
    weights, _ = inference.read_checkpoint(run.folder / "best.pth")
    weights["ema_head_fc_weight"] = weights["head.fc.weight"]
    inference.build_model(Config.fromfile(str(run.folder / "config.py")), weights, "cpu")


def test_a_run_that_was_trained_on_a_cpu_is_evaluated_there(run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert inference.trained_on_cpu(Config.fromfile(str(run.folder / "config.py")))
    assert not inference.trained_on_cpu(Config({"runner": {"device": "cuda"}}))
    assert inference.choose_device("auto") == "cuda"


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no usable GPU"):
        inference.choose_device("cuda")
    assert inference.choose_device("auto") == "cpu"


def test_every_float32_comes_back_from_the_table(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((50, 2), dtype=np.float32)
    values[0] = [np.float32(1e-38), np.nextafter(np.float32(1), np.float32(0))]
    write_predictions(tmp_path / "p.csv", ["a", "b"], (("x", 0, row) for row in values))
    assert np.array_equal(read_predictions(tmp_path / "p.csv").probabilities.astype(np.float32), values)


@pytest.mark.parametrize("classes", [["NA", "01"], ["01", "02"], ["1.0", "1e0"], ["true", "null"]])
def test_classes_that_look_like_values_stay_names(tmp_path: Path, classes: list[str]) -> None:
    rows = [("007", 0, np.float32([0.9, 0.1])), ('1, "2"', 1, np.float32([0.2, 0.8]))]
    write_predictions(tmp_path / "p.csv", classes, rows)
    predictions = read_predictions(tmp_path / "p.csv")
    assert predictions.classes == classes
    assert predictions.files == ["007", '1, "2"']
    assert predictions.labels.tolist() == predictions.predictions.tolist() == [0, 1]


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "file,label,prediction,prob:a\n", "file,label,prediction,prob:a\nx,a,b,1\n",
     "file,label,prediction,prob:a\nx,a,a,much\n", "file,label,prediction,prob:a\nx,a,a,nan\n"],
)  # fmt: skip
def test_a_file_that_is_no_table_of_predictions_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=r"p\.csv: .*make (it|the file) again"):
        read_predictions(tmp_path / "p.csv")
