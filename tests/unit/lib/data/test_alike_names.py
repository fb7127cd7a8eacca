"""Names of classes that a reader takes for the same."""

from __future__ import annotations

from scripts.lib.data.alike_names import alike, describe_alike


def test_classes_that_look_alike_are_said() -> None:
    names = ["cat", "Cat", "ca t", "dog", "caf\u00e9", "cafe\u0301", "bird%20", "bird"]
    assert alike(names) == [["Cat", "ca t", "cat"], ["bird", "bird%20"], ["cafe\u0301", "caf\u00e9"]]
    warning = describe_alike(names)
    assert (
        "'Cat' and 'ca t' and 'cat'; " in warning and r"'cafe\u0301' and 'caf\xe9'" in warning and "\n" not in warning
    )
    assert describe_alike(["cat", "dog"]) == ""
