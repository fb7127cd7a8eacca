"""Load torchvision and timm when something of them is used: mmcv and mmcls import them at each start.

Mostly they need the name alone, and loading both takes two seconds of the processor: torchvision brings torch's
compiler. And beside a torch without CUDA, the library of compiled operators in PyPI's torchvision, a CUDA build, cannot
be loaded: its import then fails at the two that it describes to torch by name, so they are declared just before.
`install.py` puts this file into each environment, with a .pth file by which Python imports it at each start: it loads
nothing itself.
"""

import sys

#: torchvision/_meta_registrations.py asks for these; the rest is described only where the library was loaded.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
#: What was declared; torch forgets it with this object.
declared: list[object] = []


class Unloaded(type(sys)):
    """A module before something of it is used."""

    def __getattr__(self, name: str) -> object:
        """Load it, unless its version is asked for, which mmcls's train.py prints, or a private name.

        Such names are asked of all modules by those who look for something of their own. ``__path__`` is missing until
        it is loaded, so that Python comes here before it imports a part.
        """
        folder = self.__spec__.submodule_search_locations[0]
        if name == "__version__" and (version := version_in(folder)):
            return version
        if name.startswith("_") and name not in ("__path__", "__all__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if type(self) is Unloaded:
            self.__class__, self.__path__ = type(sys), [folder]
            if self.__name__ == "torchvision":
                declare(folder)
            try:
                self.__spec__.loader.original.exec_module(self)
            except BaseException:
                sys.modules.pop(self.__name__, None)  # as of any module: the next import tries again, and says why
                raise
        return getattr(self, name)


class Later:
    """A loader that leaves the work to the module."""

    def __init__(self, original: object) -> None:
        self.original = original

    def exec_module(self, module: object) -> None:
        """Do nothing yet."""
        del module.__path__
        module.__class__ = Unloaded

    def __getattr__(self, name: str) -> object:
        """Do all else, such as giving the source for a traceback, as the original does."""
        return getattr(self.original, name)


class Already:
    """A loader of a part that was loaded while Python asked its package for ``__path__``, to load that part."""

    def __init__(self, module: object) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: object) -> object:
        """Return the part that is there."""
        return self.module

    def exec_module(self, module: object) -> None:
        """Leave it as it was."""
        module.__spec__ = self.spec


class Finder:
    """A finder of these modules."""

    NAMES = ("torchvision", "timm")

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> object:
        """Return where a module is, with a loader that waits; None for all others."""
        if not name.startswith(cls.NAMES):
            return None
        from importlib.machinery import ModuleSpec, PathFinder  # here: each start of Python would wait for it

        if name not in cls.NAMES:
            is_part = path is not None and name.split(".")[0] in cls.NAMES and name in sys.modules
            return ModuleSpec(name, Already(sys.modules[name])) if is_part and target is None else None

        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None and spec.submodule_search_locations:
            spec.loader = Later(spec.loader)
        return spec


def version_in(folder: str) -> str:
    """Return what a package says in its version.py, which may import much; "" where it says nothing."""
    import re
    from pathlib import Path

    line = re.search(r"^__version__ = '(.+)'", Path(folder, "version.py").read_text("utf-8"), flags=re.MULTILINE)
    return line[1] if line else ""


def declare(folder: str) -> None:
    """Declare the operators, unless torchvision's library can be loaded and brings them."""
    import torch

    try:
        torch.ops.load_library(f"{folder}/_C.so")
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(operator)
        declared.append(library)


if Finder not in sys.meta_path:
    sys.meta_path.insert(0, Finder)
