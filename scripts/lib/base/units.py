"""Numbers in words: durations, bytes, large counts, plurals."""

from __future__ import annotations


def human(number: int) -> str:
    """Return a number with three significant digits and a unit from ten thousand on.

    >>> human(9999), human(2236682), human(4089184256)
    ('9,999', '2.24 M', '4.09 G')
    """
    if number < 10_000:
        return f"{number:,}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        value = number / size
        digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
        if value < 999.5 or unit == "T":
            break
    return f"{value:.{digits}f} {unit}"


def plural(count: int, word: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "image"), plural(1200, "copy"), plural(2, "class")
    ('1 image', '1,200 copies', '2 classes')
    """
    if count != 1:
        word = f"{word[:-1]}ies" if word.endswith("y") else f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count:,} {word}"


def megabytes(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"


def duration(seconds: float | None) -> str:
    """Return e.g. ``1-02:03:04`` or ``3:04``, as Slurm writes it; ``-`` for none."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration_in_words(seconds: float) -> str:
    """Return a duration with its units.

    >>> duration_in_words(9), duration_in_words(69), duration_in_words(3700)
    ('9 s', '1 min 09 s', '1 h 01 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def percent(share: float) -> str:
    """Return a share of one in percent.

    >>> percent(0.9731)
    '97.3 %'
    """
    return f"{in_percent(share)} %"


def in_percent(share: float) -> str:
    """Return the same without the sign, for where a heading has it."""
    return f"{100 * share:.1f}"
