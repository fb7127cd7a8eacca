"""model.onnx: the same predictions as the checkpoint's, from the file of an image on, and what happens where not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mmcls.datasets.pipelines import Compose
from mmcls.models import build_classifier
from mmcv import Config, ConfigDict
from PIL import Image
from tiny_run import CLASSES, TinyRun, make_run, photograph

from scripts.evaluate import export_model, predict_images
from scripts.lib.base.problems import UserError
from scripts.lib.model import config_patches, onnx_export, onnx_parity
from scripts.lib.model.model_zoo import config_path
from scripts.lib.runs import config_file, onnx_model
from scripts.lib.runs.onnx_example import example
from scripts.lib.runs.predictions import Predictions, read_predictions

ROOT = Path(__file__).resolve().parents[3]
NORMALIZE = {"type": "Normalize", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
PACKING = [{"type": "ImageToTensor", "keys": ["img"]}, {"type": "Collect", "keys": ["img"]}]


@dataclass(frozen=True)
class Exported:
    run: TinyRun
    folder: Path

    def options(self, *more: str) -> list[str]:
        """The command line of export_model for this run."""
        files = {
            "predictions": "predictions.csv",
            "output": "model.onnx",
            "report": "export.json",
            "example": "onnx_example.py",
        }
        named = [text for option, file in files.items() for text in (f"--{option}", str(self.folder / file))]
        options = self.run.options(Path("unused"))
        inputs = options[: options.index("--output")]
        return [*inputs, *named, "--threads", "1", *more]

    def export(self, *more: str) -> None:
        export_model.main(export_model.build_parser().parse_args(self.options(*more)))

    @property
    def predictions(self) -> Predictions:
        return read_predictions(self.folder / "predictions.csv")


def predicted(run: TinyRun, folder: Path) -> Exported:
    folder.mkdir(parents=True)
    predict_images.main(predict_images.build_parser().parse_args(run.options(folder / "predictions.csv")))
    return Exported(run, folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    result = predicted(run, tmp_path_factory.mktemp("exported") / "run")
    result.export("--html", str(result.folder / "export.html"))
    return result


@pytest.mark.long
def test_the_graph_takes_any_number_of_images_and_holds_its_weights(exported: Exported) -> None:
    model = onnx.load(exported.folder / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version <= 9, "what onnxruntime 1.16 reads"
    sizes = [[size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
             for value in (*model.graph.input, *model.graph.output)]  # fmt: skip
    assert sizes == [["batch", 3, 32, 32], ["batch", len(CLASSES)]]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {path.name for path in exported.folder.iterdir()} == {
        "predictions.csv", "model.onnx", "onnx_example.py", "export.json", "export.html"
    }  # fmt: skip
    content = (exported.folder / "model.onnx").read_bytes()
    told = json.loads((exported.folder / "export.json").read_text(encoding="utf-8"))["model"]
    assert (told["bytes"], told["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_every_test_image_is_compared_from_its_file_on(exported: Exported) -> None:
    parity = json.loads((exported.folder / "export.json").read_text(encoding="utf-8"))["parity"]
    assert parity["images"] == parity["same_prediction"] == len(exported.predictions.files) == 21
    assert 0 < parity["largest_difference"] < 1e-4
    model = onnx_model.OnnxModel(exported.folder / "model.onnx", threads=1)
    assert model.classes == CLASSES
    paths = [exported.run.images / file for file in exported.predictions.files]
    for batch_size in (1, 4, 100):
        batches = list(onnx_model.predict_files(model, paths, batch_size))
        assert [index for batch in batches for index in batch.indices] == list(range(len(paths)))
        rows = np.concatenate([batch.probabilities for batch in batches])
        np.testing.assert_allclose(rows, exported.predictions.probabilities, atol=1e-4)
    assert np.ptp(rows, axis=0).max() > 0.1, "the network of this test must tell images apart"


@pytest.mark.long
def test_the_same_checkpoint_gives_the_same_bytes_without_a_path_in_them(exported: Exported, tmp_path: Path) -> None:
    again = predicted(exported.run, tmp_path / "again")
    again.export()
    content = (again.folder / "model.onnx").read_bytes()
    assert content == (exported.folder / "model.onnx").read_bytes()
    for path in (exported.run.folder, tmp_path, ROOT):
        assert str(path).encode() not in content


@pytest.mark.long
def test_the_command_says_two_lines_and_its_log_has_no_warnings(run: TinyRun, tmp_path: Path) -> None:
    exported = predicted(run, tmp_path / "run")
    command = [sys.executable, "-m", "scripts.evaluate.export_model", *exported.options("--log", str(tmp_path / "log"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    parity, speed = done.stderr.splitlines()
    assert re.search(r"opset 17, \d\.\d MB; 21 of 21 predictions are the checkpoint's", parity)
    assert re.search(r"one image on 1 CPU threads: torch \d+\.\d ms, onnxruntime \d+\.\d ms", speed)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "arn" not in log.replace("learn", ""), log  # Warning, warnings.warn


@pytest.mark.long
def test_bytes_go_in_where_the_model_normalises(exported: Exported, tmp_path: Path) -> None:
    inside = predicted(exported.run, tmp_path / "inside")
    inside.export("--preprocessing")
    model = onnx_model.OnnxModel(inside.folder / "model.onnx", threads=1)
    assert model.input_shape == [32, 32, 3]
    assert model.session.get_inputs()[0].type == "tensor(uint8)"
    assert model.session.get_modelmeta().custom_metadata_map["normalisation"] == "inside"
    parity = json.loads((inside.folder / "export.json").read_text(encoding="utf-8"))["parity"]
    assert parity["same_prediction"] == 21 and parity["largest_difference"] < 1e-4


@pytest.mark.parametrize("order", [onnx_model.RGB, onnx_model.BGR, onnx_model.GREY])
def test_both_places_of_the_normalisation_give_the_model_the_same(order: str) -> None:
    class Mean(torch.nn.Module):
        def forward(self, img: torch.Tensor, **_: Any) -> torch.Tensor:
            return img

    channels = 1 if order == onnx_model.GREY else 3
    mean, std = [10.0, 100.0, 200.0][:channels], [3.0, 5.0, 7.0][:channels]
    outside = onnx_model.Preprocessing([], mean, std, order, onnx_model.OUTSIDE)
    inside = onnx_export.moved_inside(outside)
    assert inside.channel_order == (order if order == onnx_model.GREY else onnx_model.RGB)
    content = encoded(photograph(3, (9, 7)))
    classifier = onnx_export.Classifier(Mean(), outside, inside=True)
    got = classifier(torch.from_numpy(inside.prepare(content)[None]))[0].numpy()
    np.testing.assert_allclose(got, outside.prepare(content), rtol=1e-5, atol=1e-5)


def encoded(image: Image.Image, suffix: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


LOAD = {"type": "LoadImageFromFile"}
PIPELINES: dict[str, list[dict[str, Any]]] = {
    "fast": [LOAD, {"type": "Resize", "size": (40, -1), "backend": "pillow"}, {"type": "CenterCrop", "crop_size": 40}],
    "tutorial": [LOAD, {"type": "Resize", "size": (48, -1), "backend": "pillow"},
                 {"type": "CenterCrop", "crop_size": 40}],
    "opencv": [LOAD, {"type": "Resize", "size": (48, -1)}, {"type": "CenterCrop", "crop_size": (40, 36)}],
    "swin-384": [LOAD, {"type": "Resize", "size": 40, "backend": "pillow", "interpolation": "bicubic"}],
    "mixer": [LOAD, {"type": "Resize", "size": (48, -1), "backend": "cv2", "interpolation": "bicubic"},
              {"type": "CenterCrop", "crop_size": 40}],
    "efficientnet": [LOAD, {"type": "CenterCrop", "crop_size": 45, "efficientnet_style": True,
                            "interpolation": "bicubic"}],
    "efficientnet-pillow": [LOAD, {"type": "CenterCrop", "crop_size": 45, "efficientnet_style": True,
                                   "crop_padding": 7, "backend": "pillow"}],
    "cub": [LOAD, {"type": "Resize", "size": (60, 50)}, {"type": "CenterCrop", "crop_size": 40}],
    "grey": [{**LOAD, "color_type": "grayscale"}, {"type": "Resize", "size": (32, 32)}],
    "cifar": [LOAD, {"type": "Resize", "size": (32, 32)}],
    "pad": [LOAD, {"type": "Resize", "size": (40, -1), "backend": "pillow"},
            {"type": "MakeSquare", "fit": "pad", "size": 40, "background": [16, 32, 240]}],
    "squash": [LOAD, {"type": "MakeSquare", "fit": "squash", "size": 41, "interpolation": "bicubic"}],
    "grey bars": [{**LOAD, "color_type": "grayscale"},
                  {"type": "MakeSquare", "fit": "pad", "size": 32, "background": [255, 0, 0]}],
}  # fmt: skip
GREY_NORMALIZE = {"type": "Normalize", "mean": [33.46], "std": [78.87], "to_rgb": False}
NORMALIZATIONS = {"grey": GREY_NORMALIZE, "grey bars": GREY_NORMALIZE,
                  "cifar": {**NORMALIZE, "to_rgb": False}}  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
def test_images_are_prepared_as_mmcls_does(name: str, tmp_path: Path) -> None:
    pipeline = [*PIPELINES[name], NORMALIZATIONS.get(name, NORMALIZE), *PACKING]
    described = onnx_export.describe_pipeline(pipeline)
    read_back = onnx_model.Preprocessing.of_metadata(described.metadata())
    assert read_back == described
    turned = Image.Exif()
    turned[0x0112] = 6
    images = {
        "wide.jpg": encoded(photograph(1, (301, 200)), "jpeg", quality=80),
        "high.png": encoded(photograph(2, (131, 257))),
        "turned.jpg": encoded(photograph(3, (90, 70)), "jpeg", exif=turned),
        "small.png": encoded(photograph(4, (33, 21)).convert("L")),
        "clear.png": encoded(photograph(5, (64, 48)).convert("RGBA")),
        "exact.png": encoded(photograph(6, (48, 60))),
    }
    for file, content in images.items():
        (tmp_path / file).write_bytes(content)
        info = {"img_prefix": str(tmp_path), "img_info": {"filename": file}}
        expected = Compose([ConfigDict(step) for step in pipeline])(info)["img"].numpy()
        got = read_back.prepare(content)
        assert got.dtype == np.float32 and got.shape == expected.shape, file
        # Of a picture with alpha, the decoder's own grey differs by a level from that of the picture on its background.
        tolerance = 1e-5 if "grey" not in name or file != "clear.png" else 1.01 / NORMALIZATIONS[name]["std"][0]
        np.testing.assert_allclose(got, expected, atol=tolerance, err_msg=file)


def test_a_pipeline_without_words_for_it_is_one_line() -> None:
    for step in (
        {"type": "Pad", "size": (40, 40)},
        {"type": "Resize", "size": (40, -1), "adaptive_side": "long"},
        {"type": "LoadImageFromFile", "color_type": "unchanged"},
    ):
        with pytest.raises(UserError, match=f"cannot describe its step .*{step['type']}"):
            onnx_export.describe_pipeline([LOAD, step, NORMALIZE, *PACKING])
    with pytest.raises(UserError, match="cannot describe CenterCrop after Normalize"):
        onnx_export.describe_pipeline([LOAD, NORMALIZE, {"type": "CenterCrop", "crop_size": 8}, *PACKING])


def reference(rows: list[list[float]]) -> Predictions:
    probabilities = np.array(rows)
    labels = probabilities.argmax(axis=1)
    return Predictions([str(n) for n in range(len(rows))], labels, labels, probabilities, ["a", "b", "c"])


def test_only_a_clear_change_of_mind_or_of_probability_breaks_parity() -> None:
    rows = [[0.5, 0.3, 0.2], [0.4004, 0.4, 0.1996]]
    for changed, holds, same in (
        ([[0.5, 0.3, 0.2], [0.4, 0.4004, 0.1996]], True, 1),  # a tie, but for rounding
        ([[0.5005, 0.2995, 0.2], rows[1]], True, 2),
        ([[0.502, 0.298, 0.2], rows[1]], False, 2),
        ([[0.3, 0.5, 0.2], rows[1]], False, 1),
    ):
        parity = onnx_parity.compare(np.array(changed), reference(rows))
        assert (parity.holds, parity.same, parity.images) == (holds, same, 2)
    assert parity.clear == [0] and parity.worst == 0 and parity.largest == pytest.approx(0.2)
    # Both are within the tolerance of their probabilities, and yet it is another answer that was preferred clearly.
    parity = onnx_parity.compare(np.array([[0.4, 0.4003, 0.1997]]), reference([[0.4009, 0.3995, 0.1996]]))
    assert not parity.holds and parity.largest < onnx_parity.TOLERANCE


@pytest.mark.long
def test_predictions_of_another_checkpoint_are_refused_and_no_model_is_left(run: TinyRun, tmp_path: Path) -> None:
    exported = predicted(run, tmp_path / "run")
    table = (exported.folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    row = table[5].split(",")
    row[-1] = f"{float(row[-1]) + 0.002:.9g}"
    table[5] = ",".join(row)
    (exported.folder / "predictions.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"--predictions: .* is 2\.0e-03 away .* of another checkpoint"):
        exported.export("--html", str(exported.folder / "export.html"))
    assert [path.name for path in exported.folder.iterdir()] == ["predictions.csv"]


def test_a_graph_that_differs_from_the_checkpoint_is_named() -> None:
    parity = onnx_parity.compare(np.array([[0.3, 0.5, 0.2]]), reference([[0.5, 0.3, 0.2]]))
    error = onnx_parity.explain_difference(
        parity, "x.png", np.array([0.3, 0.5, 0.2]), np.array([0.5, 0.3, 0.2]), "config.py: Swin"
    )
    assert "config.py: Swin is another model in ONNX: a probability of x.png is 2.0e-01 away" in str(error)
    assert "1 of 1 predictions are clearly others" in str(error)


def test_files_that_do_not_belong_together_are_one_line(exported: Exported, tmp_path: Path) -> None:
    options = exported.options("--output", str(tmp_path / "model.onnx"))
    (tmp_path / "split").write_text("x.png 0\n")
    (tmp_path / "classes").write_text("a\nb\n")
    for option, message in (("split", "its images are not those of"), ("classes", "its classes are not those of")):
        args = export_model.build_parser().parse_args([*options, f"--{option}", str(tmp_path / option)])
        with pytest.raises(UserError, match=message):
            export_model.main(args)
    assert not (tmp_path / "model.onnx").exists()


AS_IT_IS = onnx_model.Preprocessing([], [0.0] * 3, [1.0] * 3, onnx_model.RGB, onnx_model.OUTSIDE)
IMAGES = np.zeros((2, 3, 8, 8), np.float32)


def notes_of(size: int) -> dict[str, str]:
    metadata = {"class_names": json.dumps(list("abcde")), "image_size": json.dumps({"height": size, "width": size})}
    return {**metadata, **AS_IT_IS.metadata()}


#: Base configs of six families. Swin with fewer blocks of each kind, since every one takes the exporter a second.
FAMILIES: dict[str, dict[str, Any]] = {
    "mobilenet-v2_8xb32_in1k": {},
    "resnet18_8xb32_in1k": {},
    "efficientnet-b0_8xb32_in1k": {},
    "deit-tiny_pt-4xb256_in1k": {},
    "swin-tiny_16xb64_in1k": {
        "arch": {"embed_dims": 96, "depths": [2, 1, 1, 1], "num_heads": [3, 6, 12, 24]}
    },
    "convnext-tiny_32xb128_in1k": {},
}  # fmt: skip
SIZE = 64


def random_classifier(base_config: str, size: int, **backbone: Any) -> torch.nn.Module:
    """The classifier of a base config with random weights and five classes, which tells images apart."""
    config = config_file.plain(Config.fromfile(str(config_path(base_config))).model)
    config["backbone"].update(backbone)
    config_patches.patch_model(config, 5)
    config_patches.set_backbone_size(config, size, config_patches.class_accepts)
    torch.manual_seed(0)
    classifier = build_classifier(ConfigDict(config))
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        for name, weights in classifier.named_parameters():
            if name.endswith("gamma"):  # ConvNeXt's layer scale of 1e-6 would hide what its layers do
                weights.fill_(0.5)
        classifier.train().extract_feat(torch.randn(8, 3, size, size))
        linear = [module for module in classifier.head.modules() if isinstance(module, torch.nn.Linear)][-1]
        linear.weight.normal_(0, 0.2)
    return classifier.eval()


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_six_families_predict_the_same_in_batches_of_any_size(family: str, tmp_path: Path) -> None:
    model = random_classifier(family, SIZE, **FAMILIES[family])
    classifier = onnx_export.Classifier(model, AS_IT_IS).eval()
    images = np.random.default_rng(0).normal(0, 1, (5, 3, SIZE, SIZE)).astype(np.float32)
    images += np.linspace(-2, 2, 5, dtype=np.float32)[:, None, None, None]
    with torch.no_grad():
        expected = classifier(torch.from_numpy(images)).numpy()
        onnx_export.export(classifier, images[:2], tmp_path / "model.onnx", family)
    assert np.ptp(expected, axis=0).max() > 0.02, "the outputs of this test must differ"
    onnx_export.finish(tmp_path / "model.onnx", notes_of(SIZE), family)
    written = onnx_model.OnnxModel(tmp_path / "model.onnx", threads=1)
    onnx_parity.check_batches(written, images, family)
    for number in (1, 2, 5):
        np.testing.assert_allclose(written.predict(images[:number]), expected[:number], atol=1e-4)


def test_what_onnx_has_no_words_for_is_one_line_with_model_and_operator(tmp_path: Path) -> None:
    class Fourier(torch.nn.Module):  # as HorNet's global filters
        def forward(self, img: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.fft.rfft2(img).abs()

    classifier = onnx_export.Classifier(Fourier(), AS_IT_IS)
    with pytest.raises(UserError) as caught:
        onnx_export.export(classifier, IMAGES, tmp_path / "model.onnx", "config.py: HorNet")
    expected = (
        r"config\.py: HorNet cannot be exported to ONNX: there is no aten::fft_\w+ in opset 17; `export: false`.*"
    )
    assert re.fullmatch(expected, str(caught.value))


def test_what_goes_wrong_without_an_operator_is_one_line_too(tmp_path: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, img: torch.Tensor, **_: Any) -> torch.Tensor:
            raise TypeError("a message\nof two lines")

    with pytest.raises(UserError, match="Broken cannot be exported to ONNX: a message of two lines; `export: false`"):
        onnx_export.export(onnx_export.Classifier(Broken(), AS_IT_IS), IMAGES, tmp_path / "model.onnx", "Broken")


@pytest.mark.parametrize(
    ("second", "what"), [(-1, r"with 1 image at a time there are 2 answers"), (3 * 8 * 8, r"its Reshape fails")]
)
def test_a_number_of_images_that_is_in_the_graph_for_ever_is_one_line(second: int, what: str, tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, img: torch.Tensor, **_: Any) -> torch.Tensor:
            return img.reshape(int(img.shape[0]), second)[:, :5].softmax(dim=1)

    onnx_export.export(onnx_export.Classifier(Fixed(), AS_IT_IS), IMAGES, tmp_path / "model.onnx", "Fixed")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.helper.set_model_props(model, notes_of(8))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=f"Fixed cannot be exported to ONNX: .*{what}"):
        onnx_parity.check_batches(onnx_model.OnnxModel(tmp_path / "model.onnx", threads=1), IMAGES, "Fixed")


def test_engines_are_timed_by_turns_and_for_a_bounded_time() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.02)

    def fast() -> None:
        order.append("fast")
        time.sleep(0.001)

    medians = onnx_parity.interleaved({"slow": slow, "fast": fast}, seconds=60, turn=2, enough=4)
    assert order == ["slow"] * 3 + ["fast"] * 3 + ["slow"] * 3 + ["fast"] * 3
    assert 0.02 <= medians["slow"] < 0.2 and 0.001 <= medians["fast"] < 0.02
    order.clear()
    onnx_parity.interleaved({"slow": slow, "fast": fast}, seconds=0, turn=5, enough=40)
    assert order == ["slow", "slow", "fast", "fast"], "each once at least, the first call not counted"


def test_a_slow_model_is_timed_with_single_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def engine(images: np.ndarray) -> None:
        sizes.append(len(images))
        time.sleep(0.005 * len(images))

    monkeypatch.setattr(onnx_parity, "SECONDS", 0.05)
    monkeypatch.setattr(onnx_parity, "LONGEST_BATCH", 0.01)
    speed = onnx_parity.measure({"engine": engine}, np.zeros((3, 1)))
    assert speed["engine"]["images_per_second"] is None and set(sizes) == {1}
    monkeypatch.setattr(onnx_parity, "LONGEST_BATCH", 10.0)
    speed = onnx_parity.measure({"engine": engine}, np.zeros((3, 1)))
    assert set(sizes) == {1, onnx_parity.BATCH_SIZE}
    assert 5 <= speed["engine"]["milliseconds_single"] < 50, "sleep takes longer on a busy machine, never less"
    assert speed["engine"]["images_per_second"] == pytest.approx(200, rel=0.4)


def test_the_page_says_what_was_compared_and_how_to_use_it(exported: Exported) -> None:
    page = (exported.folder / "export.html").read_text(encoding="utf-8")
    record = json.loads((exported.folder / "export.json").read_text(encoding="utf-8"))
    assert "21 of 21 test images" in page and "images: float of shape (batch, 3, 32, 32)" in page
    assert f"{record['speed']['engines']['onnxruntime']['milliseconds_single']:.1f}" in page
    assert "shorter_side 40, interpolation bilinear, library pillow" in page
    assert "onnxruntime.InferenceSession(sys.argv[1])" in page and not re.search(r"https?:", page)
    assert "python -m scripts.predict --onnx model.onnx" in page


@pytest.mark.long
@pytest.mark.parametrize("more", [[], ["--preprocessing"]])
def test_the_example_says_what_the_checkpoint_said(exported: Exported, tmp_path: Path, more: list[str]) -> None:
    """Exactly, since the pipeline resizes by pillow, as the fast recipe's does."""
    model = predicted(exported.run, tmp_path / "model") if more else exported
    if more:
        model.export(*more)
    predictions = model.predictions
    for row in (0, 10):
        image = model.run.images / predictions.files[row]
        first, second, third = run_example(model.folder / "onnx_example.py", model.folder / "model.onnx", image)
        assert first[1] == CLASSES[predictions.predictions[row]]
        expected = np.sort(predictions.probabilities[row])[::-1]
        assert [first[0], second[0], third[0]] == pytest.approx(expected[:3], abs=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["fast", "opencv", "efficientnet", "swin-384", "cub", "grey", "cifar", "pad", "squash", "grey bars"]
)
def test_the_example_prepares_images_of_every_pipeline(name: str, tmp_path: Path) -> None:
    """A model that answers with three pixels: of noise, where the filter decides what they are."""

    class Pixels(torch.nn.Module):
        def forward(self, img: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.stack([img[:, 0, 5, 7], img[:, -1, 20, 9], img[:, 0, 30, 31]], dim=1).softmax(dim=1)

    preprocessing = onnx_export.describe_pipeline([*PIPELINES[name], NORMALIZATIONS.get(name, NORMALIZE), *PACKING])
    noise = np.random.default_rng(0).integers(0, 256, (200, 301, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    image = preprocessing.prepare((tmp_path / "noise.png").read_bytes())
    classifier = onnx_export.Classifier(Pixels(), preprocessing)
    onnx_export.export(classifier, np.stack([image] * 2), tmp_path / "model.onnx", "Pixels")
    size = json.dumps({"height": image.shape[1], "width": image.shape[2]})
    metadata = {"class_names": json.dumps(list("abc")), "image_size": size, **preprocessing.metadata()}
    onnx_export.finish(tmp_path / "model.onnx", metadata, "Pixels")
    expected = onnx_model.OnnxModel(tmp_path / "model.onnx", threads=1).predict(image[None])[0]
    program = tmp_path / "onnx_example.py"
    program.write_text(example(preprocessing))
    got = {label: value for value, label in run_example(program, tmp_path / "model.onnx", tmp_path / "noise.png")}
    # OpenCV's grey and Pillow's differ by a level here and there.
    exact = "grey" not in name and not any(step.get("library") == "opencv" for step in preprocessing.steps)
    assert [got[label] for label in "abc"] == pytest.approx(expected, abs=1e-4 if exact else 0.02)


def run_example(program: Path, model: Path, image: Path) -> list[tuple[float, str]]:
    """Run the example as a user would, and read what it prints."""
    assert 15 <= len([line for line in program.read_text().splitlines() if line]) <= 26
    done = subprocess.run(
        [sys.executable, str(program), str(model), str(image)],
        cwd=image.parent, capture_output=True, text=True, encoding="utf-8", check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return [(float(value), name) for value, _, name in lines]
