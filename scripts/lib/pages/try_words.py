"""The words that the script of try.html writes, in the language that is spoken; {name} stands for a value."""

from __future__ import annotations

from scripts.lib.base.language import tr


def words() -> dict[str, str]:
    """Return the words by the names that the script has for them."""
    return {**_of_answers(), **_of_work(), **_of_files()}


def _of_answers() -> dict[str, str]:
    return {
        "sure": tr("sure"),
        "unsure": tr("unsure:"),
        "not_confident": tr("low confidence for an accuracy of {accuracy}"),
        "far": tr("unlike the training images (distance {distance}, the limit is {far})"),
        "nearest": tr("Nearest training pictures"),
        "no_picture": tr("(no picture: the page has no room for it)"),
        "seen": tr("what the model sees"),
        "cover": tr("What does it depend on?"),
        "drops": tr("yellow: covered there, the probability of {name} falls, by {most} at most"),
        "wrong_here": tr("computed by a browser that failed the check of this page: do not rely on it"),
    }


def _of_work() -> dict[str, str]:
    return {
        "opening": tr("Opening the model ..."),
        "ready": tr("Ready: this browser computes what Python did."),
        "working": tr("{name}: picture {done} of {all} ..."),
        "done_one": tr("{name}: {answer}, {share}"),
        "done": tr("{n} pictures classified; the last one: {answer}, {share}"),
        "done_some": tr("{n} files, of which {unread} could not be read"),
        "covering": tr("covering the picture: {done}"),
        "covered": tr("The map is there."),
        "pasted": tr("pasted picture"),
        "check_failed": tr("This browser computes something else than Python: for the picture of the check, a"
                           " probability differs by {probability}, and {others} numbers of what the model takes are"
                           " others. Do not rely on its answers; a browser that protects against fingerprinting"
                           " changes pictures."),
        "cannot_open": tr("This browser cannot open the model: {reason}. Take a current Chrome, Edge, Firefox or"
                          " Safari."),
    }  # fmt: skip


def _of_files() -> dict[str, str]:
    return {
        "damaged": tr("Not read: the picture is damaged or cut off."),
        "foreign": tr("Not read: this is no picture, or one of a format that this browser does not know."),
        "format": tr("Not read: this browser does not decode {format}; convert it to PNG or JPEG, or use"
                     " scripts.predict."),
        "too_large": tr("Not read: {width} x {height} pixels are too many, or one side is too long."),
        "other_shape": tr("Not read: it becomes {width} x {height} pixels, which the model does not take."),
        "no_numbers": tr("The model gives no numbers for this picture."),
        "failed": tr("Not classified: {reason}"),
    }  # fmt: skip
