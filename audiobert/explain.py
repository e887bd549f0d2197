"""Why AudioBERT answers a prompt as it does: what it took for sound, what it heard, and what that changed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .hearing import sounds_of, tokenizer_of
from .inference import Answer, prompt_error
from .language_models.masked import decoded
from .language_models.numbers import refuse_no_numbers
from .modeling import AudioBertForMaskedLM, AuditorySpan, Recording
from .modeling.injection_audiobert import look_up
from .modeling.lora_audiobert import lora_switched
from .reports.pages import write_page
from .sounds.decoding import AudioDecodingError
from .sounds.recordings import find_recording
from .sounds.views import SoundView, sound_view


@dataclass(frozen=True)
class TokenHeat:
    """A token of the prompt, the characters `prompt[start:end]`, and how sure the detector is that it speaks of sound.

    `is_special` marks the mask and other special tokens, which belong to no span whatever their probability.
    """

    start: int
    end: int
    probability: float
    is_special: bool


@dataclass(frozen=True)
class HeardRecording:
    """A recording that was retrieved, and what there is to hear and see of it.

    `view` is None where the audio is not at hand; `note` then says why, if it was looked for.
    """

    recording: Recording
    view: SoundView | None = None
    note: str | None = None


@dataclass(frozen=True)
class ExplainedSpan:
    """
    A detected span, the characters `prompt[start:end]`, with the probability of its tokens, what it retrieved, and
    whether that was injected, which it is not where even the best is too far.
    """

    start: int
    end: int
    text: str
    score: float
    recordings: tuple[HeardRecording, ...]
    injected: bool


@dataclass(frozen=True)
class Attribution:
    """
    Where the change of one answer at one mask comes from, in natural logarithms of its probability (0.69 doubles it).

    The parts add up: `audio_on - audio_off == adapter + sum(spans) + together`.

    Attributes:
        token: the answer, a word piece.
        audio_off: log-probability that plain BERT gives it.
        adapter: what turning the LoRA adapter on changes while no audio is injected and every word stays in place.
        spans: for each span at which audio is injected, what injecting its audio alone changes beyond that. With the
            injection "replace" this includes the loss of the word piece that the audio stands for.
        together: what the audio of several spans changes beyond the sum of what each does alone; 0 up to rounding
            where there is one span.
        audio_on: log-probability that AudioBERT gives it.
    """

    token: str
    audio_off: float
    adapter: float
    spans: tuple[float, ...]
    together: float
    audio_on: float


@dataclass(frozen=True)
class Explanation:
    """
    What [`explain`] found.

    Attributes:
        prompt: as it was given.
        tokens: the tokens that stand for characters of the prompt, in order.
        threshold: a token belongs to a span above this probability.
        spans: what was detected and retrieved; of a text-only control, which injects nothing, without recordings.
        injection: the model's way of putting audio into its input: "add", "replace" or "none".
        min_similarity: below it the best recording of a span is too far to be injected; None where none is.
        can_hear: False for a model without a knowledge base, which answers every prompt as plain BERT.
        answers, answers_without_audio: for each mask the best word pieces, best first.
        attributions: for each mask one for every word piece that is among its answers with or without audio; those
            with audio first. Empty where no span was detected: nothing changed then.
    """

    prompt: str
    tokens: tuple[TokenHeat, ...]
    threshold: float
    spans: tuple[ExplainedSpan, ...]
    injection: str
    min_similarity: float | None
    can_hear: bool
    answers: tuple[tuple[Answer, ...], ...]
    answers_without_audio: tuple[tuple[Answer, ...], ...]
    attributions: tuple[tuple[Attribution, ...], ...]


@torch.no_grad()
def explain(
    model: AudioBertForMaskedLM, prompt: str, top_k: int = 5, audio_dir: str | Path | None = None
) -> Explanation:
    """
    Answers a prompt and takes the answer apart.

    Args:
        model: in evaluation mode, with a tokenizer that is a fast one.
        prompt: with one mask or more.
        top_k: answers per mask.
        audio_dir: folder in which the ids of the knowledge base's recordings are file names, to show the recordings
            too. A recording that is not in it, or that cannot be decoded, is shown without its sound and says so.

    Raises:
        TypeError: the model is no AudioBERT.
        ValueError: the prompt has no mask or is too long, `top_k` is below 1, the model has no tokenizer, is in
            training mode or gives logits that are no numbers.
        FileNotFoundError: `audio_dir` is not there.
    """
    _check(model, prompt, top_k, audio_dir)
    tokenizer = tokenizer_of(model)
    batch = tokenizer(prompt, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    batch = dict(batch.to(model.device))
    masks = batch["input_ids"][0] == tokenizer.mask_token_id

    silent = model(**batch, audio_positions=torch.full((1, 1), -1, device=model.device))
    heard = model(**batch)
    for logits in (silent.logits, heard.logits):
        refuse_no_numbers(model, logits, lambda _: prompt)
    off, on = _log_probabilities(silent.logits, masks), _log_probabilities(heard.logits, masks)
    spans = heard.spans[0] if heard.spans is not None else []
    best_on, best_off = (values.topk(min(top_k, values.shape[-1])).indices.tolist() for values in (on, off))
    attributions: tuple[tuple[Attribution, ...], ...] = ()
    if spans:
        attributions = _attributions(model, batch, masks, spans, off, on, best_on, best_off)
    return Explanation(
        prompt=prompt,
        tokens=_token_heat(model, batch["input_ids"][0], silent.span_logits[0], offsets),
        threshold=model.config.detector_threshold,
        spans=tuple(_explained(span, prompt, offsets, audio_dir) for span in spans),
        injection=model.config.injection,
        min_similarity=model.config.retrieval_min_similarity,
        can_hear=heard.spans is not None,
        answers=_answers(model, on, best_on),
        answers_without_audio=_answers(model, off, best_off),
        attributions=attributions,
    )


def _check(model: AudioBertForMaskedLM, prompt: str, top_k: int, audio_dir: str | Path | None) -> None:
    if not isinstance(model, AudioBertForMaskedLM):
        raise TypeError(f"Only an AudioBertForMaskedLM hears anything to explain, got {type(model).__name__}.")
    if model.training:
        raise ValueError("In training mode dropout makes every answer another one: call `model.eval()` first.")
    if top_k < 1:
        raise ValueError(f"`top_k` must be 1 or more, got {top_k}.")
    if audio_dir is not None and not Path(audio_dir).is_dir():
        raise FileNotFoundError(f"There is no folder {audio_dir} of recordings.")
    if error := prompt_error(prompt, tokenizer_of(model), model.config.text_config.max_position_embeddings):
        raise ValueError(error)


def _log_probabilities(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Float `(masks, vocabulary)` of one row's logits `(1, sequence, vocabulary)`."""
    return logits[0, masks].float().log_softmax(-1)


