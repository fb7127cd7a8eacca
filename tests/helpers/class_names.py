"""Names of classes as people have them, in many languages, and the encodings that these are written in."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import yaml

NAMES: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
#: What each language is written in, by Windows, MS-DOS, Unix and the Mac of old.
ENCODINGS = {
    "Chinese": "gb18030 gbk", "traditional Chinese": "big5 cp950 big5hkscs", "Japanese": "cp932 euc_jp",
    "Korean": "cp949 euc_kr johab", "Thai": "cp874 tis-620", "Vietnamese": "cp1258",
    "Russian": "cp1251 cp866 koi8_r mac_cyrillic iso8859-5", "Bulgarian": "cp1251 cp866 mac_cyrillic iso8859-5",
    "Ukrainian": "cp1251 koi8_u mac_cyrillic iso8859-5 cp1125", "Serbian": "cp1251 iso8859-5 cp855",
    "Belarusian": "cp1251", "Macedonian": "cp1251", "Greek": "cp1253 iso8859-7 cp737 mac_greek",
    "Hebrew": "cp1255 iso8859-8 cp862", "Arabic": "cp1256 iso8859-6 cp720", "Persian": "cp1256",
    "German": "cp1252 iso8859-15 cp437 cp850 mac_roman cp1250", "French": "cp1252 cp850 mac_roman",
    "Spanish": "cp1252 cp437 cp850 mac_roman", "Portuguese": "cp1252 cp850 mac_roman", "Italian": "cp1252 cp850",
    "Dutch": "cp1252 cp850", "Catalan": "cp1252", "Swedish": "cp1252 cp850", "Danish": "cp1252 cp850",
    "Norwegian": "cp1252 cp865", "Finnish": "cp1252", "Icelandic": "cp1252 cp861",
    "Polish": "cp1250 iso8859-2 cp852 mac_latin2 iso8859-16", "Czech": "cp1250 iso8859-2 cp852 mac_latin2",
    "Slovak": "cp1250 iso8859-2 cp852", "Hungarian": "cp1250 iso8859-2 cp852",
    "Romanian": "cp1250 iso8859-2 iso8859-16 mac_romanian cp852", "Croatian": "cp1250 iso8859-2 cp852 mac_croatian",
    "Slovenian": "cp1250 iso8859-2 cp852", "Turkish": "cp1254 iso8859-9 cp857 mac_turkish",
    "Lithuanian": "cp1257 iso8859-13 cp775", "Latvian": "cp1257 iso8859-13 cp775",
    "Estonian": "cp1257 cp1252 iso8859-15",
}  # fmt: skip
CASES = [(language, encoding) for language, encodings in ENCODINGS.items() for encoding in encodings.split()]


def written(language: str, encoding: str) -> list[str]:
    """Return those names of a language that an encoding can write, in the form in which it can."""
    names = NAMES[language]
    if encoding == "cp1258":
        names = ["".join(map(_tone_apart, name)) for name in names]
    if language == "Romanian" and encoding in ("cp1250", "iso8859-2", "cp852"):  # they have a cedilla for the comma
        names = [name.translate(str.maketrans("șțȘȚ", "şţŞŢ")) for name in names]
    return [name for name in names if name.encode(encoding, "ignore").decode(encoding) == name]


def _tone_apart(char: str) -> str:
    """Return a letter of Vietnamese as Windows has it: the accent of its tone stands behind it."""
    decomposed = unicodedata.normalize("NFD", char)
    tones = "".join(mark for mark in decomposed if mark in "\u0300\u0301\u0303\u0309\u0323")
    return unicodedata.normalize("NFC", "".join(mark for mark in decomposed if mark not in tones)) + tones
