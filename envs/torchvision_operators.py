"""Let PyPI's torchvision, a CUDA build, be imported beside a torch without CUDA: timm and mmcv import it.

There its library of compiled operators cannot be loaded, and its import then fails at the two that it describes to
torch by name. They are declared just before. `install.py` puts this file into the cpu environment, with a .pth file by
which Python imports it at each start: it loads nothing itself.
"""

import sys

#: torchvision/_meta_registrations.py asks for these; the rest is described only where the library was loaded.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
#: What was declared; torch forgets it with this object.
declared: list[object] = []


class BeforeTorchvision:
    """A finder of modules that finds none: it declares the operators when torchvision is looked for."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Declare the operators before the import of torchvision, once."""
        if name == "torchvision" and cls in sys.meta_path:
            sys.meta_path.remove(cls)
            declare()


def declare() -> None:
    """Declare the operators, unless torchvision's library can be loaded and brings them."""
    from importlib.machinery import PathFinder  # here: each start of Python would wait a millisecond for it

    spec = PathFinder.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    import torch

    try:
        torch.ops.load_library(f"{spec.submodule_search_locations[0]}/_C.so")
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(operator)
        declared.append(library)


if BeforeTorchvision not in sys.meta_path:
    sys.meta_path.insert(0, BeforeTorchvision)
