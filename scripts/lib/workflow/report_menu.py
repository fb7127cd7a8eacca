"""How Snakemake's own report (make snakemake-report) shows a file: its caption, its place in the menu, the words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.lib.base import strict_yaml
from scripts.lib.base.environment import ROOT
from scripts.lib.settings.schema import Settings

#: The texts of the report, a folder for each language.
CAPTIONS = ROOT / "scripts" / "report" / "captions"

WORDS = strict_yaml.read(Path(__file__).with_suffix(".yaml"))
CHINESE: dict[str, str] = WORDS["menu"] | WORDS["run"]
#: What the report shows of a run; Snakemake sorts by the words themselves.
ORDER = tuple(WORDS["run"])


def label(words: str, language: str) -> str:
    """Return *words* in *language*, ``en`` or ``zh``; those of ORDER with their number in front.

    Raises
    ------
    KeyError : they have no translation yet.
    """
    number = f"{ORDER.index(words) + 1:02} " if words in ORDER else ""
    return number + (CHINESE[words] if language == "zh" else words)


class ReportMenu:
    """The report of one configuration, in its language."""

    def __init__(self, settings: Settings) -> None:
        self.language = settings.report.language
        self.folds = settings.dataset.split.folds

    def caption(self, name: str) -> str:
        """Return the file of the report's text called *name*; whole, since each Snakefile has a folder of its own."""
        return str(CAPTIONS / self.language / f"{name}.rst")

    def shown(self, caption: str, what: str, category: str = "Runs") -> dict[str, Any]:
        """Return how the report shows a file, for Snakemake's report().

        Parameters
        ----------
        caption : name of its text.
        what : the file in a few words, one of CHINESE.
        category : ``Runs`` puts it below its experiment, with seed and fold.
        """
        words = {label("what", self.language): label(what, self.language)}
        shown: dict[str, Any] = {"caption": self.caption(caption), "category": label(category, self.language)}
        if category != "Runs":
            return shown | {"labels": words}
        run = {label(name, self.language): f"{{{name}}}" for name in ("seed", "fold") if name == "seed" or self.folds}
        return shown | {"subcategory": "{experiment}", "labels": {**run, **words}}
