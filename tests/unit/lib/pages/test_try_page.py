"""try.html in a real browser: what it computes is what Python computes, from the bytes of a file on."""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from browser import Page, chromium
from chinese import english_on
from decoding_environments import LOCKS, ROOT
from picture_formats import encode, lossless, others, transparent
from PIL import Image
from tiny_run import CLASSES, make_run
from try_page_reader import READY, VIEW, WAYS, answer_of, finish, give, in_page, texts, write

from scripts.lib.base.language import speaking
from scripts.lib.base.problems import UserError
from scripts.lib.data.decoding import decode_image
from scripts.lib.data.reading import Reading
from scripts.lib.data.sample.looks import CLASSES as FRUIT
from scripts.lib.data.sample.render import encode_jpeg, render_image
from scripts.lib.model.onnx_similarities import with_similarities
from scripts.lib.pages import templates, try_page, try_words
from scripts.lib.runs.onnx_model import STEPS, OnnxModel
from scripts.lib.runs.run_folder import RunFolder

BACKGROUND = (10, 200, 30)
#: Formats that Chromium does not decode.
UNREAD = ("tiff", "jp2", "j2k", "ppm", "pgm", "pbm")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return finish(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def opened(run: RunFolder) -> Iterator[Page]:
    address = write(run).as_uri()
    with chromium(1280, 900) as page:
        page.open(address)
        page.wait_for(READY, 60)
        assert page.evaluate(READY) == "yes"
        yield page
        assert page.complaints == [] and page.requests_that_leave() == []


def pixels_of(page: Page, content: bytes, grey: bool, steps: list[dict[str, Any]] | None = None) -> np.ndarray | str:
    """Return a file's pixels in the browser, red first, after *steps*; of a file that is not read, why."""
    reading = {"channel_order": "L" if grey else "RGB", "bit_depth": 16, "background": BACKGROUND}
    prepared = f"pixels.prepare(await decoding.read(file, {json.dumps(reading)}), {json.dumps(steps or [])})"
    result = in_page(page, content, f"(p => [p.height, p.width, packed(p.data)])({prepared})")
    if isinstance(result, str):
        return result
    values = np.frombuffer(base64.b64decode(result[2]), np.uint8)
    return values.reshape(result[:2] if grey else [*result[:2], 3])


@pytest.mark.long
def test_of_200_pictures_tensors_probabilities_and_distances_are_pythons(opened: Page, run: RunFolder) -> None:
    model = OnnxModel(run.onnx, threads=1)
    # Each of another size and shape, half of them JPEG as cameras write it, half PNG.
    sizes = np.random.default_rng(0).integers(40, 400, (200, 2)).tolist()
    tops = []
    for number, (width, height) in enumerate(sizes):
        image = render_image(list(FRUIT)[number % len(FRUIT)], number, size=max(width, height))[:height, :width]
        content = encode_jpeg(image) if number % 2 else encode(Image.fromarray(image), "PNG")
        prepared = model.prepare(content)
        expected, distances = model.answer(prepared[None])
        values, probabilities, distance = answer_of(opened, content)
        assert np.abs(values - prepared.ravel()).max() < 1e-3, (number, width, height)
        assert np.abs(probabilities - expected[0]).max() < 1e-4
        assert distances is not None and abs(distance - distances[0]) < 1e-4
        tops.append(int(probabilities.argmax()))
    assert len(set(tops)) > 1, "the network of this test must tell pictures apart"


@pytest.mark.long
@pytest.mark.parametrize("grey", [False, True])
def test_files_of_each_format_have_the_pixels_that_python_reads(opened: Page, grey: bool) -> None:
    files = {**lossless(), **others(), **{f"clear {name}": file[0] for name, file in transparent().items()}}
    worst: dict[str, int] = {}
    for name, content in files.items():
        pixels = pixels_of(opened, content, grey)
        if name.removeprefix("clear ").startswith(UNREAD):
            assert pixels == "format", name
            continue
        assert not isinstance(pixels, str), (name, pixels)
        expected = decode_image(content, grey, reading=Reading(16, BACKGROUND))
        expected = expected if grey else expected[..., ::-1]
        assert pixels.shape == expected.shape, name
        if difference := int(np.abs(pixels.astype(int) - expected).max()):
            worst[name] = difference
    # PNG is exact; ink and what shows through are rounded elsewhere; of a grey JPEG Python takes the stored brightness.
    inexact = ("jpeg cmyk", "avif alpha", "webp alpha", "clear webp", *(["jpeg"] if grey else []))
    assert all(name.startswith(inexact) for name in worst) and max(worst.values()) <= 5, worst


LIBRARIES = {
    "opencv": ("nearest", "bilinear", "area"),
    "pillow": ("nearest", "box", "bilinear", "bicubic", "lanczos"),
}
RESIZES: list[dict[str, Any]] = [
    {"step": "resize", "library": library, "interpolation": name, **size}
    for library, names in LIBRARIES.items()
    for name in names
    for size in ({"shorter_side": 64}, {"height": 96, "width": 80})
]
CROPS: list[list[dict[str, Any]]] = [
    [{"step": "crop", "share": 0.875}],
    [{"step": "crop", "height": 55, "width": 64}],
    [{"step": "pad", "pixels": 64, "interpolation": "bilinear", "background": list(BACKGROUND)}],
]


@pytest.mark.long
@pytest.mark.parametrize("grey", [False, True])
def test_every_way_of_resizing_gives_the_same_bytes(opened: Page, grey: bool) -> None:
    generator = np.random.default_rng(1)
    for width, height in ((128, 192), (61, 183), (301, 45), (160, 192)):  # exact multiples, tall, wide
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        content = encode(image, "PNG")
        for steps in [*([step] for step in RESIZES), *CROPS]:
            expected = decode_image(content, grey)
            for step in steps:
                expected = STEPS[step["step"]](expected, step)
            pixels = pixels_of(opened, content, grey, steps)
            assert not isinstance(pixels, str), (pixels, steps)
            np.testing.assert_array_equal(
                pixels, expected if grey else expected[..., ::-1], str((width, height, steps))
            )


@pytest.mark.long
def test_opencvs_bicubic_differs_in_a_few_pixels_by_one_level(opened: Page) -> None:
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    step = {"step": "resize", "library": "opencv", "interpolation": "bicubic", "height": 224, "width": 224}
    pixels = pixels_of(opened, encode(image, "PNG"), False, [step])
    assert not isinstance(pixels, str)
    expected = STEPS["resize"](decode_image(encode(image, "PNG")), step)[..., ::-1]
    difference = np.abs(pixels.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-4


@pytest.mark.long
def test_what_is_no_whole_picture_is_refused(opened: Page) -> None:
    jpeg, png = others()["jpeg"], lossless()["png"]
    files = {"damaged": [jpeg[: len(jpeg) // 2], png[:-200], png[:60] + b"x" + png[61:]], "foreign": [b"hello", b""]}
    for reason, contents in files.items():
        for content in contents:
            assert pixels_of(opened, content, False) == reason
    assert pixels_of(opened, encode(Image.new("L", (1, 1500)), "PNG"), False) == "too_large"


@pytest.mark.long
def test_several_files_are_answered_saved_and_read_in_chinese(run: RunFolder, tmp_path: Path) -> None:
    model = OnnxModel(run.onnx, threads=1)
    broken, name = tmp_path / "broken.jpg", tmp_path / '=a,"b" <i>.png'
    broken.write_bytes(b"\xff\xd8\xff no picture")
    name.write_bytes(encode(Image.effect_noise((90, 70), 90).convert("RGB"), "PNG"))
    known = run.dataset / "images" / CLASSES[0] / "a 0.png"
    with chromium(390, 800) as page:
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.open(write(run).as_uri())
        page.wait_for(READY, 60)
        give(page, [known, broken, name])
        page.wait_for(
            f"{VIEW}.querySelectorAll('article .nearest').length == 2 && !!{VIEW}.querySelector('.refused')", 60
        )
        status = "3 files, of which 1 could not be read"
        page.wait_for(f"{VIEW}.querySelector('[data-status]').innerText == {status!r}")
        noise, refused, first = texts(page, "article")
        assert noise.startswith(name.name) and "unlike the training images" in noise
        assert "damaged or cut off" in refused
        assert f"{CLASSES[0]} 0.000" in first.replace("\xa0", " "), "the nearest training picture is the picture itself"
        probabilities, _ = model.answer(model.prepare(known.read_bytes())[None])
        best = int(probabilities[0].argmax())
        assert f"{100 * probabilities[0, best]:.1f}\xa0%" in first and CLASSES[best] in first
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out on a phone"
        page.evaluate(f"{VIEW}.querySelector('article:last-child figure button').click()")
        page.wait_for(f"{VIEW}.querySelector('article:last-child figcaption').innerText.startsWith('yellow')", 60)
        page.evaluate(f"{VIEW}.querySelector('[data-save]').click()")
        page.wait_for("new Promise(done => setTimeout(() => done(true), 500))")
        lines = (tmp_path / "predictions.csv").read_text(encoding="utf-8-sig").splitlines()
        assert lines[0].startswith("file,prediction,confidence,top1,probability1,") and len(lines) == 4
        assert lines[1].startswith("a 0.png,")
        assert abs(float(lines[1].split(",")[2]) - probabilities[0, best]) < 1e-4
        assert lines[3].startswith('"=a,""b"" <i>.png",') and "unlike the training images" in lines[3]
        page.evaluate(f"{VIEW}.querySelector('[data-speak]').click()")
        assert page.evaluate("document.documentElement.lang") == "zh"
        assert any("图片已损坏" in text for text in texts(page, "article"))
        assert not english_on(str(page.evaluate(f"{VIEW}.outerHTML")))
        page.evaluate(f"{VIEW}.querySelector('[data-clear]').click()")
        assert texts(page, "article") == []
        assert page.complaints == [] and page.requests_that_leave() == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.long
def test_pictures_are_taken_in_each_way(opened: Page, run: RunFolder, way: str) -> None:
    files = sorted((run.dataset / "images").rglob("*.png"))[:2]
    opened.evaluate(f"{VIEW}.querySelector('[data-clear]').click()")
    give(opened, files, way)
    opened.wait_for(f"{VIEW}.querySelectorAll('article:not(.refused)').length == 2", 60)
    assert opened.evaluate("document.body.classList.contains('dragged')") is False
    assert [text.split("\n")[0] for text in texts(opened, "article")] == [file.name for file in files[::-1]]


@pytest.mark.long
def test_a_browser_that_computes_something_else_is_told(run: RunFolder, tmp_path: Path) -> None:
    page_text = write(run).read_text(encoding="utf-8")
    match = re.search(r'"probabilities":\[([\d.e-]+)', page_text)
    assert match
    broken = tmp_path / "try.html"
    broken.write_text(page_text.replace(match[0], f'"probabilities":[{float(match[1]) + 0.01}'), encoding="utf-8")
    with chromium() as page:
        page.open(broken.as_uri())
        page.wait_for(READY, 60)
        assert page.evaluate(READY) == "wrong"
        assert "computes something else than Python" in page.evaluate(
            f"{VIEW}.querySelector('[data-warning]').innerText"
        )
        give(page, [next((run.dataset / "images").rglob("*.png"))])
        page.wait_for(f"!!{VIEW}.querySelector('article')", 60)
        assert "failed the check" in texts(page, "article")[0]


@pytest.mark.long
def test_a_model_that_no_page_can_hold_leaves_a_page_that_says_so(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(try_page, "MOST_BYTES", 1000)
    assert "more than a page can hold" in write(run).read_text(encoding="utf-8")


@pytest.mark.long
def test_a_run_without_a_model_or_with_other_training_images_is_one_line(run: RunFolder, tmp_path: Path) -> None:
    empty = RunFolder(tmp_path / "results" / "d" / "e" / "seed0")
    with pytest.raises(UserError, match=r"model\.onnx: no such file"):
        write(run, folder=empty)
    few = tmp_path / "few.txt"
    few.write_text(
        "".join((run.dataset / "test.txt").read_text(encoding="utf-8").splitlines(True)[:5]), encoding="utf-8"
    )
    with pytest.raises(UserError, match="not what the run was trained on: its model knows 21 images"):
        try_page.render(run, run.dataset / "images", few, "en")


@pytest.mark.long
def test_the_copy_of_the_model_has_one_more_output(run: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "model.onnx"
    copy.write_bytes(with_similarities(run.onnx))
    onnx.checker.check_model(onnx.load(copy), full_check=True)
    assert [each.name for each in onnx.load(copy).graph.output] == ["probabilities", "distance", "similarities"]
    copy.write_bytes(b"no model")
    with pytest.raises(UserError, match="not an ONNX model"):
        with_similarities(copy)


def test_every_environment_has_a_pillow_that_resizes_as_the_page_does() -> None:
    # Pillow 13 makes the rows of tall pictures fewer first, which rounds otherwise; pillow() in try_pixels.js does not.
    pinned = [re.findall(r"^pillow==(\d+)\.", (ROOT / f"envs/{name}.lock").read_text(), re.M) for name in LOCKS]
    assert pinned == [["12"]] * len(LOCKS) and Image.__version__.startswith("12.")


def test_the_words_of_the_page_are_there_in_both_languages() -> None:
    code = "".join(templates.source(name) for name in try_page.SCRIPTS)
    english = try_words.words()
    with speaking("zh"):
        chinese = try_words.words()
    for name, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[name])), name
        assert re.search("[\u4e00-\u9fff，：]", chinese[name]), name
        assert f'"{name}"' in code, f"no script writes {name}"
    written = "".join(templates.source(name) for name in try_page.SCRIPTS if name.startswith("try"))
    assert set(re.findall(r'(?:word|say|refusal)\("(\w+)"', written)) <= english.keys()


def test_the_program_is_the_one_that_is_recorded() -> None:
    table = (try_page.VENDOR / "README.md").read_text(encoding="utf-8")
    program = partial(Path.read_bytes, try_page.VENDOR / "ort-wasm-simd.wasm.xz")
    library = (try_page.VENDOR / "ort.wasm-core.min.js").read_bytes()
    for name, content in (("ort.wasm-core.min.js", library), ("ort-wasm-simd.wasm.xz", lzma.decompress(program()))):
        assert re.search(rf"`{re.escape(name)}` .*`{hashlib.sha256(content).hexdigest()}`", table), name
    assert f"onnxruntime-web {try_page.VERSION}" in table and try_page.VERSION.encode() in library
