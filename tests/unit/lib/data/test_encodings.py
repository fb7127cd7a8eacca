"""Names whose encoding nothing says are read in the most plausible one, which is told."""

from __future__ import annotations

import itertools
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from class_names import CASES, written
from raw_zip import zip_of_raw_names

from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.encodings import OEM_ENCODINGS, find_encoding
from scripts.lib.data.folders import pack_folder, walk_files, write_manifest
from scripts.lib.data.unpacking import Origin, unpack_all

#: Those that are as another one in nearly all: a comma below a letter, and one small letter for its capital.
UNCERTAIN = {("Romanian", "iso8859-16"), ("Bulgarian", "mac_cyrillic")}


def read(raw: list[bytes], **options: object) -> list[str]:
    encoding = find_encoding(raw, **options)  # type: ignore[arg-type]
    return [encoding.decode(name) for name in raw]


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_names_of_a_language_come_out_right(language: str, encoding: str) -> None:
    names = written(language, encoding)
    paths = [f"set/{name}/IMG_{number:04d}.jpg" for name in names for number in range(3)]
    raw = [path.encode(encoding) for path in paths]
    encoded = find_encoding(raw, oem=encoding in OEM_ENCODINGS)
    if (language, encoding) in UNCERTAIN:
        assert encoded.rival and encoded.rival[0] == encoding
    else:
        assert [encoded.decode(name) for name in raw] == paths
    assert read([*raw, "set/ascii/1.jpg"], setting=encoding) == [*paths, "set/ascii/1.jpg"]


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_three_names_are_right_or_said_to_be_ambiguous(language: str, encoding: str) -> None:
    names = [name for name in written(language, encoding) if not name.isascii()]
    for number in range(8):
        few = [names[(number + step) % len(names)] for step in (0, 3, 5)]
        raw = [name.encode(encoding) for name in few]
        encoded = find_encoding(raw, oem=encoding in OEM_ENCODINGS)
        assert [encoded.decode(name) for name in raw] == few or encoded.rival
        if encoded.rival:
            assert encoded.rival[1] != encoded.sample and repr(encoded.rival[1]) in encoded.describe("names")


@pytest.mark.parametrize(
    ("folders", "encoding"),
    [
        (["1_ОБУЧЕНИЕ/草莓", "1_検証/草莓"], "gb18030"),
        (["トレーニング2017/草莓", "테스트2017/草莓"], "gb18030"),
        (["train/2/seg_TRENING", "train/2/seg_ТЕСТОВЫЙ"], "cp1251"),
        (["обучение/犬", "тест/犬", "обучение/第一"], "cp932"),
        (["訓練/犬", "測試/犬"], "cp950"),
        (["トレーニング_set/草莓", "トレーニング_set/犬"], "gb18030"),  # 犬 in it is Ȯ in UTF-8, and cp950 has no ト
    ],
)
def test_the_names_of_splits_tell_the_encoding_too(folders: list[str], encoding: str) -> None:
    assert read([f"{folder}/1.jpg".encode(encoding) for folder in folders]) == [f"{name}/1.jpg" for name in folders]


@pytest.mark.parametrize("encoding", ["cp949", "gb18030"])
def test_two_bytes_that_are_an_accent_or_a_rare_letter_in_utf8_are_no_utf8(encoding: str) -> None:
    names = ["犬/1.jpg", "第一/1.jpg", "강아지/1.jpg" if encoding == "cp949" else "草莓/1.jpg"]
    assert read([name.encode(encoding) for name in names]) == names


@pytest.mark.parametrize(
    "name", ["Müller", "Señor", "garçon", "Åse", "naïve", "¿qué", "Größe 20 °C", "n° 5", "½ Apfel"]
)
def test_western_names_never_become_chinese(name: str) -> None:
    for encoding, oem in itertools.product(("cp1252", "cp437", "cp850"), (False, True)):
        raw = name.encode(encoding, "ignore")
        assert not any(
            "\u3000" <= char < "\ud800" or char > "\uff00" for char in find_encoding([raw], oem=oem).decode(raw)
        )
    assert read([name.encode("cp1252")]) == [name]


def test_utf8_stays_utf8_in_every_script_and_is_not_told() -> None:
    names = ["苹果", "Müller", "яблоко", "りんご", "사과", "सेब", "ვაშლი", "😀", "é", "ʒ", "e\u0301", "ꦲ", "ⵣ"]
    for few in [names, *([name] for name in names)]:
        encoding = find_encoding([name.encode() for name in few])
        assert [encoding.decode(name.encode()) for name in few] == few
        assert encoding.describe("names") == ""


