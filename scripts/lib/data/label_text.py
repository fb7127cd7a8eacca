"""The text of a file of labels, however it was saved: in any encoding, and JSON as the table that it holds."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.data import encodings
from scripts.lib.data.archives import MAGIC
from scripts.lib.data.encodings import decodes, find_encoding
from scripts.lib.data.file_kinds import is_text, kind_of
from scripts.lib.data.image_formats import HEAD, sniff
from scripts.lib.data.image_paths import is_image

#: The setting, as messages name it.
KEY = "dataset.source.labels"
#: How the text of a table begins that Unicode does not begin: UTF-16, with the sign of its byte order and without.
BYTE_ORDERS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_text(
    name: str, content: bytes, columns: Collection[str], encoding: str | None, tell: Callable[[str], None]
) -> str:
    """Return the text of a file of labels; of JSON, the table in it as CSV.

    UTF-16 is read where it begins so (Excel's "Unicode text"), or where every other byte is 0.

    Parameters
    ----------
    columns : how columns of files are called; none: the file is a list of names, not a table.
    encoding : ``dataset.encoding``: of what is not Unicode; None: the most plausible one.
    tell : is called with a line where something was guessed.

    Raises
    ------
    UserError : it is no text, or JSON that is no table.
    """
    archive = next((f"a {kind} archive" for magic, kind in MAGIC.items() if content.startswith(magic)), None)
    what, remedy = kind_of(content) or (archive or ("" if is_text(content[:HEAD]) else sniff(content[:HEAD])), "")
    if what:
        stands_for_another = any(word in what for word in ("pointer", "web page", "XML"))
        remedy = remedy if stands_for_another else "save it as CSV in UTF-8, with a heading: file,label"
        raise UserError(f"{KEY}: {name} is {what}", remedy)
    text = _decode(name, content, encoding, tell)
    if text.lstrip()[:1] not in ("{", "["):
        return text
    table = _table_of_json(name, text, columns)
    if columns and table != text:
        tell(f"{name} is JSON, read as a table of the columns {table.partition(chr(10))[0]}")
    return table


def _decode(name: str, content: bytes, encoding: str | None, tell: Callable[[str], None]) -> str:
    begin = content[:1000]
    low, high = b"\0" in begin[::2], b"\0" in begin[1::2]
    wide = BYTE_ORDERS.get(content[:2]) or (
        "utf-16-le" if high and not low else "utf-16-be" if low and not high else ""
    )
    for unicode in filter(None, (wide, "" if b"\0" in content else "utf-8-sig")):
        if decodes(content, unicode):
            return content.decode(unicode)
    likely = find_encoding(re.split(rb'[\r\n\t ,;"]', content), encoding)
    if not likely.name or not decodes(content, likely.name) or b"\0" in content:
        raise UserError(
            f"{KEY}: {name} is no text in any encoding that mimflow knows", f"save it as UTF-8, or set {encodings.KEY}"
        )
    tell(likely.describe(f"cells of {name}"))
    return content.decode(likely.name)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _table_of_json(name: str, text: str, columns: Collection[str]) -> str:
    """Return the table in a JSON text, or in lines of JSON, as CSV; what is neither, as it is.

    Understood: a list of objects, or an object a line; an object of columns; an object with a class a file; an object
    with a list of files a class.
    """
    try:
        try:
            value = json.loads(text, object_pairs_hook=once)
        except json.JSONDecodeError:
            value = [json.loads(line, object_pairs_hook=once) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        if name.lower().endswith((".json", ".jsonl", ".ndjson")):
            raise UserError(f"{KEY}: {name} is no valid JSON ({error})", "correct it, or save it as CSV") from None
        return text
    except RecursionError:
        raise UserError(f"{KEY}: {name} is JSON, nested too deeply", "save it as CSV: file,label") from None
    except ValueError as error:
        raise UserError(f"{KEY}: {name}: {error}", "remove one of the two") from None
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    for row in _rows_of(value, name, columns):
        writer.writerow(["" if cell is None else cell if isinstance(cell, str) else json.dumps(cell) for cell in row])
    return table.getvalue()


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, in which json.loads would silently take the last of two equal keys."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return values


def _rows_of(value: Any, name: str, columns: Collection[str]) -> Iterator[Sequence[Any]]:
    """Yield the rows of a table as JSON may hold it, its heading first."""
    if not columns:
        if not _is_flat(value):
            raise UserError(f"{KEY}: {name} is JSON, but no list of names", "write a name a line")
        yield from ([label] for label in value)
    elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        heading = list(dict.fromkeys(key for row in value for key in row))
        yield heading
        yield from ([row.get(column) for column in heading] for row in value)
    elif isinstance(value, list) and all(isinstance(row, list) for row in value):
        yield from value
    elif isinstance(value, dict) and not any(isinstance(label, dict | list) for label in value.values()):
        yield "file", "label"
        yield from value.items()
    elif isinstance(value, dict) and all(
        is_image(file) and _is_flat(of) and len(of) == 1 for file, of in value.items()
    ):
        yield "file", "label"
        yield from ((file, labels[0]) for file, labels in value.items())
    elif isinstance(value, dict) and all(_is_flat(files) for files in value.values()):
        lengths = {len(cells) for cells in value.values()}
        if len(lengths) == 1 and any(key.strip().lower() in columns for key in value):
            yield list(value)
            yield from zip(*value.values(), strict=True)
        else:
            yield "file", "label"
            yield from ((file, label) for label, files in value.items() for file in files)
    else:
        keys = f" (its keys: {', '.join(map(repr, list(value)[:5]))})" if isinstance(value, dict) else ""
        raise UserError(
            f"{KEY}: {name} is JSON, but no table of files and classes{keys}",
            'save it as CSV (file,label), or as [{"file": ..., "label": ...}, ...]',
        )


def _is_flat(files: Any) -> bool:
    return isinstance(files, list) and not any(isinstance(file, dict | list) for file in files)
