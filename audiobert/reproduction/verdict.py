"""Did the audio help? The answer in words, made from the paired bootstrap and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..evaluation.comparison import ColumnComparison, Comparison, interval_text
from ..evaluation.significance import PairedBootstrap, holm
from ..evaluation.sound_swap.answering import END_TO_END
from ..evaluation.sound_swap.figures import PartFigures, SoundSwapReport
from ..reports.tables import percent
from .findings import SIGNIFICANT, Findings, significant_columns
from .presets import AUDIOBERT, BLIND, NO_AUDIO, OTHER_SPAN, RANDOM
from .sound_swap import TRAINED_WITHOUT_AUDIO


def verdict(findings: Findings) -> list[str]:
    """
    Paragraphs, the answer in a few words first: AudioBERT against the same training with no audio.

    A column counts only if the paired bootstrap over instruments and onomatopoeia, corrected for the number of columns,
    has p of at most 0.05. Where AudioBERT is ahead so, it is also said whether it is ahead of itself with the wrong
    recordings in place of the right ones, and with what CLAP makes of the words in place of any.
    """
    if NO_AUDIO not in findings.comparisons:
        missing = [model for model in (AUDIOBERT, NO_AUDIO) if model not in findings.models]
        return [f"**Not known.** There is no run of {' and none of '.join(missing)} to tell by."]
    helped = findings.significant(NO_AUDIO, True)
    return against_no_audio(findings.comparisons[NO_AUDIO]) + [
        _wrong_recordings(findings, control, helped)
        for control in (RANDOM, OTHER_SPAN, BLIND)
        if helped and control in findings.comparisons
    ]


def against_no_audio(comparison: Comparison) -> list[str]:
    """The answer, what it stands on, and the seeds: a paragraph each."""
    helped, harmed = (significant_columns(comparison, ahead) for ahead in (True, False))
    columns = comparison.columns
    return [_headline(helped, harmed, len(columns)), _evidence(columns, helped, harmed), _seeds(columns)]


def swap_lines(swap: SoundSwapReport) -> list[str]:
    """
    Of each part of the sound swap how often AudioBERT follows the sound, against the same training with no audio: a
    line each. They are told apart by the paired bootstrap over labels, corrected for the number of parts.
    """
    gains = {}
    for part, listeners in swap.parts.items():
        control = listeners.get(TRAINED_WITHOUT_AUDIO)
        if control is not None and control.hearing_adds is not None:
            gains[part] = control.hearing_adds
    adjusted = dict(zip(gains, holm([gain.p for gain in gains.values()]), strict=True))
    lines = []
    for part, listeners in swap.parts.items():
        if part in gains:
            lines.append(f"{part}: {_swap_line(listeners, gains[part], adjusted[part])}")
        else:
            answered = {AUDIOBERT: END_TO_END, f"a model {TRAINED_WITHOUT_AUDIO}": TRAINED_WITHOUT_AUDIO}
            missing = [who for who, name in answered.items() if name not in listeners]
            lines.append(f"{part}: there are no answers of {' and of '.join(missing)} to tell by.")
    return lines


def _swap_line(listeners: Mapping[str, PartFigures], gain: PairedBootstrap, adjusted_p: float) -> str:
    heard, control = listeners[END_TO_END], listeners[TRAINED_WITHOUT_AUDIO]
    names = "" if heard.follows_name is None else f" and the name in {percent(heard.follows_name)} %"
    told = "told apart" if adjusted_p <= SIGNIFICANT else "not told apart"
    return (
        f"AudioBERT follows the sound in {percent(heard.follows_sound)} %{names}, the same training with no audio in "
        f"{percent(control.follows_sound)} %; that is {100 * gain.difference:+.2f} points "
        f"{interval_text(gain.interval, sign='+')}, {told}."
    )


def listing(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"; "none" without any."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "none"


def control_line(control: str, findings: Findings) -> str:
    """How AudioBERT stands to one control, in one line."""
    columns = findings.comparisons[control].columns
    ahead = sum(column.difference > 0 for column in columns)
    behind = sum(column.difference < 0 for column in columns)
    return (
        f"{control}: AudioBERT is ahead in {_of(ahead, len(columns))} "
        f"(told apart in {listing(findings.significant(control, True))}), behind in {behind} "
        f"(told apart in {listing(findings.significant(control, False))})."
    )


def _headline(helped: Sequence[str], harmed: Sequence[str], columns: int) -> str:
    if helped and harmed:
        return f"**In part.** The audio helped in {listing(helped)}, and did harm in {listing(harmed)}."
    if len(helped) == columns:
        return "**Yes, in every column.**"
    if helped:
        return f"**In part.** The audio helped in {listing(helped)}; elsewhere no difference is shown."
    if len(harmed) == columns:
        return "**No. The audio did harm in every column.**"
    if harmed:
        return f"**No.** The audio did harm in {listing(harmed)}; elsewhere no difference is shown."
    return "**Not that the test could tell.** In no column is it shown that the audio helped or did harm."


def _evidence(columns: Sequence[ColumnComparison], helped: Sequence[str], harmed: Sequence[str]) -> str:
    ahead = sum(column.difference > 0 for column in columns)
    behind = sum(column.difference < 0 for column in columns)
    ordered = sorted(columns, key=lambda column: column.difference)
    ends = [f"{100 * column.difference:+.2f} ({column.task} {column.split})" for column in (ordered[0], ordered[-1])]
    by_row = [
        f"{column.task} {column.split}"
        for column in columns
        if column.mcnemar_p_holm <= SIGNIFICANT < column.bootstrap_p_holm
    ]
    return (
        f"AudioBERT, against the same training with no audio, is ahead in {_of(ahead, len(columns))} and behind in "
        f"{behind}; the differences go from {ends[0]} to {ends[1]} points. By the paired bootstrap over instruments "
        f"(pitch) and onomatopoeia (animals), with Holm's correction over the columns (p ≤ {SIGNIFICANT}), it is ahead "
        f"in {len(helped)} and behind in {len(harmed)}. McNemar's test by row, which takes rows that share these for "
        f"independent and does not count here, alone tells them apart in: {listing(by_row)}."
    )


def _seeds(columns: Sequence[ColumnComparison]) -> str:
    audio, control = columns[0].audio.seeds, columns[0].control.seeds
    text = f"Training seeds: {audio} with audio, {control} without."
    if min(audio, control) == 1:
        text += " One seed says nothing of how the training varies: the tests then speak of other rows only."
    return text


def _wrong_recordings(findings: Findings, control: str, helped: Sequence[str]) -> str:
    ahead = [column for column in helped if column in findings.significant(control, True)]
    rest = [column for column in helped if column not in ahead]
    text = f"Where it helped, against {control}: shown to be ahead in {listing(ahead)}."
    if rest and control == BLIND:
        text += f" In {listing(rest)} it is not shown that the sound helped, and not what CLAP makes of the words."
    elif rest:
        text += f" In {listing(rest)} it is not shown that the right sound is what helped."
    return text


def _of(count: int, columns: int) -> str:
    return f"{count} of {columns} column{'s' * (columns != 1)}"
