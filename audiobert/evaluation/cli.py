"""The commands that measure models: evaluate, evaluate-choices, compare and preservation."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import Format, err, plain_errors, print_figures
from .sound_swap import cli as sound_swap_cli

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..llm.client import ChatModel
    from ..reports.tables import TableReport
    from .masked import EvaluationResult
    from .predictions import RowPrediction

app = typer.Typer()
app.add_typer(sound_swap_cli.app)


class Kind(str, Enum):
    masked = "masked"
    causal = "causal"


class Spans(str, Enum):
    detected = "detected"
    gold = "gold"


class Switch(str, Enum):
    on = "on"
    off = "off"


class Method(str, Enum):
    rank = "rank"
    rank_normalised = "rank-normalised"
    generate = "generate"


class Heard(str, Enum):
    retrieved = "retrieved"
    random = "random"
    other_span = "other-span"
    oracle = "oracle"
    label_text = "label-text"
    blind_clap = "blind-clap"


ModelArgument = Annotated[str, typer.Argument(help="A folder, a Hub id, or with --llm-url the name on the server.")]
KindOption = Annotated[
    Kind | None, typer.Option(help="Load it as a masked or a causal model; as it was saved if omitted.")
]
UrlOption = Annotated[str | None, typer.Option("--llm-url", help="Ask a model behind an OpenAI-compatible server.")]
KeyOption = Annotated[str | None, typer.Option("--llm-key", envvar="LLM_API_KEY", help="API key of that server.")]
RepliesOption = Annotated[Path, typer.Option(help="With --llm-url: folder in which the replies are kept.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Prompts at once.")]
DtypeOption = Annotated[str, typer.Option(help="Of the weights, such as bfloat16; auto is that of the checkpoint.")]
DeviceMapOption = Annotated[str | None, typer.Option(help="auto spreads the model over the devices that are there.")]
HearingOption = Annotated[
    Heard | None, typer.Option(help="AudioBERT: what is heard at a span, what it retrieves (if omitted) or a control.")
]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs, without --device-map: cpu, cuda, mps, ...")]
FormatOption = Annotated[Format, typer.Option("--format", help="What to print.")]


@app.command("evaluate")
@plain_errors
def evaluate_command(
    model: ModelArgument,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of AuditoryBench's CSV files.")] = None,
    kind: KindOption = None,
    splits: Annotated[list[str] | None, typer.Option("--split", help="Splits; all but train if omitted.")] = None,
    tasks: Annotated[list[str] | None, typer.Option("--task", help="animal or pitch; both if omitted.")] = None,
    spans: Annotated[
        Spans | None, typer.Option(help="AudioBERT: the spans it detects (if omitted), or those of the data.")
    ] = None,
    audio: Annotated[
        Switch | None, typer.Option(help="AudioBERT: on (if omitted), or off for the answers of the BERT inside.")
    ] = None,
    hearing: HearingOption = None,
    method: Annotated[
        Method | None, typer.Option(help="Causal models: how animals are answered; rank if omitted.")
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="Causal models: a prompt of your own, with {{sentence}} in it.")
    ] = None,
    llm_url: UrlOption = None,
    llm_key: KeyOption = None,
    replies: RepliesOption = Path("replies"),
    controls: Annotated[
        bool, typer.Option(help="Put text-only classifiers beside it, and AudioBERT with audio off and at random.")
    ] = True,
    save: Annotated[Path | None, typer.Option(help="Write the answer to each row as JSON Lines.")] = None,
    batch_size: BatchOption = 32,
    dtype: DtypeOption = "auto",
    device_map: DeviceMapOption = None,
    output_format: FormatOption = Format.table,
    device: DeviceOption = "cpu",
    sound_swap: Annotated[
        bool,
        typer.Option(
            "--sound-swap", help="Ask what only who hears can answer; --data is then for the linear text-only control."
        ),
    ] = False,
    questions: Annotated[
        Path | None, typer.Option(help="With --sound-swap: what make-sound-swap wrote; MODEL/sound_swap if omitted.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="With --sound-swap: a model beside it, such as one without audio."),
    ] = None,
) -> None:
    """Scores any model on AuditoryBench, with 95 % intervals and text-only controls beside it."""
    if sound_swap:
        of_benchmark = _given(split=splits, task=tasks, spans=spans, audio=audio, hearing=hearing)
        of_others = _given(kind=kind, method=method, prompt=prompt, **{"llm-url": llm_url})
        _refuse("the sound swap", {**of_benchmark, **of_others})
        load = partial(_load, kind=Kind.masked, dtype=dtype, device_map=device_map, device=device)
        where: dict[str, Any] = {"questions": questions, "data": data, "save": save, "batch_size": batch_size}
        print_figures(sound_swap_cli.ask(model, control or [], load, controls=controls, **where), output_format)
        return
    _refuse("AuditoryBench", _given(questions=questions, control=control))
    if data is None:
        raise ValueError("Name the folder of AuditoryBench with --data, or ask the sound swap with --sound-swap.")
    from ..data.auditorybench import TASKS, load_auditorybench
    from .comparison import accuracy_report
    from .predictions import save_predictions
    from .text_only import linear_control, majority_control

    dataset = load_auditorybench(data, tasks or TASKS)
    beside = {}
    if controls:
        # First, as they are quick: what is wrong with the data shows before a model has run on it for hours.
        beside["linear text-only"] = [linear_control(dataset, splits)]
        beside["majority answer"] = [majority_control(dataset, splits)]
    for_masked = _given(spans=spans, audio=audio, hearing=hearing)
    for_causal = _given(method=method, prompt=prompt)
    result: EvaluationResult | None = None
    if llm_url is not None:
        from ..llm.client import open_chat

        _refuse("a served model", {**for_masked, **for_causal, **_given(kind=kind)})
        with open_chat(llm_url, model, llm_key, replies) as chat:
            rows = _served_rows(chat, dataset, splits)
    elif (kind or _kind_of(model)) is Kind.causal:
        from .causal import predict_causal

        _refuse("a causal model", for_masked)
        loaded, tokenizer = _load(model, Kind.causal, dtype, device_map, device)
        rows = predict_causal(loaded, tokenizer, dataset, splits=splits, batch_size=batch_size, **for_causal)
    else:
        from .masked import evaluate_model

        _refuse("a masked model", for_causal)
        loaded, tokenizer = _load(model, Kind.masked, dtype, device_map, device)
        settings: dict[str, Any] = {"splits": splits, "batch_size": batch_size}
        result = evaluate_model(loaded, tokenizer, dataset, **settings, **for_masked)
        rows = result.rows
        if controls and not for_masked and loaded.config.model_type == "audiobert":
            # The same weights without what they hear; controls that were trained so are made by `reproduce`.
            beside["audio off"] = [evaluate_model(loaded, tokenizer, dataset, **settings, audio="off").rows]
            if loaded.config.injection != "none":
                randomly = evaluate_model(loaded, tokenizer, dataset, **settings, hearing="random")
                beside["random recordings"] = [randomly.rows]
    if save is not None:
        save_predictions(save, rows)

    report = accuracy_report({Path(model).name: [rows], **beside})
    if output_format is Format.json:
        print(json.dumps({**(result.to_dict() if result else {}), "accuracy": report.to_dict()}, indent=2))
        return
    if result is not None:
        print_figures(result, output_format)
    print_figures(report, output_format)


@app.command("evaluate-choices")
@plain_errors
def evaluate_choices_command(
    model: ModelArgument,
    choices: Annotated[Path, typer.Argument(help="CSV with animal, span, sentence, A, B, C, D and Answer.")],
    kind: KindOption = None,
    llm_url: UrlOption = None,
    llm_key: KeyOption = None,
    replies: RepliesOption = Path("replies"),
    batch_size: BatchOption = 32,
    dtype: DtypeOption = "auto",
    device_map: DeviceMapOption = None,
    output_format: FormatOption = Format.table,
    device: DeviceOption = "cpu",
) -> None:
    """Scores any model on prompts with four options, such as AuditoryBench's animal_train_with_choices.csv."""
    from .choices import choice_accuracy, choose_causal, choose_masked, choose_served, load_choices

    rows = load_choices(choices)
    if llm_url is not None:
        from ..llm.client import open_chat

        _refuse("a served model", _given(kind=kind))
        with open_chat(llm_url, model, llm_key, replies) as chat:
            chosen = choose_served(chat, rows)
    else:
        kind = kind or _kind_of(model)
        loaded, tokenizer = _load(model, kind, dtype, device_map, device)
        choose = choose_causal if kind is Kind.causal else choose_masked
        chosen = choose(loaded, tokenizer, rows, batch_size=batch_size)
    print_figures(choice_accuracy(rows, chosen), output_format)


