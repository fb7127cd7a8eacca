"""Tell from the first bytes of a file what picture it is, and of one that cannot be read, what it is instead."""

from __future__ import annotations

import posixpath
import re

from scripts.lib.data.file_kinds import JSON, is_text, kind_of

#: The formats that are read, by Pillow's names for them, and their suffixes. MPO is a JPEG with pictures behind it.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"), "MPO": (".jpg", ".jpeg", ".jpe", ".mpo"),
    "PNG": (".png", ".apng"), "BMP": (".bmp", ".dib"), "WEBP": (".webp",), "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"), "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
}  # fmt: skip
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
#: Bytes of a file by which its format is told; that of SVG may stand behind a comment.
HEAD = 1024
_RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
_TIFF = rb"II[*+]\0|MM\0[*+]"
#: How the formats that are read begin, as regular expressions.
_READ = {
    "JPEG": rb"\xff\xd8\xff", "PNG": rb"\x89PNG\r\n\x1a\n", "GIF": rb"GIF8[79]a", "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM....\0\0\0\0", "PPM": rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s", "TIFF": _TIFF,
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
}  # fmt: skip
#: The same of pictures, and of files that hold pictures, which no environment reads.
_UNREAD = {
    "camera raw": rb"II\*\0....CR|II(?:U\0|R[OS])|FUJIFILMCCD-RAW|FOVb|\0MRM",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XR": rb"II\xbc", "Photoshop": rb"8BPS",
    "GIMP": rb"gimp xcf",
    "SVG": rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?)?(?:<!--.*?-->|<!DOCTYPE[^>]*>|\s)*<svg[\s>]", "PDF": rb"%PDF-",
    "PostScript": rb"%!PS|\xc5\xd0\xd3\xc6", "DICOM": b".{128}DICM", "FITS": rb"SIMPLE  =", "OpenEXR": rb"v/1\x01",
    "Radiance": rb"#\?R(?:ADIANCE|GBE)", "DjVu": rb"AT&TFORM", "DDS": rb"DDS ",
    "icon": rb"\0\0[\x01\x02]\0[^\0]\0|icns",
    "QOI": rb"qoif", "PCX": rb"\n[\0\x02-\x05]\x01[\x01\x02\x04\x08]", "PAM": rb"P7\n", "PFM": rb"P[Ff]\s+\d+\s",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]", "MNG": rb"\x8a[MJ]NG\r\n\x1a\n|\x8bJNG\r\n", "BPG": rb"BPG\xfb",
    "FLIF": rb"FLIF",
    "Sun raster": rb"\x59\xa6\x6a\x95", "Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
    "XPM": rb"/\* XPM \*/", "NRRD": rb"NRRD0", "NIfTI": rb".{344}n[+i]1\0",
    "video": rb"RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xba\xb3]|FLV\x01|0&\xb2u\x8ef\xcf\x11|OggS",
    "NumPy array": rb"\x93NUMPY", "HDF5": rb"\x89HDF\r\n\x1a\n", "MATLAB": rb"MATLAB ",
    "Parquet": rb"PAR1", "Arrow": rb"ARROW1|\xff{4}.\0\0\0\x10\0\0\0", "SQLite": rb"SQLite format 3\0",
    "LMDB": rb".{16}\xde\xc0\xef\xbe", "Python pickle": rb"\x80[\x02-\x05][\x8a\x95}\](c]",
    "IDX (MNIST)": rb"\0\0\x08[\x01\x03]", "gzip data": rb"\x1f\x8b\x08",
}  # fmt: skip
#: Suffixes of formats whose first bytes are another's, or say nothing.
_UNREAD_BY_NAME = {
    ".tga": "Targa", ".mpg": "video", ".mpeg": "video", ".ts": "video", ".mts": "video", ".pict": "PICT",
    ".tfrecord": "TFRecord", ".tfrecords": "TFRecord",
}  # fmt: skip
#: How the formats that nobody reads become ones that are read.
_DEVELOP = "export as JPEG, PNG or 16-bit TIFF, by the camera's program, darktable or RawTherapee"
_RENDER = "render as PNG (magick -density 150 a.pdf a.png)"
_WINDOW = "convert to PNG of 8 or 16 bits, with the range of values that matters"
_WRITE_OUT = "write its images as files, in a folder a class"
_REMEDIES = {
    "camera raw": _DEVELOP, "SVG": _RENDER, "PDF": _RENDER, "PostScript": _RENDER, "DICOM": _WINDOW, "FITS": _WINDOW,
    "NRRD": _WINDOW, "NIfTI": _WINDOW, "PFM": _WINDOW,
    "OpenEXR": _WINDOW, "Radiance": _WINDOW, "NumPy array": _WINDOW, "HDF5": _WINDOW, "MATLAB": _WINDOW,
    "video": "take pictures out of it (ffmpeg -i film.mp4 -vf fps=1 film_%04d.jpg)",
    **dict.fromkeys(("Parquet", "Arrow", "SQLite", "LMDB", "Python pickle", "IDX (MNIST)"), _WRITE_OUT),
    "gzip data": "unpack it", "TFRecord": _WRITE_OUT,
    "HEIC": "convert to JPEG (magick mogrify -format jpg *.heic)",
}  # fmt: skip
_CONVERT = "convert to JPEG or PNG (magick a.psd a.png)"
#: What lies where a picture should be: how it begins, and what it is.
_OTHER = {
    rb"version https://git-lfs": "a Git LFS pointer in place of the picture: get it with `git lfs pull`",
    rb"/annex/objects|\.git/annex/": "a git-annex pointer in place of the picture: get it with `git annex get`",
    rb"\s*(?:<!doctype html|<html|<head)": "a web page, as servers send it in place of a file: fetch the picture again",
    rb"\s*<\?xml": "an XML text, not a picture", JSON.pattern: "a JSON text, not a picture",
    rb"PK\x03\x04": "a zip archive, not a picture: unpack it",
    rb"\x1f\x8b|BZh\d|\xfd7zXZ\0|\x28\xb5\x2f\xfd": "compressed data, not a picture: unpack it",
    rb"Rar!|7z\xbc\xaf": "an archive, not a picture: unpack it",
    rb"data:image/|/9j/[\w+/]{9}|iVBORw0KGgo": "a picture written as text: decode it (base64 -d)",
    rb"[^\0-\x1f]+\.(?:jpe?g|png|webp|tiff?|bmp|gif)\s*$":
        "a symbolic link that became a text: get the files it leads to (git config core.symlinks true; or copy them)",
    rb"\0\x05\x16\x07": "what macOS keeps beside a file, not a picture",
}  # fmt: skip
_TARGA_FOOTER = b"TRUEVISION-XFILE.\0"


