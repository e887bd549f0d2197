from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from transformers import BertForMaskedLM, BertTokenizer

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import FEATURES, TASKS, load_auditorybench
from audiobert.data.batches import tokenize_auditorybench
from audiobert.evaluation import masked
from audiobert.evaluation.masked import EvaluationResult, Scores, evaluate_detector, evaluate_model
from audiobert.hearing import hear

from model_fixtures import discerning_audiobert, hearing_audiobert
from text_fixtures import tiny_bert, tiny_tokenizer, write_auditorybench


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> DatasetDict:
    return load_auditorybench(write_auditorybench(tmp_path_factory.mktemp("bench")))


@pytest.fixture(scope="module")
def model() -> AudioBertForMaskedLM:
    return hearing_audiobert()


def evaluate_quietly(model, tokenizer, dataset, **options) -> dict[str, dict[str, Scores]]:
    return evaluate_model(model, tokenizer, dataset, progress=False, **options).scores


def always(tokenizer: BertTokenizer, *favourites: str) -> BertForMaskedLM:
    """A BERT whose logits are the same everywhere: the favourites' best first, then all others'."""
    model = tiny_bert(len(tokenizer))
    with torch.no_grad():
        model.cls.predictions.transform.LayerNorm.weight.zero_()
        model.cls.predictions.transform.LayerNorm.bias.zero_()
        model.cls.predictions.bias.zero_()
        for place, word in enumerate(favourites):
            model.cls.predictions.bias[tokenizer.convert_tokens_to_ids(word)] = 10.0 - place
    return model


def test_a_known_bert_gets_the_score_it_should(tokenizer, bench):
    scores = evaluate_quietly(always(tokenizer, "cat", "higher", "lower"), tokenizer, bench)
    assert list(scores) == ["dev", "test", "wiki"]
    dev = scores["dev"]
    assert list(dev) == ["animal", "pitch", "combined"]
    # One of three animals is a cat; for pitch, "higher" beats "lower" though "cat" is more probable than both.
    assert (dev["animal"].rows, dev["animal"].correct) == (3, 1)
    assert (dev["pitch"].rows, dev["pitch"].correct) == (2, 1)
    assert dev["combined"].accuracy == pytest.approx(2 / 5)
    assert dev["combined"].span_f1 is None and dev["combined"].rows_detected is None
    assert (dev["animal"].spans, dev["animal"].unaligned_spans, dev["animal"].rows_without_span) == (3, 1, 1)


def test_one_wrong_piece_is_a_wrong_answer(tokenizer):
    row = {"sentence": "A [MASK] hums.", "answer": "duckling", "spans": ["hum"], "task": "animal"}
    data = Dataset.from_list([row, row | {"answer": "duck"}], features=FEATURES)
    assert evaluate_quietly(always(tokenizer, "duck"), tokenizer, data)["data"]["animal"].correct == 1
    unknown = data.select([0]).map(lambda _: {"answer": "🐈"})
    assert evaluate_quietly(always(tokenizer, "[UNK]"), tokenizer, unknown)["data"]["animal"].correct == 0


def test_against_a_loop_over_rows(tokenizer, bench, model):
    """End to end: what the model answers by itself, row by row, is what is counted."""
    correct = detected = 0
    for row in tokenize_auditorybench(bench["dev"], tokenizer):
        with torch.no_grad():
            output = model(torch.tensor([row["input_ids"]]))
        detected += bool(output.spans[0])
        masks = [index for index, label in enumerate(row["labels"]) if label != -100]
        at_masks = output.logits[0, masks]
        if row["task"] == "pitch":
            other = {"higher": "lower", "lower": "higher"}[row["answer"]]
            right, wrong = at_masks[0, tokenizer.convert_tokens_to_ids([row["answer"], other])]
            correct += bool(right > wrong)
        else:
            correct += at_masks.argmax(-1).tolist() == [row["labels"][index] for index in masks]
    combined = evaluate_quietly(model, tokenizer, bench)["dev"]["combined"]
    assert (combined.correct, combined.rows_detected) == (correct, detected)
    assert 0 < combined.span_f1 <= 1 and 0 < combined.span_exact_f1 <= 1


@pytest.mark.parametrize("options", [{}, {"spans": "gold"}, {"audio": "off"}])
def test_the_batch_size_changes_nothing(tokenizer, bench, model, options):
    once = evaluate_quietly(model, tokenizer, bench, batch_size=1, **options)
    assert evaluate_quietly(model, tokenizer, bench, batch_size=4, **options) == once


