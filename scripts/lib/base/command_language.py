"""The language of a command: the one that it is asked for, else that of the settings, the results or the shell.

The step of a rule, which has a log, speaks English: logs are English, and who shows its lines translates them.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.lib.base.environment import variables_of_shell
from scripts.lib.base.language import LANGUAGES, language_of
from scripts.lib.base.problems import UserError

#: In the folder of a data set: what its last run was made with.
RECORDED = "settings.yaml"
#: Folders of a run: ``seed0``, and ``fold1`` in it where there are folds.
_SEED, _FOLD = re.compile(r"seed\d{1,10}", re.ASCII), re.compile(r"fold\d{1,10}", re.ASCII)
#: Options of commands that say where the settings or the results lie.
_OPTIONS = ("config", "run", "onnx", "results", "dataset", "folder", "language", "log")
#: Variables of a shell that say the language of messages, and those that say how letters are written; the first counts.
_MESSAGES, _LETTERS = ("LC_ALL", "LC_MESSAGES", "LANG"), ("LC_ALL", "LC_CTYPE", "LANG")


def language_of_command(options: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return the language of a command: ``en`` or ``zh``.

    Parameters
    ----------
    options : of the command, by name.
    environment : of this process; what the user's shell had set otherwise is read from it.
    """
    try:
        from scripts.lib.base import strict_yaml  # noqa: F401 - without .venv there is none, and no Chinese
    except ImportError:
        return "en"
    if options.get("log"):
        return "en"
    if options.get("language") in LANGUAGES:
        return str(options["language"])
    return _of_settings(options) or _of_results(options) or language_of_shell(environment)


def language_of_words(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the same of a command whose words may be wrong."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in _OPTIONS:
        parser.add_argument(f"--{name}", nargs="?")
    return language_of_command(vars(parser.parse_known_args(words)[0]), environment)


def language_of_shell(environment: Mapping[str, str]) -> str:
    """Return the language of the shell's locale where it is Chinese, in whatever encoding, else ``en``."""
    return "zh" if re.match(r"zh(?![a-z])", _locale(environment, _MESSAGES), re.IGNORECASE) else "en"


def encoding_of_shell(environment: Mapping[str, str]) -> str:
    """Return the encoding that the shell's locale names, such as ``GB18030``; empty where it names none."""
    return _locale(environment, _LETTERS).partition("@")[0].partition(".")[2]


def _locale(environment: Mapping[str, str], names: Sequence[str]) -> str:
    shell = variables_of_shell(environment)
    return next((shell[name] for name in names if shell.get(name)), "")


def _of_settings(options: Mapping[str, Any]) -> str | None:
    files = [options.get("config"), *(options.get("files") or [])]
    return next((language for file in files if file and (language := language_of(_read(Path(file))))), None)


def _of_results(options: Mapping[str, Any]) -> str | None:
    """Return the language that the results record which a command is about; None where they name none, or several."""
    if options.get("run"):
        folder = Path(options["run"]).resolve()
        return _of_run(folder) or _of_dataset(folder) or _of_experiment(folder) or _of_all(folder)
    if options.get("onnx"):
        return _of_run(Path(options["onnx"]).resolve().parent)
    if options.get("results") or options.get("folder"):
        results = Path(options.get("results") or Path(options["folder"], "results")).resolve()
        return _of_dataset(results / options["dataset"]) if options.get("dataset") else _of_all(results)
    return None


def _of_run(folder: Path) -> str | None:
    run = folder.parent if _FOLD.fullmatch(folder.name) else folder
    return _of_dataset(run.parents[1]) if _SEED.fullmatch(run.name) and len(run.parents) > 1 else None


def _of_experiment(folder: Path) -> str | None:
    return _of_dataset(folder.parent) if any(_SEED.fullmatch(name) for name in _names(folder)) else None


def _of_all(results: Path) -> str | None:
    """Return the language of all data sets of a folder of results; None where they differ."""
    languages = {language for name in _names(results) if (language := _of_dataset(results / name))}
    return languages.pop() if len(languages) == 1 else None


def _of_dataset(folder: Path) -> str | None:
    """Return the language of the settings in the folder of a data set, which has its name; None of any other file."""
    config = _read(folder / RECORDED)
    dataset = config.get("dataset") if isinstance(config, Mapping) else None
    name = dataset.get("name") if isinstance(dataset, Mapping) else None
    return language_of(config) if name == folder.name else None


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _read(file: Path) -> Any:
    """Return the content of a YAML file; None where it cannot be read, which the command itself will say."""
    from scripts.lib.base import strict_yaml

    with suppress(OSError, UserError):
        return strict_yaml.read(file) if file.is_file() else None
    return None