def _answers(
    model: AudioBertForMaskedLM, log_probabilities: torch.Tensor, best: list[list[int]]
) -> tuple[tuple[Answer, ...], ...]:
    return tuple(
        tuple(Answer(decoded(tokenizer_of(model), token), values[token].exp().item()) for token in tokens)
        for values, tokens in zip(log_probabilities, best, strict=True)
    )


def _attributions(
    model: AudioBertForMaskedLM,
    batch: Mapping[str, torch.Tensor],
    masks: torch.Tensor,
    spans: list[AuditorySpan],
    off: torch.Tensor,
    on: torch.Tensor,
    best_on: list[list[int]],
    best_off: list[list[int]],
) -> tuple[tuple[Attribution, ...], ...]:
    with lora_switched(True):
        adapted = _log_probabilities(model.text_model(**batch).logits, masks)
    adapter = adapted - off
    # One pass for each span: the logits of a whole batch of them could be larger than memory.
    alone = [_log_probabilities(_heard_alone(model, batch, span), masks) - adapted for span in spans if span.injected]
    together = on - adapted - sum(alone)
    return tuple(
        tuple(
            Attribution(
                decoded(tokenizer_of(model), token),
                audio_off=off[mask, token].item(),
                adapter=adapter[mask, token].item(),
                spans=tuple(change[mask, token].item() for change in alone),
                together=together[mask, token].item(),
                audio_on=on[mask, token].item(),
            )
            for token in dict.fromkeys([*best_on[mask], *best_off[mask]])
        )
        for mask in range(len(on))
    )