class Spy:
    """Notes what a model is called with, and what it answers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.calls: list[tuple[dict, object]] = []
        self.handle = model.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, _module, _args, kwargs, output) -> None:
        assert not torch.is_grad_enabled()
        self.calls.append((kwargs, output))

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, *_exception) -> None:
        self.handle.remove()


def test_gold_spans_are_looked_up_as_they_are_written(tokenizer, bench, monkeypatch):
    model = hearing_audiobert(retrieval_top_k=2)
    knowledge_base, found = model.knowledge_base, {"meow": (0, 1), "hum": (2, 3), "rain": (4, 5), "bark": (6, 7)}
    found["meow of a cat"] = (8, 9)

    def search(texts: list[str], top_k: int) -> list[SimpleNamespace]:
        best = SimpleNamespace(similarity=0.5, found_by="audio")
        return [SimpleNamespace(indices=found[text][:top_k], recordings=[best]) for text in texts]

    monkeypatch.setattr(knowledge_base, "search", search)
    with Spy(model) as spy:
        scores = evaluate_quietly(model, tokenizer, bench, splits=["dev"], spans="gold", batch_size=5)
    (looking, _), (inputs, output) = spy.calls
    # First it looks for spans, which is scored, then it is told where they are.
    assert (looking["audio_positions"] == -1).all()
    heard = {}
    for row, places in enumerate(inputs["audio_positions"].tolist()):
        tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][row])
        for number, place in enumerate(places):
            embed = inputs["audio_embeds"][row, number]
            if place < 0:
                assert not embed.any()
            else:
                span = " ".join(tokens[place : place + 4])
                heard[span if span in found else tokens[place], row] = embed
    assert len(heard) == 6 and {span for span, _ in heard} == set(found)
    for (span, _), embed in heard.items():
        assert torch.equal(embed, knowledge_base.audio_embeds(found[span]).mean(0))
    assert output.spans is None
    # The detector is scored in this mode too, as it is in the other.
    monkeypatch.undo()
    detected = evaluate_quietly(model, tokenizer, bench, splits=["dev"])["dev"]["combined"]
    assert scores["dev"]["combined"].rows_detected == detected.rows_detected > 0
    assert scores["dev"]["combined"].span_f1 == detected.span_f1


def test_the_answers_are_those_of_the_model_in_use(tokenizer, bench, model):
    result = evaluate_model(model, tokenizer, bench["dev"], progress=False, batch_size=2)
    heard = 0
    for row in result.rows[:3]:
        masks = tokenizer.mask_token + " [MASK]" * (len(tokenizer.tokenize(row.answer)) - 1)
        batch = tokenizer(row.sentence.replace("[MASK]", masks), return_tensors="pt")
        with torch.no_grad():
            output = model(**batch)
        logits = output.logits[batch["input_ids"] == tokenizer.mask_token_id]
        logits[:, tokenizer.unk_token_id] = -torch.inf
        assert tokenizer.decode(logits.argmax(-1)) == row.predicted
        found = [span.recordings[0].similarity for span in output.spans[0]]
        heard += len(found)
        expected = sum(found) / len(found) if found else None
        assert result.similarities.get((row.split, row.row)) == expected
    assert heard and "similarities" not in result.to_dict()


def test_a_control_hears_something_else(tokenizer, bench, model):
    def heard(**options) -> torch.Tensor:
        with Spy(model) as spy:
            evaluate_quietly(model, tokenizer, bench["dev"], spans="gold", batch_size=9, **options)
        inputs = spy.calls[-1][0]
        return inputs["audio_embeds"][inputs["audio_positions"] >= 0]

    retrieved, random, again, other = (
        heard(**options)
        for options in ({}, {"hearing": "random"}, {"hearing": "random"}, {"hearing": "random", "seed": 1})
    )
    assert retrieved.shape == random.shape
    assert not torch.equal(retrieved, random) and torch.equal(random, again) and not torch.equal(random, other)


def test_the_detector_alone_has_the_scores_that_it_has_in_use(tokenizer, bench, model):
    alone = evaluate_detector(model, bench, batch_size=2)
    for split, by_task in evaluate_quietly(model, tokenizer, bench).items():
        assert list(alone[split]) == list(by_task)
        for task, scores in by_task.items():
            assert alone[split][task] == {name: getattr(scores, name) for name in alone[split][task]}


def test_audio_off_is_the_bert_inside(tokenizer, bench, model):
    plain = BertForMaskedLM(model.config.text_config).eval()
    weights = model.text_model.state_dict()
    plain.load_state_dict({name: weights.get(name, weights.get(_adapted(name))) for name in plain.state_dict()})
    with Spy(model) as spy:
        off = evaluate_quietly(model, tokenizer, bench, audio="off", batch_size=5)
    bert = evaluate_quietly(plain, tokenizer, bench, batch_size=5)
    for split, by_task in off.items():
        for task, scores in by_task.items():
            assert scores.correct == bert[split][task].correct
            assert scores.span_f1 is not None
    # First the detector reads all rows of a split, five at a time, and there are five.
    inputs, output = spy.calls[1]
    expected = plain(**{name: inputs[name] for name in tokenizer.model_input_names})
    # The logits over the vocabulary are computed where a row of the batch has a mask.
    masked = (inputs["input_ids"] == tokenizer.mask_token_id).any(0)
    assert torch.allclose(output.logits, expected.logits[:, masked], atol=1e-5)


def _adapted(name: str) -> str:
    head, tail = name.rsplit(".", 1)
    return f"{head}.base_layer.{tail}"


def test_the_detector_is_scored_by_its_threshold(tokenizer, bench, model):
    mute = hearing_audiobert(detector_threshold=0.999999)
    for options in ({}, {"audio": "off"}):
        scores = evaluate_quietly(mute, tokenizer, bench, **options)["dev"]["combined"]
        assert scores.rows_detected == 0 and scores.span_f1 == 0
    assert evaluate_quietly(model, tokenizer, bench)["dev"]["combined"].rows_detected > 0


def test_the_detector_has_the_same_scores_in_all_modes(tokenizer, bench):
    # Fires on every token, the mask included, which belongs to no span all the same.
    eager = hearing_audiobert(detector_threshold=0.0)
    results = [
        evaluate_quietly(eager, tokenizer, bench, **options)["dev"]["combined"]
        for options in ({}, {"spans": "gold"}, {"audio": "off"})
    ]
    for name in ("span_precision", "span_recall", "span_f1", "span_exact_f1", "rows_detected"):
        assert len({getattr(scores, name) for scores in results}) == 1, name
    assert results[0].span_recall == 1


def test_text_only_control_needs_no_knowledge_base(tokenizer, bench):
    control = hearing_audiobert(injection="none")
    control.set_knowledge_base(None)
    for spans in ("gold", "detected"):
        with Spy(control) as spy:
            evaluate_quietly(control, tokenizer, bench, splits=["dev"], spans=spans)
        assert "audio_embeds" not in spy.calls[0][0]


def test_modes_of_the_parts_are_restored_even_after_an_error(tokenizer, bench):
    model = hearing_audiobert()
    model.train()
    model.text_model.bert.eval()
    before = [module.training for module in model.modules()]
    evaluate_quietly(model, tokenizer, bench)
    assert [module.training for module in model.modules()] == before
    model.knowledge_base.search = None
    with pytest.raises(TypeError):
        evaluate_quietly(model, tokenizer, bench)
    assert [module.training for module in model.modules()] == before


def test_splits_are_chosen(tokenizer, bench):
    model = tiny_bert(len(tokenizer))
    assert list(evaluate_quietly(model, tokenizer, bench, splits=["wiki", "train"])) == ["wiki", "train"]
    animals = bench["dev"].select(range(3))
    assert list(evaluate_quietly(model, tokenizer, animals)["data"]) == ["animal"]
    for splits in (["validation"], [], "dev"):
        with pytest.raises(ValueError, match="must be a list of names out of train, dev, test, wiki"):
            evaluate_quietly(model, tokenizer, bench, splits=splits)
    with pytest.raises(ValueError, match="a single Dataset was given"):
        evaluate_quietly(model, tokenizer, animals, splits=["dev"])
    with pytest.raises(ValueError, match="has no column task"):
        evaluate_quietly(model, tokenizer, animals.remove_columns("task"))


def test_modes_that_cannot_be_are_refused(tokenizer, bench, model):
    bert = tiny_bert(len(tokenizer))
    for options, message in (
        ({"spans": "all"}, "`spans` must be 'detected' or 'gold', got 'all'"),
        ({"audio": None}, "`audio` must be 'on' or 'off', got None"),
        ({"spans": "gold", "audio": "off"}, "nothing is heard: leave `spans`"),
        ({"hearing": "random", "audio": "off"}, "nothing is heard: leave `spans`"),
        ({"hearing": "music"}, "`hearing` must be one of retrieved, random"),
        ({"hearing": "label-text"}, "must be 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_quietly(model, tokenizer, bench, **options)
    with pytest.raises(ValueError, match="BertForMaskedLM hears nothing"):
        evaluate_quietly(bert, tokenizer, bench, spans="gold")
    with pytest.raises(ValueError, match="BertForMaskedLM hears nothing"):
        evaluate_quietly(bert, tokenizer, bench, hearing="random")
    deaf = hearing_audiobert()
    deaf.set_knowledge_base(None)
    with pytest.raises(ValueError, match="looked up in a knowledge base"):
        evaluate_quietly(deaf, tokenizer, bench)


def test_long_sentences_are_cut_at_the_limit_of_the_model(tokenizer):
    rows = [
        {"sentence": "meow " * 100 + "[MASK]", "answer": "cat", "spans": ["meow"], "task": "animal"},
        {"sentence": "[MASK]" + " meow" * 100, "answer": "cat", "spans": ["meow"], "task": "animal"},
    ]
    data = Dataset.from_list(rows, features=FEATURES)
    # A mask that was cut off is an answer that was not given.
    assert evaluate_quietly(always(tokenizer, "cat"), tokenizer, data)["data"]["animal"].correct == 1


def test_rows_are_what_was_answered_and_sum_up_to_the_scores(tokenizer, bench, model):
    for options in ({}, {"spans": "gold"}, {"audio": "off"}):
        result = evaluate_model(model, tokenizer, bench, progress=False, batch_size=2, **options)
        assert [(row.split, row.row) for row in result.rows] == [
            (s, n) for s in ("dev", "test", "wiki") for n in range(5)
        ]
        for split, by_task in result.scores.items():
            for task in ("animal", "pitch"):
                rows = [row for row in result.rows if (row.split, row.task) == (split, task)]
                assert (len(rows), sum(row.correct for row in rows)) == (by_task[task].rows, by_task[task].correct)
        for row, given in zip(result.rows, bench["dev"].to_list() * 3, strict=True):
            assert (row.sentence, row.answer, list(row.spans)) == (given["sentence"], given["answer"], given["spans"])
            assert row.task == given["task"] and isinstance(row.correct, bool)
            if row.task == "pitch":
                assert row.correct == (row.predicted == row.answer) and row.predicted in ("higher", "lower")
    cat = evaluate_model(always(tokenizer, "cat", "lower", "higher"), tokenizer, bench["dev"], progress=False)
    assert [row.predicted for row in cat.rows] == ["cat", "cat", "cat cat", "lower", "lower"]
    assert "rows" not in cat.to_dict() and "sentence" not in cat.to_json()


def with_split_higher() -> tuple[AudioBertForMaskedLM, BertTokenizer]:
    words = [token for token in tiny_tokenizer(["high", "##er"]).get_vocab() if token != "higher"]
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(words)})
    hearing = hearing_audiobert()
    assert len(tokenizer) == len(tiny_tokenizer()) + 1
    hearing.resize_token_embeddings(len(tokenizer))
    hearing.tokenizer = tokenizer
    return hearing, tokenizer


def test_a_split_higher_with_audio(bench, model):
    """Where it takes several masks, each answer's sentence is heard by itself."""
    hearing, tokenizer = with_split_higher()
    with Spy(hearing) as spy:
        result = evaluate_model(hearing, tokenizer, bench["dev"], spans="gold", progress=False, batch_size=9)
    first, second = (inputs for inputs, _ in spy.calls[1:])
    assert [len(inputs["input_ids"]) for inputs, _ in spy.calls] == [7, 5, 2]
    masks = [(inputs["input_ids"] == tokenizer.mask_token_id).sum(1).tolist() for inputs in (first, second)]
    of_pitch = (first["audio_positions"] >= 0).all(1).nonzero()[:, 0].tolist()
    assert sorted(masks[0][row] for row in of_pitch) == sorted(masks[1]) == [1, 2]
    assert (second["audio_positions"] >= 0).all() and second["audio_embeds"].abs().sum() > 0
    assert result.scores["data"]["pitch"].correct == sum(row.correct for row in result.rows[3:])


