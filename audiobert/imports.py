"""
What `import audiobert` does about imports that come later.

Neither torch nor transformers is imported with this package. Once transformers is, the Auto classes have to know
AudioBERT; and where one of our modules imports a package that only an extra brings, the error names the extra.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

# Packages that are imported by another name than they are installed by.
INSTALLED_AS = {"sklearn": "scikit-learn"}
# The extra that a whole room needs.
ROOMS = {
    "sounds": "audio",
    "training": "train",
    "evaluation": "evaluate",
    "benchmark": "benchmark",
    "reproduction": "reproduce",
}


class MissingExtraError(ModuleNotFoundError):
    """A package is missing that an extra of audiobert installs; the message says which."""


class AutoClasses(MetaPathFinder):
    """Asked first: right after transformers, AudioBERT's classes are imported, and register themselves."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "transformers":
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        loader = spec.loader
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            # Where transformers was imported by these very classes, they are under way and register at their end.
            if f"{__package__}.modeling" not in sys.modules:
                importlib.import_module(".modeling", __package__)

        loader.exec_module = execute_and_register  # type: ignore[method-assign]  # on this one loader, for once
        return spec


class Extras(MetaPathFinder):
    """Asked last, so only for what is not installed: names the extra, if one of our own modules is importing."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        asking: list[str] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            asking.append(str(frame.f_globals.get("__name__")))
            frame = frame.f_back
        asking = [module for module in asking if not module.startswith("importlib.")]
        importer = asking[0]
        if not importer.startswith(f"{__package__}."):
            return
        extra = extra_of(fullname)
        if extra is None:
            return
        # The room where it began wants more than this: a command of evaluation that reads data wants `evaluate`.
        rooms = [module.split(".")[1] for module in asking if module.startswith(f"{__package__}.")]
        extra = next((ROOMS[room] for room in reversed(rooms) if room in ROOMS), extra)
        raise MissingExtraError(
            f"{importer} needs {fullname}, which is not installed: pip install '{__package__}[{extra}]'", name=fullname
        )


def extra_of(module: str) -> str | None:
    """The first extra of this package that installs a module; None if no extra does."""
    # Slow to import, and seldom asked for.
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires(str(__package__)) or []
    except PackageNotFoundError:
        return None
    name = INSTALLED_AS.get(module, module)
    for requirement in requirements:
        found = re.match(r"""([\w.-]+)[^;]*;.*\bextra == ["'](\w+)["']""", requirement)
        if found and found[1].replace("_", "-").lower() == name.replace("_", "-").lower():
            return found[2]
    return None


def watch() -> None:
    """Begins to do what this module is for; the second call of a process does nothing."""
    if any(
        type(finder).__name__ == Extras.__name__ and type(finder).__module__ == __name__ for finder in sys.meta_path
    ):
        return
    sys.meta_path.append(Extras())
    if "transformers" in sys.modules:
        importlib.import_module(".modeling", __package__)
    else:
        sys.meta_path.insert(0, AutoClasses())
