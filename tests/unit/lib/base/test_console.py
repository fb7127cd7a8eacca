"""What the operating system refuses is one readable line with a way out."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path

import pytest

from scripts.lib.base.console import describe_os_error, one_line, run_cli


@pytest.mark.parametrize("words", [["--nonsense"], ["--number", "x"], ["--number"], ["a\x1b[31mb"]])
def test_a_command_line_that_is_not_understood_is_refused_in_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def build_parser() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(prog="python -m scripts.x")
        parser.add_argument("--number", type=int)
        return parser

    with pytest.raises(SystemExit) as end:
        run_cli(build_parser, print, words)
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1 and "\x1b" not in printed.err
    assert printed.err.startswith("error: ") and words[-1].partition("\x1b")[0] in printed.err
    assert "`python -m scripts.x --help`" in printed.err


@pytest.mark.parametrize(
    ("name", "shown"),
    [("/data/a b", "(/data/a b)"), (b"/data/a", "(/data/a)"), (Path("/data/草莓"), "(/data/草莓)"),
     (7, "(open file 7)"), (b"/data/\xff", "(/data/\\udcff)"), (None, ""), (0, "(open file 0)"), (b"", ""),
     ("", ""), ("a\nb", "(a b)"), ("a\x1b[31mb", "(a?[31mb)"), ("\ud800", "(\\ud800)"),
     ("/x" * 2000, f"(...{'/x' * 250})")],
)  # fmt: skip
def test_a_name_is_shown_as_text_whatever_it_is(name: object, shown: str) -> None:
    text = describe_os_error(OSError(errno.EROFS, "Read-only file system", name))
    assert text == " ".join(filter(None, ("read-only file system", shown))) + ": choose another folder"
    assert one_line(text) == text and "b'" not in text


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EIO,
     errno.ESTALE, errno.EMFILE, errno.ENOMEM],
)  # fmt: skip
def test_what_can_be_mended_comes_with_what_to_do(number: int) -> None:
    what, _, remedy = describe_os_error(OSError(number, os.strerror(number), "/x")).partition(" (/x): ")
    assert what and remedy


def test_who_can_give_a_permission_is_named(tmp_path: Path) -> None:
    mine = describe_os_error(OSError(errno.EACCES, "", str(tmp_path / "new")))
    assert mine == f"permission denied ({tmp_path}/new): check its mode (`ls -ld`)"
    if os.getuid() != 0:
        pytest.skip("needs root, to make a file of another user's")
    os.chown(tmp_path, 4321, -1)
    theirs = describe_os_error(OSError(errno.EACCES, "", str(tmp_path / "new")))
    assert theirs == f"permission denied ({tmp_path}/new): ask 4321, who owns it"
    assert describe_os_error(OSError(errno.EACCES, "")) == "permission denied: check who owns it"


def test_other_errors_keep_their_words() -> None:
    assert describe_os_error(OSError(errno.ETXTBSY, "Text file busy", "/x")) == "Text file busy (/x)"
    assert describe_os_error(OSError("custom")) == "custom"
    for names, shown in [
        (("a", b"b"), "(a and b)"), ((b"a\xff", "b"), "(a\\udcff and b)"), ((None, "b"), "(b)"),
        ((3, b"b"), "(open file 3 and b)"), (("a", None), "(a)"),
    ]:  # fmt: skip
        error = OSError(errno.EXDEV, "Invalid cross-device link", names[0])
        error.filename2 = names[1]
        assert describe_os_error(error) == f"Invalid cross-device link {shown}"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(), "OSError"), (TimeoutError(), "TimeoutError"), (BlockingIOError(), "BlockingIOError"),
        (OSError(None, None), "OSError"), (OSError(5), "5"), (OSError("two\nlines"), "two lines"),
    ],
)  # fmt: skip
def test_an_error_without_words_is_named(error: OSError, words: str) -> None:
    assert describe_os_error(error) == words


def test_a_full_disk_that_names_an_open_file_by_its_number_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_args: argparse.Namespace) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", 3)

    with pytest.raises(SystemExit) as caught:
        run_cli(argparse.ArgumentParser, fail, [])
    assert caught.value.code == 1 and "no space left on the d" in capsys.readouterr().err