@pytest.mark.parametrize("hearing", ["random", "other-span"])
def test_a_control_hears_the_same_in_a_row_with_either_answer(bench, hearing, monkeypatch):
    model, tokenizer = with_split_higher()
    listened = []

    def note(model, given, *settings):
        similarities = hear(model, given, *settings)
        listened.append({(row["sentence"], row["answer"]): row["recordings"] for row in given})
        return similarities

    monkeypatch.setattr(masked, "hear", note)
    pitch = bench["dev"].filter(lambda row: row["task"] == "pitch")
    evaluate_quietly(model, tokenizer, pitch, hearing=hearing, spans="gold")
    # Both are drawn from the same sounds, as they are drawn in one go.
    (heard,) = listened
    assert len(heard) == 2 * len(pitch)
    for sentence in pitch["sentence"]:
        assert heard[sentence, "higher"] == heard[sentence, "lower"]


@pytest.fixture
def result() -> EvaluationResult:
    animal = Scores(1211, 444, 444 / 1211, 1123, 0.9, 0.8, 0.85, 0.7, 0.8, 1100, 1211, 88, 88)
    none = ("span_precision", "span_recall", "span_f1", "span_exact_f1", "span_f1_all_rows", "rows_detected")
    bert = replace(animal, **dict.fromkeys(none))
    return EvaluationResult({"test": {"animal": animal}, "wiki": {"animal": bert}}, "detected", "on")