def _heard_alone(
    model: AudioBertForMaskedLM, batch: Mapping[str, torch.Tensor], span: AuditorySpan
) -> torch.FloatTensor:
    positions = torch.tensor([[span.start]], device=model.device)
    _, embeds, _ = look_up([[span]], positions, sounds_of(model), model.config)
    return model(**batch, audio_positions=positions, audio_embeds=embeds).logits


def _token_heat(
    model: AudioBertForMaskedLM, input_ids: torch.Tensor, span_logits: torch.Tensor, offsets: list[list[int]]
) -> tuple[TokenHeat, ...]:
    probabilities = span_logits.float().softmax(-1)[:, 1].tolist()
    # An unknown word is a word like others.
    tokenizer = tokenizer_of(model)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return tuple(
        TokenHeat(start, end, probability, token in special)
        for token, probability, (start, end) in zip(input_ids.tolist(), probabilities, offsets, strict=True)
        if start < end
    )


def _explained(
    span: AuditorySpan, prompt: str, offsets: list[list[int]], audio_dir: str | Path | None
) -> ExplainedSpan:
    start, end = offsets[span.start][0], offsets[span.end - 1][1]
    recordings = tuple(_heard(recording, audio_dir) for recording in span.recordings)
    return ExplainedSpan(start, end, prompt[start:end], span.score, recordings, span.injected)


def _heard(recording: Recording, audio_dir: str | Path | None) -> HeardRecording:
    if audio_dir is None:
        return HeardRecording(recording)
    try:
        return HeardRecording(recording, view=sound_view(find_recording(audio_dir, recording.id)))
    except AudioDecodingError as error:
        # Without the path: a page is shown to others.
        return HeardRecording(recording, note=f"Its file cannot be decoded: {error.reason}.")
    except (OSError, ValueError) as error:
        return HeardRecording(recording, note=str(error))


def write_explanation(explanation: Explanation, path: str | Path) -> Path:
    """Writes an explanation as one HTML file that needs no server and loads nothing, and returns its path."""
    return write_page("explain.html", _page_data(explanation), path)


def _page_data(explanation: Explanation) -> dict[str, Any]:
    return {
        "prompt": explanation.prompt,
        "pieces": _pieces(explanation),
        "threshold": explanation.threshold,
        "injection": explanation.injection,
        "min_similarity": explanation.min_similarity,
        "can_hear": explanation.can_hear,
        "spans": [
            {
                "text": span.text,
                "score": span.score,
                "injected": span.injected,
                "recordings": [_recording_data(heard) for heard in span.recordings],
            }
            for span in explanation.spans
        ],
        "answers": [[asdict(answer) for answer in answers] for answers in explanation.answers],
        "answers_without_audio": [
            [asdict(answer) for answer in answers] for answers in explanation.answers_without_audio
        ],
        "attributions": [[asdict(attribution) for attribution in mask] for mask in explanation.attributions],
    }


def _pieces(explanation: Explanation) -> list[dict[str, Any]]:
    """The prompt cut into tokens and what stands between them: JavaScript counts characters in another way."""
    pieces: list[dict[str, Any]] = []
    end = 0
    for token in explanation.tokens:
        if token.start < end:
            # Some characters are several tokens.
            continue
        if token.start > end:
            pieces.append({"text": explanation.prompt[end : token.start]})
        numbers = [n for n, span in enumerate(explanation.spans) if span.start <= token.start < span.end]
        pieces.append(
            {
                "text": explanation.prompt[token.start : token.end],
                "probability": token.probability,
                "special": token.is_special,
                "span": numbers[0] if numbers else None,
            }
        )
        end = token.end
    return [*pieces, {"text": explanation.prompt[end:]}]


def _recording_data(heard: HeardRecording) -> dict[str, Any]:
    data = {**asdict(heard.recording), "note": heard.note, "view": None}
    if heard.view is not None:
        bins, frames = heard.view.mel.shape
        data["view"] = {
            "player": heard.view.player,
            "seconds": heard.view.seconds,
            "shortened": heard.view.shortened,
            "waveform": heard.view.waveform,
            "ticks": heard.view.ticks,
            "mel": {"bins": bins, "frames": frames, "values": base64.b64encode(heard.view.mel.tobytes()).decode()},
        }
    return data
