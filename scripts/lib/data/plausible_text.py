"""How plausible a text is in a language, in nats: by its letters, what stands beside them, and their scripts."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml

#: What a word costs that is in another language than the others.
OTHER_LANGUAGE = 5.0
#: Languages of few names in few data sets, and what they cost beforehand.
RARE_LANGUAGES = {"is": 3.0, "ca": 2.0, "et": 2.0, "vi": 2.0}
#: Each byte that is no text in any encoding.
NO_TEXT = 8.0
#: Frequencies of what letters.yaml has beside a letter, by its three groups; of what it lacks; of any letter.
BESIDE, NOT_BESIDE, ANYWHERE = (0.15, 0.04, 0.008), 0.0015, 0.035
#: Capitals whose small letter is not one character.
SMALL = {"İ": "ı", "ẞ": "ß"}
APOSTROPHE = "’"
#: Scripts of which it is known what stands beside a letter.
ALPHABETS = ("LATIN", "CYRILLIC", "GREEK", "HEBREW")
#: Of languages with more characters than a list holds: the encoding that has the usual ones, and the first and last
#: lead byte of the most frequent.
_STANDARDS = {
    "zh": ("gb2312", 0xB0, 0xD7), "zh-Hant": ("big5", 0xA4, 0xC6), "ja": ("cp932", 0x88, 0x97),
    "ko": ("euc_kr", 0xB0, 0xC8),
}  # fmt: skip
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC")


@dataclass(frozen=True)
class Language:
    """The costs of its letters; of those with neighbours, also those of what is *before* and *after* them."""

    letters: dict[str, float] = field(default_factory=dict)
    before: dict[str, dict[str, float]] = field(default_factory=dict)
    after: dict[str, dict[str, float]] = field(default_factory=dict)


def _read_languages(path: Path) -> dict[str, Language]:
    languages = {}
    for name, entry in yaml.safe_load(path.read_text("utf-8")).items():
        languages[name] = language = Language()
        if isinstance(entry, str):
            many = 60 if name in _STANDARDS else 6  # not all are listed
            for rank, letter in enumerate(entry.replace(" ", "")):
                language.letters[letter] = float(np.log(rank + many)) + 1.0
            continue
        for letter, text in entry.items():
            share, *beside = text.split(" ")
            offset = 1.7 if _script(letter) == "LATIN" else 1.0  # those that ASCII lacks are fewer
            language.letters[letter] = offset - float(np.log(int(share) / 1000 + 0.003))
            for costs, groups in zip((language.before, language.after), beside, strict=False):
                costs[letter] = {
                    char: -float(np.log(frequency / ANYWHERE))
                    for frequency, group in zip(BESIDE, groups.split("|"), strict=False)
                    for char in group
                }
    return languages


def cost_of(texts: Sequence[str], languages: Collection[str]) -> float:
    """Return how implausible *texts* are, in nats: nearly all are of one of the *languages*, the others of any."""
    of_language = np.stack([_costs_of(text) for text in texts])[:, [name in languages for name in LANGUAGES]]
    best = of_language.min(axis=1, keepdims=True)
    costs = np.minimum(of_language, best + OTHER_LANGUAGE).sum(axis=0)
    return float((costs + [RARE_LANGUAGES.get(name, 0.0) for name in LANGUAGES if name in languages]).min())


def _costs_of(text: str) -> np.ndarray:
    """Return how implausible *text* is in each language; ASCII, which is the same in all encodings, costs nothing."""
    costs = np.zeros(len(LANGUAGES))
    text = f" {unicodedata.normalize('NFC', text)} "
    for before, char, after in zip(text, text[1:], text[2:], strict=False):
        if not char.isascii():
            costs += _costs_of_char(char)
            if _script(char) in ALPHABETS:
                costs += _costs_of_neighbours(before, char, after)
            if not _is_letter(char) and _is_letter(before) and _is_letter(after):
                costs += -2 if char == APOSTROPHE else 4  # a sign in the middle of a word
            if unicodedata.combining(char) and not _is_letter(before):
                costs += 15  # an accent on nothing
    return costs + sum(_cost_of_pair(*pair) for pair in pairwise(text) if not "".join(pair).isascii())


@lru_cache(maxsize=100_000)
def _costs_of_char(char: str) -> np.ndarray:
    """Return the costs of *char* in each language, about the negative logarithms of its frequencies."""
    if not _is_letter(char):
        return np.full(len(LANGUAGES), _cost_of_sign(char))
    lower = _lower(char)
    return np.array([_cost_of_letter(lower, name) for name in LANGUAGES]) + 0.7 * (lower != char)


@lru_cache(maxsize=50_000)
def _costs_of_neighbours(before: str, char: str, after: str) -> np.ndarray:
    """Return what it costs in each language that a letter stands between two others, against any other letters."""
    costs, lower, never = np.zeros(len(LANGUAGES)), _lower(char), -float(np.log(NOT_BESIDE / ANYWHERE))
    left, right = (_lower(beside) if _is_letter(beside) else "-" for beside in (before, after))
    for number, language in enumerate(LANGUAGES.values()):
        if lower in language.before:
            costs[number] = language.before[lower].get(left, never) + language.after[lower].get(right, never)
    return costs


def _lower(char: str) -> str:
    return SMALL.get(char) or char.lower()


def _cost_of_letter(letter: str, language: str) -> float:
    """Return the cost of a small letter, which may be one that is rare in *language*."""
    if (cost := LANGUAGES[language].letters.get(letter)) is not None:
        return cost
    script = _script(letter)
    if script not in ("CJK", "HANGUL", "HALFWIDTH"):
        return 10.0 if letter in _KNOWN else 11.0
    if script == "HALFWIDTH":
        return 9.0 if language == "ja" else 14.0
    encoding, first, last = _STANDARDS.get(language, ("ascii", 0, 0))
    raw = letter.encode(encoding, "ignore")
    return 14.0 if len(raw) < 2 else 9.5 if first <= raw[0] <= last else 12.0


def _cost_of_sign(char: str) -> float:
    category = unicodedata.category(char)
    if category in ("Cc", "Cn", "Co", "Cs"):  # control characters, unassigned, private use; bytes of no encoding
        return NO_TEXT if category == "Cs" else 25.0
    if category == "Zs" or 0x2500 <= ord(char) < 0x25A0:  # blanks of another width; boxes and blocks of MS-DOS
        return 15.0
    return 6.0 if category in ("Pd", "Ps", "Pe", "Pi", "Pf") or char in "°ªº½¡¿·" else 9.0


def _cost_of_pair(left: str, right: str) -> float:
    """Return what it costs that two letters stand side by side in one word."""
    if not (_is_letter(left) and _is_letter(right)):
        return 0.0
    scripts = {_script(left), _script(right)}
    if len(scripts) == 1:
        return 8.0 if left.islower() and right.isupper() else 0.0
    if scripts <= {"CJK", "HANGUL", "LATIN"}:  # T恤, 维生素C
        return 3.0 if "LATIN" not in scripts or (left + right).upper() == left + right else 6.0
    return 8.0


@cache
def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LM"


@cache
def _script(char: str) -> str:
    """Return the script of a letter as Unicode names it; those of Chinese and Japanese are one."""
    script = unicodedata.name(char, "").split(" ")[0]
    return "CJK" if script in _CJK else script


LANGUAGES = _read_languages(Path(__file__).with_name("letters.yaml"))
_KNOWN = frozenset(letter for language in LANGUAGES.values() for letter in language.letters)
