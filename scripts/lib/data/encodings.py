"""Find out how names and tables were encoded where nothing says it: by how plausible they look as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from scripts.lib.base.problems import UserError
from scripts.lib.data.plausible_text import LANGUAGES, cost_of
from scripts.lib.data.split_words import read_split_name

KEY = "dataset.encoding"
#: Encodings that are tried, and how much less likely each is than the usual ones, in nats. Those that differ in few
#: signs stand in the order in which they are taken.
ENCODINGS = {
    "gb18030": 0, "cp932": 1, "cp949": 2, "cp950": 1, "big5hkscs": 3, "euc_jp": 5, "johab": 6,
    "cp1252": 0, "cp1251": 0, "cp1250": 3, "cp1253": 3, "cp1254": 2, "cp1255": 3, "cp1256": 3, "cp1257": 3,
    "cp1258": 5, "cp874": 2,
    "iso8859-15": 4, "iso8859-2": 4, "iso8859-16": 6, "iso8859-5": 5, "iso8859-7": 4, "iso8859-8": 4, "iso8859-6": 5,
    "iso8859-13": 5, "koi8_r": 3, "koi8_u": 4,
    "mac_roman": 6, "mac_latin2": 7, "mac_cyrillic": 6, "mac_greek": 7, "mac_turkish": 7, "mac_romanian": 7,
    "mac_croatian": 8,
}  # fmt: skip
#: The languages of encodings with several bytes a character; others may be of any.
SEVERAL_BYTES = {
    "gb18030": ("zh", "zh-Hant"), "cp932": ("ja",), "cp949": ("ko",), "cp950": ("zh-Hant",), "big5hkscs": ("zh-Hant",),
    "euc_jp": ("ja",), "johab": ("ko",),
}  # fmt: skip
#: Those of MS-DOS, which Windows still writes into zips, and hardly anything else.
OEM_ENCODINGS = {
    "cp437": 0, "cp850": 0.5, "cp866": 0, "cp852": 3, "cp737": 3, "cp857": 2, "cp862": 3, "cp720": 3, "cp775": 3,
    "cp855": 5, "cp861": 5, "cp865": 4, "cp1125": 4,
}  # fmt: skip
#: What the other kind of a single-byte encoding costs: of MS-DOS outside such zips, of Windows in them.
OTHER_KIND = 4.0
#: Names in UTF-8 besides others that are not.
MIXED = 9.0
#: How much more likely UTF-8 is than all others, where all names are valid in it.
UTF8 = -10.0
#: What a folder that is called as a split, in words that ASCII lacks, speaks for an encoding.
SPLIT_NAME = -10.0
#: The same for each letter of such a word beyond the first few.
SPLIT_LETTER, SHORT_SPLIT = -8.0, 3
#: Each name that has a byte that is no text in the encoding.
NO_NAME = 5.0
#: Another text that is less than this many nats worse may be the right one. Of 3,192 lists of 3 to 100 real names the
#: one that was read wrongly at the largest distance is 9.6 away. The second: of names that are valid UTF-8.
AMBIGUOUS, AMBIGUOUS_UTF8 = 10.0, 8.0
#: As few names as these may be valid UTF-8 by chance.
FEW_NAMES = 2
#: Distinct names of folders, and of files, that are looked at: more say no more.
MOST_NAMES = 300


@dataclass(frozen=True)
class Encoding:
    """How names are to be read: ``name`` is "" where no encoding fits; ``sample``: one of the names; ``rival``: another
    encoding that is nearly as plausible, and the same name in it; ``mixed``: some of the names are UTF-8.
    """

    name: str = "utf-8"
    sample: str = ""
    rival: tuple[str, str] | None = None
    mixed: bool = False

    def decode(self, text: str | bytes) -> str:
        """Return *text*; bytes of no encoding become surrogates, which ``safe_component`` writes as %XX."""
        if isinstance(text, str):
            return text
        first = ("utf-8", self.name) if self.mixed else (self.name,)
        name = next((name for name in first if name and decodes(text, name)), "utf-8")
        return text.decode(name, "surrogateescape")

    def describe(self, what: str) -> str:
        """Say in one line how *what* was read; "" where it was plain UTF-8."""
        if not self.sample:
            return ""
        if not self.name:
            return f"{what} are in no encoding that mimflow knows, such as {self.sample!r}: set {KEY}"
        read = f"{what} are read as {self.name}{' or UTF-8' if self.mixed else ''}, such as {self.sample!r}"
        if self.rival:
            return f"{read}; this is ambiguous, in {self.rival[0]} it is {self.rival[1]!r}: set {KEY} to be sure"
        return f"{read}; if that is wrong, set {KEY}"


def find_encoding(texts: Iterable[str | bytes], setting: str | None = None, oem: bool = False) -> Encoding:
    """Return the encoding of those *texts* that are bytes: UTF-8 where all are, else the most plausible one.

    One decision for all, since about one in fifty Chinese words of two characters is, in GBK, valid UTF-8 by chance.

    Parameters
    ----------
    texts : names or paths; those that are text already say nothing.
    setting : ``dataset.encoding``; then only this one and UTF-8 are possible.
    oem : they come from a zip that MS-DOS or Windows made.

    Raises
    ------
    UserError : a name that is neither UTF-8 nor in the encoding that is given.
    """
    of_folders: dict[bytes, bytes] = {}
    of_files: dict[bytes, bytes] = {}
    utf8 = True
    for text in texts:
        if isinstance(text, bytes) and not text.isascii():
            utf8 = utf8 and decodes(text, "utf-8")
            if setting and not decodes(text, setting) and not decodes(text, "utf-8"):
                raise UserError(f"{KEY}: {text!r} is not in {setting}", "give another encoding, or leave the key out")
            *folders, file = text.split(b"/")
            for words, components in ((of_folders, folders), (of_files, [file])):
                for word in components if len(words) < MOST_NAMES else ():
                    if not word.isascii():
                        words.setdefault(re.sub(rb"[0-9]", b"", word), word)
    names = list({**of_folders, **of_files}.values())
    if not names or (utf8 and not setting and len(names) > FEW_NAMES):
        return Encoding()
    candidates = {setting: 0.0} if setting else _candidates(oem)
    if utf8:
        candidates["utf-8"] = 0.0 if setting else UTF8
    return _choose(names, candidates, bool(setting))


def decodes(text: bytes, encoding: str, errors: str = "strict") -> bool:
    """Tell whether *text* is valid in *encoding*."""
    try:
        text.decode(encoding, errors)
    except UnicodeDecodeError:
        return False
    return True


def _candidates(oem: bool) -> dict[str, float]:
    """Return the encodings that are tried, and what each costs beforehand."""
    ansi = {name: cost + OTHER_KIND * (oem and name not in SEVERAL_BYTES) for name, cost in ENCODINGS.items()}
    return {**ansi, **{name: cost + OTHER_KIND * (not oem) for name, cost in OEM_ENCODINGS.items()}}


def _choose(names: Sequence[bytes], candidates: dict[str, float], certain: bool) -> Encoding:
    """Return the encoding in which *names* are most plausible."""
    read = [(cost, Encoding(name)) for name, cost in candidates.items()]
    if "utf-8" not in candidates and any(decodes(name, "utf-8") for name in names):
        read += [(cost + MIXED, Encoding(name, mixed=True)) for name, cost in candidates.items()]
    if not certain:
        read.insert(0, (0.0, Encoding("")))
        if all(decodes(name, "utf-8", "surrogatepass") for name in names) and "utf-8" not in candidates:
            return Encoding("", Encoding("").decode(names[0]))  # halves of characters, as broken programs write
    (cost, best, texts), *others = _rank(names, read)
    sample, rival = "" if best.name == "utf-8" else min(texts, key=len), None
    margin = AMBIGUOUS_UTF8 if best.name == "utf-8" else AMBIGUOUS
    for other_cost, other, other_texts in others:
        if other_texts != texts and other.name and best.name and other_cost < cost + margin:
            sample, theirs = next((a, b) for a, b in zip(texts, other_texts, strict=True) if a != b)
            rival = other.name, theirs
            break
    return Encoding(best.name, sample, rival, best.mixed)


def _rank(names: Sequence[bytes], read: Iterable[tuple[float, Encoding]]) -> list[tuple[float, Encoding, list[str]]]:
    """Return what *names* cost in each encoding, and how they read in it, the most plausible first.

    Encodings in which they read the same are one, which costs least beforehand.
    """
    ranked: dict[tuple[object, ...], tuple[float, Encoding, list[str]]] = {}
    for prior, encoding in sorted(read, key=itemgetter(0)):
        texts = [encoding.decode(name) for name in names]
        if encoding.name and not encoding.mixed:  # what is UTF-8 by chance is no text in it
            texts = [
                text if decodes(name, encoding.name) else name.decode("ascii", "surrogateescape")
                for name, text in zip(names, texts, strict=True)
            ]
        languages = (LANGUAGES, SEVERAL_BYTES.get(encoding.name, LANGUAGES))
        if (key := (encoding.mixed, tuple(languages[1]), *texts)) in ranked:
            continue
        utf8 = [encoding.mixed and decodes(name, "utf-8") for name in names]  # in any language
        groups = [[text for text, is_utf8 in zip(texts, utf8, strict=True) if is_utf8 == of] for of in (True, False)]
        undecoded = sum(any("\ud800" <= char < "\ue000" for char in text) for text in texts)
        cost = prior + NO_NAME * undecoded + sum(map(_cost_of_split, texts))
        cost += sum(cost_of(group, of) for group, of in zip(groups, languages, strict=True) if group)
        ranked[key] = cost, encoding, texts
    return sorted(ranked.values(), key=itemgetter(0))


def _cost_of_split(text: str) -> float:
    """Return what it costs, less than nothing, that *text* names a split; a long word is not read so by chance."""
    split = read_split_name(text)
    if split is None or split.word.isascii():
        return 0.0
    return SPLIT_NAME + SPLIT_LETTER * max(0, len(split.word) - SHORT_SPLIT)