def test_the_encoding_is_decided_for_all_names() -> None:
    by_chance = "痛".encode("gbk")
    assert by_chance.decode("utf-8")  # valid, and wrong
    assert read([by_chance, "哈密瓜".encode("gbk")]) == ["痛", "哈密瓜"]
    assert find_encoding([by_chance, "哈密瓜".encode("gbk")]).decode("já") == "já"
    assert read([by_chance], setting="gbk") == ["痛"]


def test_names_in_utf8_beside_others_stay_right() -> None:
    names = [*(name.encode("gbk") for name in ("苹果", "香蕉", "草莓")), "Müller".encode(), "Größe".encode()]
    assert read(names) == ["苹果", "香蕉", "草莓", "Müller", "Größe"]
    assert "gb18030 or UTF-8" in find_encoding(names).describe("names")


def test_a_damaged_name_does_not_change_the_others() -> None:
    names = [name.encode("gbk") for name in ("苹果", "香蕉", "草莓", "哈密瓜")]
    assert read([*names, names[0][:3]])[:4] == ["苹果", "香蕉", "草莓", "哈密瓜"]


@pytest.mark.parametrize("raw", [b"\xff\xa0\xff\xa0", b"\xed\xa0\x80", b"a\xff\xa0\xff\xa0.jpg"])
def test_what_is_no_text_has_no_encoding(raw: bytes) -> None:
    encoding = find_encoding([raw])
    assert not encoding.name
    assert "in no encoding that mimflow knows" in encoding.describe(
        "names"
    ) and "dataset.encoding" in encoding.describe("")


def test_what_was_taken_is_said_with_a_name_and_what_it_may_be_as_well() -> None:
    told = find_encoding([b"M\xfcller"]).describe("names in a.zip")
    assert told == "names in a.zip are read as cp1252, such as 'Müller'; if that is wrong, set dataset.encoding"
    told = find_encoding([b"citt\xe0"]).describe("names")
    assert "ambiguous" in told and "set dataset.encoding to be sure" in told


def test_an_encoding_that_does_not_fit_is_one_line() -> None:
    with pytest.raises(UserError, match=r"dataset.encoding: .* is not in cp932") as caught:
        find_encoding(["苹果".encode("gbk"), b"M\xfcller"], setting="cp932")
    assert "\n" not in str(caught.value)


# --- through archives and folders -------------------------------------------------------------------------------------


def classes(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


@pytest.mark.parametrize(
    ("language", "encoding"),
    [("German", "cp437"), ("Japanese", "cp932"), ("Russian", "cp866"), ("Korean", "cp949"), ("Chinese", "gbk")],
)
def test_a_zip_of_windows_has_its_names(language: str, encoding: str, tmp_path: Path, caplog: object) -> None:
    names = sorted(written(language, encoding))
    files = {f"fruit/{name}/{name}1.jpg".encode(encoding): b"x" for name in names}
    archive = zip_of_raw_names(tmp_path / "a.zip", files)
    unpack_all([Origin(archive)], tmp_path / "images", Limits())
    assert classes(tmp_path / "images") == names
    assert f"names in a.zip are read as {'gb18030' if encoding == 'gbk' else encoding}, such as" in caplog.text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("language", "encoding"), [("German", "cp1252"), ("Russian", "koi8_r"), ("Japanese", "euc_jp")]
)
def test_a_tar_and_a_folder_have_their_names(language: str, encoding: str, tmp_path: Path) -> None:
    names = sorted(written(language, encoding))
    for name in names:
        folder = tmp_path / "photos" / os.fsdecode(name.encode(encoding))
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"x")
    manifest = tmp_path / "archive.jsonl"
    write_manifest(tmp_path / "photos", walk_files(tmp_path / "photos", Counter()), manifest)
    pack_folder(tmp_path / "photos", tmp_path / "packed.tar", tmp_path / "packed.tar")
    with tarfile.open(tmp_path / "pax.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tmp_path / "photos", "photos")
    for number, origin in enumerate(
        [Origin(manifest, folder=tmp_path / "photos"), Origin(tmp_path / "packed.tar"), Origin(tmp_path / "pax.tar")]
    ):
        unpack_all([origin], tmp_path / f"images{number}", Limits())
        assert classes(tmp_path / f"images{number}") == names


def test_the_key_decides_what_is_ambiguous(tmp_path: Path) -> None:
    archive = zip_of_raw_names(tmp_path / "a.zip", {b"cat/1.jpg": b"", b"citt\xe0/1.jpg": b""})
    for encoding, name in ((None, "città"), ("cp1257", "cittą"), ("cp437", "cittα")):
        unpack_all([Origin(archive, encoding=encoding)], tmp_path / "images", Limits())
        assert classes(tmp_path / "images") == sorted(["cat", name])