def sniff(head: bytes, name: str = "") -> str:
    """Return the format of a picture: a key of SUFFIXES where it is read, else a name for people; "": no picture.

    Parameters
    ----------
    head : the first HEAD bytes of the file.
    name : of the file: the raw files of many cameras are TIFFs by their first bytes.
    """
    suffix = posixpath.splitext(name)[1].lower()
    if head[4:8] == b"ftyp":
        return _sniff_boxes(head)
    if suffix in _RAW_SUFFIXES and re.match(_TIFF, head):
        return "camera raw"
    for formats in (_UNREAD, _READ):
        for format_name, signature in formats.items():
            if re.match(signature, head, flags=re.DOTALL):
                return format_name
    return _UNREAD_BY_NAME.get(suffix, "") if b"\0" in head else ""


def _sniff_boxes(head: bytes) -> str:
    """Return the format of a file of ISO/IEC 14496-12, by the brands that it says to be of."""
    length = min(max(int.from_bytes(head[:4], "big"), 16), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, length - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if b"crx " in brands:
        return "camera raw"
    is_heif = any(brand[:3] in (b"hei", b"hev", b"mif", b"msf") for brand in brands)
    return "HEIC" if is_heif else "video"


def is_read(format_name: str) -> bool:
    """Tell whether pictures of a format can be read, as :func:`sniff` calls it."""
    return format_name in SUFFIXES


def has_image_suffix(name: str | bytes) -> bool:
    """Tell whether a file is an image by its name; of others, the first bytes tell."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return posixpath.splitext(text)[1].lower() in IMAGE_SUFFIXES


def in_words(content: bytes) -> str:
    """Return what a file is that lies where a table, weights or a program should be; "" where nobody knows it.

    >>> in_words(b"GIF89a"), in_words(b"version https://git-lfs.github.com"), in_words(b"a,b"), in_words(bytes([1, 2]))
    ('GIF', 'a Git LFS pointer, not the file itself', 'a text', '')
    """
    head = content[:HEAD]
    return (kind_of(head) or ("",))[0] or sniff(head) or describe_foreign(content).partition(",")[0]


def describe_unread(format_name: str) -> str:
    """Return what pictures of a format are that nobody reads, and the way out."""
    return f"{format_name}, which mimflow does not read: {_REMEDIES.get(format_name, _CONVERT)}"


def describe_foreign(content: bytes, name: str = "") -> str:
    """Return what a file is that lies where a picture should be, and the way out; "" where nobody knows it."""
    if not content:
        return "the file is empty"
    if not content.strip(b"\0"):
        return "the file holds nothing but zeros"
    head = content[:HEAD]
    if (format_name := sniff(head, name)) and not is_read(format_name):
        return describe_unread(format_name)
    if content.endswith(_TARGA_FOOTER):
        return describe_unread("Targa")
    for signature, what in _OTHER.items():
        if re.match(signature, head.removeprefix(b"\xef\xbb\xbf"), flags=re.IGNORECASE):
            return what
    if not format_name and (kind := kind_of(head)):  # it knows JPEG and PNG too, which are no archives
        return f"{kind[0]}, not a picture"
    return "a text, not a picture" if is_text(head) and format_name != "PPM" else ""  # whose header is a text