@app.command("compare")
@plain_errors
def compare_command(
    audio: Annotated[list[Path], typer.Option(help="Answers that evaluate --save wrote; a file for each seed.")],
    control: Annotated[list[Path], typer.Option(help="Those of the control, such as the same training without audio.")],
    page: Annotated[
        Path | None, typer.Option(help="Write an HTML page of the rows that changed, of the first seeds.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="AuditoryBench, to tell apart what its split train gives away already.")
    ] = None,
    output_format: FormatOption = Format.table,
) -> None:
    """Tells whether the audio helped: paired bootstrap over what rows share, and McNemar by row; Holm over columns."""
    from ..data.auditorybench import load_auditorybench
    from .comparison import compare
    from .page import write_evaluation_page
    from .predictions import load_predictions
    from .strata import stratify

    with_audio, without = ([load_predictions(path) for path in paths] for paths in (audio, control))
    reports: list[TableReport] = [compare(with_audio, without)]
    if data is not None:
        reports.append(stratify({"audio": with_audio, "control": without}, load_auditorybench(data)["train"]))
    if output_format is Format.json:
        print(json.dumps({name: value for report in reports for name, value in report.to_dict().items()}, indent=2))
    else:
        for report in reports:
            print_figures(report, output_format)
    if page is not None:
        err.print(f"wrote {write_evaluation_page(with_audio[0], without[0], page)}")


@app.command("preservation")
@plain_errors
def preservation_command(
    text: Annotated[Path, typer.Argument(help="Plain English in the form of WikiText: a file, or a folder of *.txt.")],
    model: Annotated[str | None, typer.Option(help="A folder or a Hub id; the bundled checkpoint if omitted.")] = None,
    passages: Annotated[int, typer.Option(min=1, help="Passages whose every token is predicted.")] = 100,
    batch_size: BatchOption = 64,
    output_format: FormatOption = Format.table,
    device: DeviceOption = "cpu",
) -> None:
    """Tells what an AudioBERT leaves of its BERT on plain English: false alarms, same answers, pseudo-perplexity."""
    from .. import bundled
    from ..data.plain_text import read_passages, sample_passages, text_files
    from ..modeling import AudioBertForMaskedLM
    from .preservation import measure_preservation

    read = read_passages(text)
    # The types of transformers take the decorated method for one without `self`.
    audiobert = AudioBertForMaskedLM.from_pretrained(model or bundled()).to(device)  # type: ignore[arg-type]
    found = measure_preservation(audiobert, read, sample_passages(read, passages), batch_size, files=text_files(text))
    print_figures(found, output_format)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given, enums by their value."""
    return {
        name: value.value if isinstance(value, Enum) else value for name, value in options.items() if value is not None
    }


def _refuse(what: str, options: dict[str, Any]) -> None:
    """An option that would do nothing is an error, not a silent one."""
    if options:
        raise ValueError(f"--{next(iter(options))} means nothing for {what}; leave it out.")


def _kind_of(model: str) -> Kind:
    """What a checkpoint was saved as, by transformers' lists of classes; where that does not tell, masked if its family
    fills masks."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    config = AutoConfig.from_pretrained(model)
    saved_as = set(config.architectures or ())
    # XLM's one class with a head is in both lists; what it was trained for is to fill masks.
    if saved_as & set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()):
        return Kind.masked
    if saved_as & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        return Kind.causal
    return Kind.masked if type(config) in MODEL_FOR_MASKED_LM_MAPPING else Kind.causal


def _load(
    model: str, kind: Kind, dtype: str, device_map: str | None, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from ..language_models.causal import load_causal
    from ..language_models.masked import load_masked

    load = load_causal if kind is Kind.causal else load_masked
    loaded, tokenizer = load(model, dtype=dtype, device_map=device_map)
    # The types of transformers take the decorated method for one without `self`.
    return (loaded if device_map else loaded.to(device)), tokenizer  # type: ignore[arg-type]


def _served_rows(chat: ChatModel, dataset: DatasetDict, splits: list[str] | None) -> list[RowPrediction]:
    from .served import predict_served, unanswered

    rows = predict_served(chat, dataset, splits=splits)
    for split, by_task in unanswered(rows).items():
        for task, count in by_task.items():
            if count:
                err.print(f"{split}, {task}: {count:,} replies were no answer and count as wrong.")
    return rows