def test_results_as_json_and_markdown(result):
    assert json.loads(result.to_json()) == result.to_dict()
    assert result.to_dict()["scores"]["test"]["animal"]["correct"] == 444
    lines = result.to_markdown(titled=True).splitlines()
    assert lines[0] == "AuditoryBench, audio on, detected spans:"
    assert lines[4:] == [
        "| test | animal | 1,211 | 36.66 | 90.00 | 80.00 | 85.00 | 70.00 | 1,123 | 1,100 | 88 |",
        "| wiki | animal | 1,211 | 36.66 | - | - | - | - | 1,123 | - | 88 |",
    ]
    assert len({line.count("|") for line in lines[2:]}) == 1


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, "AuditoryBench, AudioBertForMaskedLM, audio on, detected spans"),
        ({"spans": "gold"}, "AuditoryBench, AudioBertForMaskedLM, audio on, gold spans"),
        ({"hearing": "random"}, "AuditoryBench, AudioBertForMaskedLM, audio on, random heard, detected spans"),
        ({"audio": "off"}, "AuditoryBench, AudioBertForMaskedLM, audio off, detected spans"),
    ],
)
def test_a_table_says_what_was_evaluated(options, title, tokenizer, bench, model):
    found = evaluate_model(model, tokenizer, bench["dev"], progress=False, **options)
    assert found.to_markdown(titled=True).splitlines()[0] == f"{title}:"


