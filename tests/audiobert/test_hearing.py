"""What is heard at the spans of a row: what is retrieved, and what each control has in its place."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import FEATURES
from audiobert.data.batches import AudioBertDataCollator, tokenize_auditorybench
from audiobert.hearing import audible_rows, detect, hear, right_label

from model_fixtures import hearing_audiobert

ANIMAL = {"sentence": "meow is the sound a [MASK] makes", "answer": "cat", "spans": ["meow"], "task": "animal"}
OTHER_ANIMAL = {"sentence": "bark is the sound a [MASK] makes", "answer": "dog", "spans": ["bark"], "task": "animal"}
PITCH = {
    "sentence": "the rain has a [MASK] pitch than the hum",
    "answer": "higher",
    "spans": ["rain", "hum"],
    "task": "pitch",
}
ROWS = [ANIMAL, OTHER_ANIMAL, PITCH]


@pytest.fixture(scope="module")
def model() -> AudioBertForMaskedLM:
    return hearing_audiobert()


def tokenized(model: AudioBertForMaskedLM, rows: list[dict] = ROWS) -> list[dict]:
    return tokenize_auditorybench(Dataset.from_list(rows, features=FEATURES), model.tokenizer).to_list()


def heard(model: AudioBertForMaskedLM, hearing: str, seed: int = 0, rows: list[dict] = ROWS) -> list[list[list[int]]]:
    given = tokenized(model, rows)
    hear(model, given, hearing, seed)
    return [row["recordings"] for row in given]


@pytest.fixture
def distinct(model: AudioBertForMaskedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text finds a recording of its own."""
    found = {text: index for index, text in enumerate(("meow", "bark", "rain", "hum", "cat"))}

    def search(texts: list[str], top_k: int = 1) -> list[SimpleNamespace]:
        best = SimpleNamespace(similarity=0.5)
        return [SimpleNamespace(indices=(found[text],), recordings=[best]) for text in texts]

    monkeypatch.setattr(model.knowledge_base, "search", search)


def retrieved(model: AudioBertForMaskedLM, text: str) -> list[int]:
    return list(model.knowledge_base.search([text], model.config.retrieval_top_k)[0].indices)


def test_what_is_retrieved_is_heard(model):
    expected = [[retrieved(model, "meow")], [retrieved(model, "bark")], [retrieved(model, t) for t in ("rain", "hum")]]
    assert heard(model, "retrieved") == expected
    rows = tokenized(model)
    similarities = hear(model, rows)
    both = [model.knowledge_base.search([text])[0].recordings[0].similarity for text in ("rain", "hum")]
    assert similarities[2] == pytest.approx(sum(both) / 2)


def test_random_recordings_are_drawn_by_seed_sentence_and_place(model):
    assert heard(model, "random") == heard(model, "random")
    draws = Counter(tuple(map(tuple, heard(model, "random", seed)[2])) for seed in range(40))
    assert len(draws) > 20
    # The same row draws the same, whatever rows stand beside it.
    assert heard(model, "random", rows=[PITCH]) == heard(model, "random")[2:]


def test_another_spans_recordings_are_never_its_own(model, distinct):
    for seed in range(10):
        animals, others, pitch = heard(model, "other-span", seed)
        # Of each task there are two spans, so the other one is known.
        assert (animals, others) == ([retrieved(model, "bark")], [retrieved(model, "meow")])
        assert pitch == [retrieved(model, "hum"), retrieved(model, "rain")]
    with pytest.raises(ValueError, match="All spans of task animal are 'meow'"):
        heard(model, "other-span", rows=[ANIMAL, PITCH])


@pytest.mark.parametrize("hearing", ["random", "other-span"])
def test_a_row_that_is_read_with_either_answer_hears_the_same(model, hearing, distinct):
    """Also where the detector finds one span less with the other answer."""
    rows = tokenized(model, [PITCH, {**PITCH, "answer": "lower"}, *ROWS, {**PITCH, "sentence": "the bark [MASK] meow"}])
    (higher, lower, *_), others = rows, rows[5:]
    lower["audio_positions"], lower["span_texts"] = lower["audio_positions"][1:], ["hum"]
    for row in others:
        row["audio_positions"], row["span_texts"] = [2, 4], ["bark", "meow"]
    for seed in range(10):
        hear(model, rows, hearing, seed)
        assert higher["recordings"][1:] == lower["recordings"]


