"""The command that makes the questions of the sound swap, and what `audiobert evaluate --sound-swap` does with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...console import check_output_folder, err, plain_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .figures import SoundSwapReport
    from .measuring import Loaded

app = typer.Typer()


@app.command("make-sound-swap")
@plain_errors
def make_sound_swap_command(
    knowledge_base: Annotated[str, typer.Argument(help="A knowledge base, or the folder of a model that has one.")],
    held_out: Annotated[Path, typer.Argument(help="The list of what no training has heard: a held_out.json.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; MODEL/sound_swap goes with a model.")],
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
) -> None:
    """Makes the questions that only who hears can answer, from recordings that no training has heard."""
    from transformers import AutoTokenizer

    from ...listening.held_out import HeldOut
    from ...modeling import AudioBertKnowledgeBase
    from ...modeling.companions_audiobert import KNOWLEDGE_BASE_FOLDER
    from .making import make_sound_swap
    from .questions import PARTS, SETTINGS_FILE

    if (check_output_folder(output) / SETTINGS_FILE).exists():
        raise ValueError(f"{output} holds questions already, which are written once: name another folder.")
    is_model = Path(knowledge_base, KNOWLEDGE_BASE_FOLDER).is_dir()
    words = AutoTokenizer.from_pretrained(knowledge_base).get_vocab() if is_model else ()
    sounds = AudioBertKnowledgeBase.from_pretrained(knowledge_base, subfolder=KNOWLEDGE_BASE_FOLDER if is_model else "")
    swap = make_sound_swap(sounds, HeldOut.load(held_out, sounds), seed, words)
    swap.save(output)
    counts = ", ".join(f"{part} {len(swap.part(part)):,}" for part in PARTS)
    err.print(f"wrote {len(swap.questions):,} questions to {output} ({counts})", highlight=False)


def ask(
    model: str,
    control: Sequence[str],
    load: Callable[[str], Loaded],
    *,
    controls: bool,
    questions: Path | None,
    data: Path | None,
    save: Path | None,
    batch_size: int,
) -> SoundSwapReport:
    """What `audiobert evaluate MODEL --sound-swap` prints."""
    from ...data.auditorybench import load_auditorybench
    from ...files import sha256_of
    from ...listening.held_out import HELD_OUT_FILE, HeldOut
    from .answering import END_TO_END, GIVEN, LISTENERS
    from .answers import save_answers
    from .figures import sound_swap_report
    from .measuring import answers_of_all
    from .questions import SETTINGS_FILE, SOUND_SWAP_FOLDER, SoundSwap

    beside = dict(map(_named_model, control))
    folder = questions or Path(model, SOUND_SWAP_FOLDER)
    swap = SoundSwap.load(folder)
    if (held_out := Path(model, HELD_OUT_FILE)).is_file():
        swap.check_held_out(HeldOut.load(held_out), folder)
    else:
        err.print(f"{model} has no {HELD_OUT_FILE}: whether it was trained on these recordings is not known.")
    train = load_auditorybench(data)["train"] if data is not None else None
    loaded = load(model)
    answers = answers_of_all(
        loaded,
        swap,
        listeners=LISTENERS if controls else (END_TO_END, GIVEN),
        controls={name: load(path) for name, path in beside.items()},
        train=train,
        batch_size=batch_size,
    )
    if save is not None:
        save_answers(save, answers)
    settings = {
        "model": Path(model).name,
        **_how_it_hears(loaded[0]),
        "controls": {name: Path(path).name for name, path in beside.items()},
        "questions": {"seed": swap.seed, "sha256": sha256_of(folder / SETTINGS_FILE)},
    }
    return sound_swap_report({name: [given] for name, given in answers.items()}, settings)


def _named_model(text: str) -> tuple[str, str]:
    name, _, model = text.partition("=")
    if not (name and model):
        raise ValueError(f"--control is NAME=MODEL, a name for the table and a folder or a Hub id, got {text!r}.")
    return name, model


def _how_it_hears(model: PreTrainedModel) -> dict[str, Any]:
    from ..masked import is_audiobert
    from .worlds import found_by_name

    if not is_audiobert(model):
        return {}
    names = ("injection", "retrieval_top_k", "retrieval_temperature", "retrieval_min_similarity", "standardize_audio")
    sounds = model.knowledge_base
    retrieval = {} if sounds is None else {"retrieval": found_by_name(sounds).config.retrieval}
    return {**{name: getattr(model.config, name) for name in names}, **retrieval}
