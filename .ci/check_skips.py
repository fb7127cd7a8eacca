"""Fail when a test was skipped that could have run here: a skip must say that it `needs` what CI does not have."""

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

#: What a machine of CI may lack; the reason of a skip must name one of these. The bench's peers (timm and fastai with
#: their own torch) are 1.7 GB that no other test needs.
MAY_BE_MISSING = re.compile(
    r"needs (a GPU|two GPUs|CUDA|a Slurm cluster|the right to mount|a Python that other users may run"
    r"|the bench's peers)\b"
)


def wrong_skips(xml: str) -> list[str]:
    """Return `test: reason` of each skipped test whose reason is not one that CI accepts."""
    wrong = []
    for case in ElementTree.fromstring(xml).iter("testcase"):
        for skipped in case.iter("skipped"):
            reason = skipped.get("message", "")
            if not MAY_BE_MISSING.search(reason):
                wrong.append(f"{case.get('classname')}.{case.get('name')}: {reason}")
    return wrong


if __name__ == "__main__":
    if problems := wrong_skips(Path(sys.argv[1]).read_text(encoding="utf-8")):
        sys.exit("these tests were skipped and should have run here:\n" + "\n".join(problems))