def test_the_oracle_hears_a_recording_of_the_right_label(model):
    sounds = model.knowledge_base
    label = sounds.recording(3).label
    with_label = [i for i in range(len(sounds)) if sounds.recording(i).label == label]
    rows = [{**ANIMAL, "answer": label.upper()}, {**ANIMAL, "answer": "unicorn"}]
    draws = [heard(model, "oracle", seed, rows) for seed in range(20)]
    assert {found[0] for (found, *_), _ in draws} <= set(with_label)
    # Where no recording has the label, what is retrieved is heard.
    assert {tuple(found) for _, (found,) in draws} == {tuple(retrieved(model, "meow"))}


def test_the_right_label_of_a_pitch_span_is_the_longest_in_it():
    labels = ["cat", "church bells", "bells", ""]
    row = {"task": "pitch", "span_texts": ["the bells of a church", "a catfish", "Cat!"], "answer": "higher"}
    assert [right_label(row, place, labels) for place in range(3)] == ["church bells", None, "cat"]


def test_labels_as_text_stand_before_their_spans():
    model = hearing_audiobert(injection="none")
    rows, before = tokenized(model), tokenized(model)
    detect(model, rows, 2)
    hear(model, rows, "label-text")
    for row, old in zip(rows, before, strict=True):
        assert "recordings" not in row
        lengths = {
            name: len(row[name]) for name in ("input_ids", "attention_mask", "labels", "span_labels", "detected")
        }
        assert len(set(lengths.values())) == 1, lengths
        notes = []
        for text, position in zip(row["span_texts"], row["audio_positions"], strict=True):
            label = model.knowledge_base.search([text])[0].recordings[0].label.replace("_", " ")
            note = model.tokenizer(f"({label})", add_special_tokens=False)["input_ids"]
            assert row["input_ids"][position - len(note) : position] == note
            # The span itself follows, and nothing of what was written counts.
            assert model.tokenizer.decode(row["input_ids"][position : position + 1]) == text
            assert set(row["labels"][position - len(note) : position]) == {-100}
            notes += note
        assert Counter(row["input_ids"]) == Counter(old["input_ids"]) + Counter(notes)
        masked = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        assert set(masked) == {model.tokenizer.mask_token_id}
    # What was written is read as any other row is.
    batch = AudioBertDataCollator(model.tokenizer)(rows)
    names = ("input_ids", "attention_mask", "audio_positions")
    assert torch.isfinite(model(**{name: batch[name] for name in names}).logits).all()


def test_a_row_that_would_become_too_long_gets_no_label():
    model = hearing_audiobert(injection="none")
    longest = model.config.text_config.max_position_embeddings
    sentence = "meow " + "the " * (longest - 4) + "[MASK]"
    (row,) = tokenized(model, [{**ANIMAL, "sentence": sentence}])
    before = list(row["input_ids"])
    hear(model, [row], "label-text")
    assert row["input_ids"] == before


def test_ways_to_hear_that_cannot_be_are_refused(model):
    for hearing, message in (("loud", "must be one of retrieved"), ("label-text", "must be 'none'")):
        with pytest.raises(ValueError, match=message):
            heard(model, hearing)
    silent = hearing_audiobert(injection="none")
    with pytest.raises(ValueError, match="hears no sound"):
        heard(silent, "random")
    silent.set_knowledge_base(None)
    with pytest.raises(ValueError, match="looked up in a knowledge base"):
        heard(silent, "label-text")


def test_detection_is_that_of_the_model_and_leaves_its_mode(model):
    rows = tokenized(model)
    model.train()
    detect(model, rows, batch_size=2)
    assert model.training
    model.eval()
    for row in rows:
        batch = {name: torch.tensor([row[name]]) for name in model.tokenizer.model_input_names}
        (spans,) = model(**batch).spans
        assert row["audio_positions"] == [span.start for span in spans]
        assert row["span_texts"] == [span.text for span in spans]
        assert sum(row["detected"]) == sum(span.end - span.start for span in spans)


def test_audible_rows_of_a_control_are_those_of_the_others_but_for_what_is_heard(model):
    data = Dataset.from_list(ROWS, features=FEATURES)
    given, random = audible_rows(model, data), audible_rows(model, data, hearing="random")
    assert given.column_names == random.column_names
    for name in given.column_names:
        assert (given[name][:] == random[name][:]) == (name != "recordings"), name
    silent = audible_rows(hearing_audiobert(injection="none"), data)
    assert set(given.column_names) - set(silent.column_names) == {"recordings"}
