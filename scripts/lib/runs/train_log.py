"""train_log.csv read back: one row an epoch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from scripts.lib.base.problems import UserError

NUMBERS = ("epoch", "train_loss", "val_accuracy", "val_loss", "images_per_second", "train_seconds", "val_seconds")


def read_train_log(path: Path) -> pd.DataFrame:
    """Read a train_log.csv; its numeric columns are floats, NaN where empty.

    Raises
    ------
    UserError : it is missing or empty, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it is written by scripts.train.train_model")
    try:
        log = pd.read_csv(path, encoding="utf-8")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a train_log.csv ({error}); train the run again") from error
    missing = [name for name in NUMBERS if name not in log]
    if missing or log.empty:
        what = f"lacks the column {missing[0]}" if missing else "holds no epoch"
        raise UserError(f"{path}: {what}; train the run again")
    for name in NUMBERS:
        log[name] = pd.to_numeric(log[name], errors="coerce")
    return log


def kept_epoch(log: pd.DataFrame) -> pd.Series | None:
    """Return the row of the epoch that best.pth is of; None where no epoch was validated.

    It is the last that became the best. An earlier version did not write which: then the one of the highest accuracy.
    """
    if not log["val_accuracy"].notna().any():
        return None
    if "is_best" in log and (log["is_best"] == 1).any():
        return log[log["is_best"] == 1].iloc[-1]
    return log.iloc[int(log["val_accuracy"].fillna(-1).argmax())]
