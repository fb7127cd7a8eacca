"""What a file is that somebody offers as an archive or as a table and that is neither: said by its first bytes."""

from __future__ import annotations

import re
from shlex import quote

UNPACK = "unpack it and give the folder"
#: How files begin, what they are, and what to do where an archive is wanted.
KINDS: dict[bytes, tuple[str, str]] = {
    b"Rar!\x1a\x07": ("a RAR archive", f"{UNPACK} (unrar x FILE, 7z x FILE; of several parts, the first)"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", f"{UNPACK} (7z x FILE; of several parts, the first)"),
    b"PK\x07\x08": ("the first part of a split zip", "join the parts: zip -s 0 NAME.zip --out whole.zip"),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    b"/annex/objects/": ("a git-annex pointer, not the file itself", "fetch it with git annex get"),
    b"MSCF": ("a cabinet archive", UNPACK),
    b"!<arch>": ("a Debian package or an ar archive", UNPACK),
    b"\x1f\x9d": ("a file of compress (.Z)", "repack it as .tar.gz, or give the unpacked folder"),
    b"LZIP": ("a file of lzip", "repack it as .tar.xz, or give the unpacked folder"),
    b"\x04\x22\x4d\x18": ("a file of lz4", "repack it as .tar.zst, or give the unpacked folder"),
    b"hsqs": ("a SquashFS image", UNPACK),
    b"070701": ("a cpio archive", UNPACK),
    b"xar!": ("a xar archive", UNPACK),
    b"SIT!": ("a StuffIt archive", UNPACK),
    b"ALZ\x01": ("an ALZ archive", UNPACK),
    b"EGGA": ("an EGG archive", UNPACK),
    b"MSWIM\0": ("a WIM image of Windows", UNPACK),
    b"\x5d\0\0": ("a file of lzma", "repack it as .tar.xz, or give the unpacked folder"),
    b"MZ": ("a program for Windows, perhaps an archive that unpacks itself", UNPACK),
    b"\x7fELF": ("a program", "give an archive of the images"),
    b"%PDF": ("a PDF", "give an archive of the images"),
    b"\x89HDF": ("an HDF5 file", "write its images as files, in a folder a class"),
    b"\x93NUMPY": ("a NumPy array", "write its images as files, in a folder a class"),
    b"MATLAB 5.0 MAT-file": ("a MATLAB file", "write its images as files, in a folder a class"),
    b"MATLAB 7.3 MAT-file": ("a MATLAB file", "write its images as files, in a folder a class"),
    b"PAR1": ("a Parquet table", "write its images as files, in a folder a class"),
    b"ARROW1": ("an Arrow table", "write its images as files, in a folder a class"),
    b"SQLite format 3": ("an SQLite database", "write its images as files, in a folder a class"),
    b"\xd0\xcf\x11\xe0": ("an old document of Office (.xls, .doc)", "give an archive of the images"),
    b"\x00\x00\x08\x01": ("an IDX file, as of MNIST", "write its images as files, in a folder a class"),
    b"\x00\x00\x08\x03": ("an IDX file, as of MNIST", "write its images as files, in a folder a class"),
    b"\xff\xd8\xff": ("a JPEG image", "give the folder that it lies in"),
    b"\x89PNG": ("a PNG image", "give the folder that it lies in"),
    b"d8:announce": ("a torrent, not what it leads to", "fetch that, and give it"),
    b"<html": ("a web page, not the file it leads to", "give the address of the file itself; it may need a log-in"),
    b"<": ("an XML file, as servers may answer in place of a file", "give the address of the file itself"),
}  # fmt: skip
#: Names of pieces of an archive: of packers, and of `split`, which counts aa, ab, ... or 00, 01, ...
IS_PIECE = re.compile(
    r"\.(zip|7z|rar|tgz|tar(?:\.\w+)?)(?:\.0[0-9]{1,3}|[._-]?a[a-z]|[._-]?part[._-]?(?:[0-9]{1,3}|a[a-z]))$"
    r"|\.z[0-9]{2}$|\.part[0-9]+\.rar$|\.r[0-9]{2}$",
    re.I,
)
#: Suffixes of archives and of their pieces.
ARCHIVES = (
    ".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar",
)  # fmt: skip
#: What tells a web page from other XML, in its first bytes.
HTML = re.compile(rb"<(!doctype\s+html|html|head|title|body|script|meta)\b", re.I)
#: What tells JSON from other texts in brackets.
JSON = re.compile(rb'\s*(?:\{\s*["}]|\[\s*(?:[\[{"\]]|-?\d))')
PICKLE = re.compile(rb"\x80[\x02-\x05][\x8a\x95}\](c]")


def kind_of(content: bytes) -> tuple[str, str] | None:
    """Return what a file is by how its *content* begins, and what to do; None: nothing that is known here."""
    begin = content[:4096]
    if begin.startswith(b"PK\x03\x04"):
        office = (b"[Content_Types].xml", b"xl/", b"word/", b"mimetypeapplication/vnd.oasis")
        if any(begin[30:].startswith(name) for name in office):
            return "an Office document (.xlsx, .docx, .ods)", "give an archive of the images"
        return None
    if PICKLE.match(begin):
        return "a Python pickle, which mimflow does not load", "write its images as files, in a folder a class"
    stripped = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, kind in KINDS.items():
        is_word = magic.isalnum() and b"\0" not in begin  # with which a table may begin as well
        if not is_word and (stripped.startswith(magic) or begin.startswith(magic)):
            return KINDS[b"<html"] if magic == b"<" and HTML.search(begin) else kind
    return None


def is_text(begin: bytes) -> bool:
    """Tell whether a file is a text by how it begins: without the control characters that pictures and archives have.

    >>> is_text("拒绝访问".encode()), is_text("no".encode("utf-16")), is_text(b"GIF89a\\x01"), is_text(b"")
    (True, True, False, False)
    """
    is_wide = begin.startswith((b"\xff\xfe", b"\xfe\xff"))
    return is_wide or (bool(begin) and not re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", begin))


def names_archive(name: str) -> bool:
    """Tell whether a file is called as an archive is, or a piece of one."""
    return name.lower().endswith(ARCHIVES) or bool(IS_PIECE.search(name))


def piece_of(name: str) -> str:
    """Return what to do where a file is called as one piece of an archive is; "" where it is not.

    >>> piece_of("photos.zip.001"), piece_of("photos.zip")
    ('join the pieces: cat photos.zip.0* > photos.zip', '')
    """
    match = IS_PIECE.search(name)
    if not match:
        return ""
    stem = name[: match.start()]
    if name.lower().endswith(("rar", *(f".r{number:02d}" for number in range(100)))) or match[1] in ("7z", "rar"):
        return "put all pieces in one folder, unpack the first (7z x), and give the folder"
    if match[1]:
        whole, counted = f"{stem}.{match[1]}", re.search(r"(0?)[0-9]+$|(a)[a-z]$", name, re.I)
        assert counted  # each piece is counted
        first = f"{quote(name[: counted.start()])}{counted[1] or counted[2] or ''}"
        return f"join the pieces: cat {first}* > {quote(whole)}"
    return f"join the pieces: zip -s 0 {stem}.zip --out whole.zip"
