"""AudioBERT: a BERT that hears."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import imports

if TYPE_CHECKING:
    from .modeling import (
        AudioBertConfig,
        AudioBertForMaskedLM,
        AudioBertKnowledgeBase,
        AudioBertMaskedLMOutput,
        AuditorySpan,
        Recording,
        Retrieval,
    )
    from .sounds.growing import add_recordings as add_recordings

_here = Path(__file__).parent
if not (_here / "modeling").is_dir():
    # In a clone `modeling/` and `hub_cards/` stand beside this folder; an install puts them into it.
    __path__.append(str(_here.parent))

__version__ = "0.1.0"

__all__ = [
    "AudioBertConfig",
    "AudioBertForMaskedLM",
    "AudioBertKnowledgeBase",
    "AudioBertMaskedLMOutput",
    "AuditorySpan",
    "Recording",
    "Retrieval",
    "bundled",
]
# Not for `import *`, which would need the extra that it needs.
_OF_AN_EXTRA = ["add_recordings"]


def bundled(name: str = "audiobert-tiny") -> Path:
    """
    The folder of a checkpoint that is installed with this package.

    Raises:
        ValueError: if there is none of that name.
    """
    cards = next(Path(folder) / "hub_cards" for folder in __path__ if (Path(folder) / "hub_cards").is_dir())
    names = sorted(path.parent.name for path in cards.glob("*/config.json"))
    if name not in names:
        raise ValueError(f"No bundled checkpoint is called {name!r}; there is {', '.join(names) or 'none'}.")
    return cards / name


def __getattr__(name: str) -> Any:
    # The classes bring torch and transformers along, which who only decodes or measures sounds need not wait for.
    if name == "add_recordings":
        from .sounds.growing import add_recordings as add_recordings

        return add_recordings
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import modeling

    return getattr(modeling, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_OF_AN_EXTRA})


imports.watch()
