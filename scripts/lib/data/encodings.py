"""Find out how names and tables were encoded where nothing says it: by how plausible they look as text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from operator import itemgetter
from pathlib import Path

import numpy as np
import yaml

from scripts.lib.base.problems import UserError
from scripts.lib.data.split_words import read_split_name

KEY = "dataset.encoding"
#: Encodings that are tried, and how much less likely each is than the usual ones, in nats.
ENCODINGS = {
    "gb18030": 0, "cp932": 0, "cp949": 0, "cp950": 0, "euc_jp": 3, "cp1252": 0, "cp1251": 0, "koi8_r": 3, "cp1250": 3,
    "iso8859-2": 4, "cp1253": 3, "cp1254": 2, "cp1255": 3, "cp1256": 3, "cp1257": 3, "cp874": 2, "mac_roman": 6,
}  # fmt: skip
#: The languages of encodings with several bytes a character; others may be of any.
SEVERAL_BYTES = {
    "gb18030": ("zh", "zh-Hant"), "cp932": ("ja",), "cp949": ("ko",), "cp950": ("zh-Hant",), "euc_jp": ("ja",),
}  # fmt: skip
#: Those of MS-DOS, which Windows still writes into zips, and hardly anything else.
OEM_ENCODINGS = {"cp437": 0, "cp850": 0.5, "cp866": 0, "cp852": 3, "cp737": 3, "cp857": 2}
#: What the other kind of a single-byte encoding costs: of MS-DOS outside such zips, of Windows in them.
OTHER_KIND = 4.0
#: Languages that a word may be in besides that of the other words; and names in UTF-8 besides others that are not.
OTHER_LANGUAGE, MIXED = 5.0, 6.0
#: Languages of few names in few data sets, and what they cost beforehand.
RARE_LANGUAGES = {"is": 3.0, "ca": 2.0, "et": 2.0}
#: How much more likely UTF-8 is than all others, where all names are valid in it.
UTF8 = -5.0
#: What a folder that is called as a split, in words that ASCII lacks, speaks for an encoding.
SPLIT_NAME = -10.0
#: The same for each letter of such a word beyond the first few.
SPLIT_LETTER, SHORT_SPLIT = -8.0, 3
#: Each byte that is no text in any encoding, and each name that has some.
NO_TEXT, NO_NAME = 8.0, 5.0
#: Another text that is less than this many nats worse may be the right one (33 to 1).
AMBIGUOUS = 3.5
#: As few names as these may be valid UTF-8 by chance.
FEW_NAMES = 2
#: Distinct names of folders, and of files, that are looked at: more say no more.
MOST_NAMES = 300

LANGUAGES: dict[str, str] = {
    language: letters.replace(" ", "")
    for language, letters in yaml.safe_load(Path(__file__).with_name("letters.yaml").read_text("utf-8")).items()
}
_RANKS = [{letter: rank for rank, letter in enumerate(letters)} for letters in LANGUAGES.values()]
_KNOWN = frozenset("".join(LANGUAGES.values()))
#: Of languages with more characters than a list holds: the encoding that has the usual ones, and the first and last
#: lead byte of the most frequent.
_STANDARDS = {
    "zh": ("gb2312", 0xB0, 0xD7), "zh-Hant": ("big5", 0xA4, 0xC6), "ja": ("cp932", 0x88, 0x97),
    "ko": ("euc_kr", 0xB0, 0xC8),
}  # fmt: skip
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC")


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
    ranked = []
    for prior, encoding in read:
        texts = [encoding.decode(name) for name in names]
        if encoding.name and not encoding.mixed:  # what is UTF-8 by chance is no text in it
            texts = [
                text if decodes(name, encoding.name) else name.decode("ascii", "surrogateescape")
                for name, text in zip(names, texts, strict=True)
            ]
        utf8 = [encoding.mixed and decodes(name, "utf-8") for name in names]  # in any language
        groups = [[text for text, is_utf8 in zip(texts, utf8, strict=True) if is_utf8 == of] for of in (True, False)]
        languages = (LANGUAGES, SEVERAL_BYTES.get(encoding.name, LANGUAGES))
        undecoded = sum(any("\ud800" <= char < "\ue000" for char in text) for text in texts)
        cost = prior + NO_NAME * undecoded + sum(map(_cost_of_split, texts))
        cost += sum(_cost(group, of) for group, of in zip(groups, languages, strict=True) if group)
        ranked.append((cost, encoding, texts))
    ranked.sort(key=itemgetter(0))
    cost, best, texts = ranked[0]
    sample, rival = "" if best.name == "utf-8" else min(texts, key=len), None
    for other_cost, other, other_texts in ranked[1:]:
        if other_texts != texts and other.name and best.name and other_cost < cost + AMBIGUOUS:
            sample, theirs = next((a, b) for a, b in zip(texts, other_texts, strict=True) if a != b)
            rival = other.name, theirs
            break
    return Encoding(best.name, sample, rival, best.mixed)


# --- how plausible a text is ------------------------------------------------------------------------------------------


def _cost(texts: Sequence[str], languages: Collection[str]) -> float:
    """Return how implausible *texts* are, in nats: nearly all are of one of the *languages*, the others of any."""
    of_language = np.stack([_costs_of(text) for text in texts])[:, [name in languages for name in LANGUAGES]]
    best = of_language.min(axis=1, keepdims=True)
    costs = np.minimum(of_language, best + OTHER_LANGUAGE).sum(axis=0)
    return float((costs + [RARE_LANGUAGES.get(name, 0.0) for name in LANGUAGES if name in languages]).min())


def _cost_of_split(text: str) -> float:
    """Return what it costs, less than nothing, that *text* names a split; a long word is not read so by chance."""
    split = read_split_name(text)
    if split is None or split.word.isascii():
        return 0.0
    return SPLIT_NAME + SPLIT_LETTER * max(0, len(split.word) - SHORT_SPLIT)


def _costs_of(text: str) -> np.ndarray:
    """Return how implausible *text* is in each language; ASCII, which is the same in all encodings, costs nothing."""
    costs = np.zeros(len(LANGUAGES))
    before = ""
    for char, after in zip(text, f"{text[1:]} ", strict=True):
        if not char.isascii():
            costs += _costs_of_char(char)
            if unicodedata.combining(char) and not _is_letter(before):
                costs += 15  # an accent on nothing
            if not _is_letter(char) and _is_letter(before) and _is_letter(after):
                costs += 4  # a sign in the middle of a word
        if not (char.isascii() and before.isascii()):
            costs += _cost_of_pair(before, char)
        before = char
    return costs


@lru_cache(maxsize=100_000)
def _costs_of_char(char: str) -> np.ndarray:
    """Return the costs of *char* in each language, about the negative logarithms of its frequencies."""
    if not _is_letter(char):
        return np.full(len(LANGUAGES), _cost_of_sign(char))
    lower = char.lower()
    offset = 1.7 if _script(char) == "LATIN" else 1.0  # those that ASCII lacks are fewer
    costs = [
        np.log(ranks[lower] + (60 if language in _STANDARDS else 6)) + offset
        if lower in ranks
        else _rare(char, language)
        for language, ranks in zip(LANGUAGES, _RANKS, strict=True)
    ]
    return np.array(costs) + 0.7 * (lower != char)


def _rare(char: str, language: str) -> float:
    """Return the cost of a letter that is not among the frequent ones of *language*."""
    if _script(char) not in ("CJK", "HANGUL", "HALFWIDTH"):
        return 9.0 if char.lower() in _KNOWN else 11.0
    encoding, first, last = _STANDARDS.get(language, ("ascii", 0, 0))
    if _script(char) == "HALFWIDTH":
        return 9.0 if language == "ja" else 14.0
    raw = char.encode(encoding, "ignore")
    return 14.0 if len(raw) < 2 else 9.5 if first <= raw[0] <= last else 12.0


def _cost_of_sign(char: str) -> float:
    category = unicodedata.category(char)
    if category in ("Cc", "Cn", "Co", "Cs"):  # control characters, unassigned, private use; bytes of no encoding
        return NO_TEXT if category == "Cs" else 25.0
    if category == "Zs" or 0x2500 <= ord(char) < 0x25A0:  # blanks of another width; boxes and blocks of MS-DOS
        return 13.0
    return 6.0 if category in ("Pd", "Ps", "Pe", "Pi", "Pf", "Po") or char in "°ªº" else 7.5


def _cost_of_pair(left: str, right: str) -> float:
    """Return what it costs that two letters stand side by side in one word."""
    if not (_is_letter(left) and _is_letter(right)):
        return 0.0
    scripts = {_script(left), _script(right)}
    if len(scripts) == 1:
        return 5.0 if left.islower() and right.isupper() else 0.0
    if scripts <= {"CJK", "HANGUL", "LATIN"}:  # T恤, 维生素C
        return 3.0 if "LATIN" not in scripts or (left + right).upper() == left + right else 6.0
    return 8.0


@cache
def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LM" if char else False


@cache
def _script(char: str) -> str:
    """Return the script of a letter as Unicode names it; those of Chinese and Japanese are one."""
    script = unicodedata.name(char, "").split(" ")[0]
    return "CJK" if script in _CJK else script