def test_a_table_says_how_spans_were_found(tokenizer, bench):
    model = discerning_audiobert()
    found = evaluate_model(model, tokenizer, bench, splits=["dev"], spans="gold", progress=False)
    assert found.to_dict()["found"]["dev"].keys() == set(TASKS)
    assert all(set(ways) == {"by sound"} for ways in found.found["dev"].values())
    total = sum(found.found["dev"][task]["by sound"] for task in TASKS)
    assert found.to_markdown().endswith(f"\n\nSpans: {total} found by sound.")

    model.config.retrieval_min_similarity = 1.0
    found = evaluate_model(model, tokenizer, bench, splits=["dev"], spans="gold", progress=False)
    assert found.to_markdown().endswith(f"\n\nSpans: {total} too far to be heard.")

    model.config.retrieval_min_similarity = None
    model.set_knowledge_base(model.knowledge_base.with_retrieval("label"))
    found = evaluate_model(model, tokenizer, bench, splits=["dev"], spans="gold", progress=False)
    assert found.to_markdown().endswith(f"\n\nSpans: {total} found by name.")
    # Of a control it would say nothing of what was heard.
    for options in ({"hearing": "random"}, {"audio": "off"}):
        assert evaluate_model(model, tokenizer, bench["dev"], progress=False, **options).found == {}


def test_a_table_says_of_a_plain_model_that_it_has_no_audio(tokenizer, bench):
    found = evaluate_model(tiny_bert(len(tokenizer)), tokenizer, bench["dev"], progress=False)
    assert found.to_markdown(titled=True).splitlines()[0] == "AuditoryBench, BertForMaskedLM, no audio:"
    assert {found.to_dict()[name] for name in ("audio", "spans", "hearing")} == {"none"}
    control = hearing_audiobert(injection="none")
    for hearing, title in (("retrieved", "no audio, "), ("label-text", "no audio, label-text heard, ")):
        found = evaluate_model(control, tokenizer, bench["dev"], hearing=hearing, progress=False)
        expected = f"AuditoryBench, AudioBertForMaskedLM, {title}detected spans:"
        assert found.to_markdown(titled=True).splitlines()[0] == expected


def test_results_as_a_table(result):
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(result.to_table())
    text = console.export_text()
    for cell in ("exact span F1", "36.66", "1,100", "wiki"):
        assert cell in text


def test_a_progress_bar_goes_to_stderr(tokenizer, bench, capsys):
    model = tiny_bert(len(tokenizer))
    evaluate_model(model, tokenizer, bench, splits=["dev"], progress=True)
    captured = capsys.readouterr()
    assert "dev" in captured.err and not captured.out
