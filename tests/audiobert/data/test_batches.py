from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer, Trainer, TrainingArguments

from audiobert.data.auditorybench import FEATURES, load_auditorybench
from audiobert.data.batches import (
    AlignmentReport,
    AudioBertDataCollator,
    HearingCollator,
    StoredAudio,
    alignment_report,
    tokenize_auditorybench,
)

from model_fixtures import hearing_audiobert
from text_fixtures import tiny_tokenizer, write_auditorybench


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> DatasetDict:
    return load_auditorybench(write_auditorybench(tmp_path_factory.mktemp("bench")))


def one_row(sentence: str, answer: str, *spans: str, task: str = "animal") -> Dataset:
    row = {"sentence": sentence, "answer": answer, "spans": list(spans), "task": task}
    return Dataset.from_list([row], features=FEATURES)


def test_columns_of_a_row(tokenizer):
    row = tokenize_auditorybench(
        one_row("Rain has a [MASK] pitch than bark.", "lower", "bark", "x", "Rain"), tokenizer
    )[0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == (
        ["[CLS]", "rain", "has", "a", "[MASK]", "pitch", "than", "bark", ".", "[SEP]"]
    )
    ignored = [-100] * 10
    assert row["labels"] == [*ignored[:4], tokenizer.convert_tokens_to_ids("lower"), *ignored[:5]]
    assert row["span_labels"] == [-100, 1, 0, 0, -100, 0, 0, 1, 0, -100]
    assert row["audio_positions"] == [7, 1]  # in the order of the spans
    assert row["span_texts"] == ["bark", "rain"]  # as the model would read them
    assert row["answer"] == "lower" and row["spans"] == ["bark", "x", "Rain"]


def test_an_answer_of_several_pieces_gets_as_many_masks(tokenizer):
    row = tokenize_auditorybench(one_row("A [MASK] makes a hum.", "Duckling dog", "HUM"), tokenizer)[0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"][2:5]) == ["[MASK]"] * 3
    assert tokenizer.convert_ids_to_tokens(row["labels"][2:5]) == ["duck", "##ling", "dog"]
    assert row["audio_positions"] == [7] and row["input_ids"][7] == tokenizer.convert_tokens_to_ids("hum")


def test_an_answer_at_two_masks(tokenizer):
    row = tokenize_auditorybench(one_row("The [MASK] is a [MASK].", "duckling", "hum"), tokenizer)[0]
    labels = [label for label in row["labels"] if label != -100]
    assert tokenizer.convert_ids_to_tokens(labels) == ["duck", "##ling"] * 2


def test_another_mask_token():
    tokenizer = tiny_tokenizer(["<blank>"], mask_token="<blank>")
    row = tokenize_auditorybench(one_row("Meow: a [MASK].", "duckling", "meow"), tokenizer)[0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"][4:6]) == ["<blank>"] * 2
    assert row["audio_positions"] == [1] and row["span_labels"] == [-100, 1, 0, 0, -100, -100, 0, -100]


def test_sentences_are_cut_at_the_limit(tokenizer):
    data = one_row("Meow is the [MASK] of a cat and a hum.", "sound", "meow", "hum")
    row = tokenize_auditorybench(data, tokenizer, max_length=7)[0]
    assert len(row["input_ids"]) == len(row["labels"]) == len(row["span_labels"]) == 7
    assert row["audio_positions"] == [1]
    limited = tiny_tokenizer(model_max_length=7)
    assert tokenize_auditorybench(data, limited)[0]["input_ids"] == row["input_ids"]
    assert len(tokenize_auditorybench(data, tokenizer)[0]["input_ids"]) > 7


def test_no_row_is_lost_and_other_columns_stay(tokenizer, bench):
    numbered = bench["dev"].add_column("number", [5, 4, 3, 2, 1])
    tokenized = tokenize_auditorybench(DatasetDict(dev=numbered), tokenizer)["dev"]
    assert tokenized["number"][:] == [5, 4, 3, 2, 1]
    assert tokenized["sentence"][:] == bench["dev"]["sentence"][:]
    assert tokenized["span_texts"][:] == [["meow"], [], ["hum"], ["rain", "hum"], ["meow of a cat", "bark"]]


def test_no_rows_and_no_spans(tokenizer, bench):
    empty = tokenize_auditorybench(bench["dev"].select([]), tokenizer)
    without = tokenize_auditorybench(bench["dev"].select([1]), tokenizer)
    full = tokenize_auditorybench(bench["dev"], tokenizer)
    assert len(empty) == 0 and without["audio_positions"][:] == [[]]
    assert empty.features == without.features == full.features


def test_the_format_of_the_dataset_does_not_matter(tokenizer, bench):
    formatted = bench["dev"].add_column("number", [1, 2, 3, 4, 5]).with_format("torch")
    tokenized = tokenize_auditorybench(formatted, tokenizer).remove_columns("number")
    assert tokenized.to_list() == tokenize_auditorybench(bench["dev"], tokenizer).to_list()


def test_what_cannot_be_tokenized_is_refused(tokenizer, bench):
    with pytest.raises(ValueError, match="no word piece of the answer"):
        tokenize_auditorybench(one_row("[MASK]", "\u200b"), tokenizer)
    with pytest.raises(ValueError, match="no column answer"):
        tokenize_auditorybench(bench["dev"].remove_columns("answer"), tokenizer)
    with pytest.raises(ValueError, match="has no mask token"):
        tokenize_auditorybench(bench, tiny_tokenizer(mask_token=None))


def test_the_report_counts_everything(tokenizer):
    rows = [
        {"sentence": "Meow [MASK]", "answer": "cat", "spans": ["meow", "bark"], "task": "animal"},
        {"sentence": "Meow [MASK]", "answer": "cat", "spans": [" ", "bark"], "task": "animal"},
        {"sentence": "Meow [MASK]", "answer": "cat", "spans": [], "task": "animal"},
    ]
    report = alignment_report(tokenize_auditorybench(Dataset.from_list(rows, features=FEATURES), tokenizer))
    assert report == AlignmentReport(rows=3, spans=3, aligned=1, empty=1, rows_without_span=2)
    assert str(report) == "1 of 3 spans aligned (2 not, 1 empty); 2 of 3 rows without an aligned span"


words = st.sampled_from(["meow", "bark", "a", "the", "cat", "duckling", "Meow", ".", "[SEP]", "ü", "🐈"])


@settings(max_examples=50)
@given(
    before=st.lists(words, max_size=4),
    after=st.lists(words, max_size=4),
    answer=st.lists(words, min_size=1, max_size=3),
)
def test_labels_are_the_answer_whatever_surrounds_it(before, after, answer):
    tokenizer, answer = tiny_tokenizer(), " ".join(answer)
    row = tokenize_auditorybench(one_row(" ".join([*before, "[MASK]", *after]), answer, "meow"), tokenizer)[0]
    expected = tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert [label for label in row["labels"] if label != -100] == expected
    assert all(
        (label != -100) == (token == tokenizer.mask_token_id)
        for token, label in zip(row["input_ids"], row["labels"], strict=True)
    )


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_with_no_one_and_two_spans(tokenizer, bench):
    rows = tokenize_auditorybench(bench["dev"], tokenizer).to_list()
    batch = AudioBertDataCollator(tokenizer)(rows)
    names = ["input_ids", "token_type_ids", "attention_mask", "labels", "span_labels", "audio_positions"]
    assert sorted(batch) == sorted(names)
    length = max(len(row["input_ids"]) for row in rows)
    assert {name: tuple(batch[name].shape) for name in names[:5]} == dict.fromkeys(names[:5], (5, length))
    assert all(value.dtype == torch.int64 for value in batch.values())
    for name, padding in zip(names, (tokenizer.pad_token_id, 0, 0, -100, -100, -1), strict=True):
        for padded, row in zip(batch[name].tolist(), rows, strict=True):
            assert padded == row[name] + [padding] * (len(padded) - len(row[name]))
    assert batch["audio_positions"][:, 1].tolist()[:3] == [-1] * 3 and batch["audio_positions"][1, 0] == -1


def test_positions_are_there_when_no_row_has_a_span(tokenizer, bench):
    rows = tokenize_auditorybench(bench["dev"], tokenizer).select([1, 1]).to_list()
    batch = AudioBertDataCollator(tokenizer)([row | {"audio_embeds": []} for row in rows])
    assert batch["audio_positions"].tolist() == [[-1], [-1]]
    assert "audio_embeds" not in batch
    output = hearing_audiobert()(**batch)
    assert output.spans is None  # it did not look for any itself


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, lambda values: np.asarray(values).tolist()])
@pytest.mark.parametrize(("name", "shape"), [("audio_embeds", (12,)), ("audio_values", (6, 16))])
def test_audio_is_padded_like_its_positions(tokenizer, bench, make, name, shape):
    rows = tokenize_auditorybench(bench["dev"], tokenizer).to_list()
    generator = np.random.default_rng(0)
    audio = [generator.normal(size=(len(row["audio_positions"]), *shape)).astype(np.float32) for row in rows]
    batch = AudioBertDataCollator(tokenizer)(
        [row | {name: make(values)} for row, values in zip(rows, audio, strict=True)]
    )
    assert batch[name].shape == (5, 2, *shape) and batch[name].dtype == torch.float32
    for padded, values in zip(batch[name].numpy(), audio, strict=True):
        assert (padded[: len(values)] == values).all() and not padded[len(values) :].any()


def test_audio_that_does_not_fit_is_refused(tokenizer, bench):
    collate = AudioBertDataCollator(tokenizer)
    first, second, *_ = tokenize_auditorybench(bench["dev"], tokenizer).to_list()
    with pytest.raises(ValueError, match="Row 0 of the batch has 2 audio_embeds for 1 audio_positions"):
        collate([first | {"audio_embeds": np.zeros((2, 12))}])
    with pytest.raises(ValueError, match="both audio_embeds and audio_values"):
        collate([first | {"audio_embeds": np.zeros((1, 12)), "audio_values": np.zeros((1, 6, 16))}])
    with pytest.raises(ValueError, match=r"different columns: \['audio_embeds'\] are in some only"):
        collate([first | {"audio_embeds": np.zeros((1, 12))}, second])
    with pytest.raises(ValueError, match="differ in shape"):
        collate([first | {"audio_embeds": np.zeros((1, 12))}, first | {"audio_embeds": np.zeros((1, 8))}])


def spans_of(tokenizer, *spans: list[int]) -> list[dict]:
    """Rows with spans at these places."""
    words = tokenizer("meow is the sound a [MASK] makes")
    return [{**words, "audio_positions": places} for places in spans]


@pytest.fixture(scope="module")
def collate(tokenizer) -> HearingCollator:
    return HearingCollator(tokenizer, "audio_embeds", StoredAudio(torch.arange(24.0).reshape(6, 4)))


def test_a_span_without_recordings_is_masked_and_others_are_not(tokenizer, collate):
    one, two, none = spans_of(tokenizer, [1], [1, 3], [])
    heard = [one | {"recordings": [[2]]}, two | {"recordings": [[0, 1], [5]]}, none | {"recordings": []}]
    batch = collate(heard)
    assert "audio_mask" not in batch  # nothing is silent
    assert not {"recordings", "recording_weights"} & set(batch)
    assert batch["audio_embeds"][1].tolist() == [[2, 3, 4, 5], [20, 21, 22, 23]]
    silenced = [heard[0], two | {"recordings": [[0, 1], []]}, none | {"recordings": []}]
    masked = collate(silenced)
    assert masked["audio_mask"].dtype == torch.bool
    assert masked["audio_mask"].tolist() == [[True, False], [True, False], [False, False]]
    assert masked["audio_embeds"][1].tolist() == [[2, 3, 4, 5], [0, 0, 0, 0]]
    assert torch.equal(masked["audio_positions"], batch["audio_positions"])


def test_a_batch_in_which_no_span_has_recordings_goes_through_the_model(tokenizer):
    model = hearing_audiobert()
    rows = [row | {"recordings": [[]] * len(row["audio_positions"])} for row in spans_of(tokenizer, [1], [1, 3])]
    batch = HearingCollator.of(model)(rows)
    assert "audio_embeds" not in batch and not batch["audio_mask"].any()
    assert model(**batch).logits.isfinite().all()


def test_recordings_have_their_weights(tokenizer, collate):
    (row,) = spans_of(tokenizer, [1, 3])
    weights = [[0.75, 0.25], []]
    batch = collate([row | {"recordings": [[0, 1], []], "recording_weights": weights}])
    assert batch["audio_embeds"][0, 0].tolist() == [1, 2, 3, 4]
    assert batch["audio_mask"].tolist() == [[True, False]]
    with pytest.raises(ValueError, match=r"recording_weights \[\[1\.0\], .* for the recordings \[\[0, 1\]"):
        collate([row | {"recordings": [[0, 1], []], "recording_weights": [[1.0], []]}])


def test_rows_with_audio_of_their_own_stand_beside_rows_with_recordings(tokenizer, collate):
    one, two = spans_of(tokenizer, [1], [1, 3])
    own = np.array([[7, 7, 7, 7], [8, 8, 8, 8]], dtype=np.float32)
    batch = collate([one | {"recordings": [[2]]}, two | {"audio_embeds": own, "audio_mask": [False, True]}])
    assert batch["audio_embeds"][:, :, 0].tolist() == [[8, 0], [7, 8]]
    assert batch["audio_mask"].tolist() == [[True, False], [False, True]]
    # As tables of both give them, which say None of what a row has not.
    rows = one | {"recordings": [[2]]}, two | {"audio_embeds": own.tolist()}
    joined = concatenate_datasets([Dataset.from_list([row]) for row in rows]).to_list()
    assert joined[0]["audio_embeds"] is None
    batch = collate(joined)
    assert batch["audio_embeds"][:, :, 0].tolist() == [[8, 0], [7, 8]]
    assert "audio_mask" not in batch


def test_a_row_without_anything_to_hear_or_with_too_much_is_refused(tokenizer, collate):
    (row,) = spans_of(tokenizer, [1])
    with pytest.raises(ValueError, match="neither `recordings` nor audio of its own"):
        collate([row])
    with pytest.raises(ValueError, match="both `recordings` and audio of its own"):
        collate([row | {"recordings": [[1]], "audio_embeds": np.ones((1, 4))}])
    with pytest.raises(ValueError, match="Row 0 of the batch has 2 audio_mask for 1 audio_positions"):
        collate([row | {"audio_embeds": np.ones((1, 4)), "audio_mask": [True, False]}])


def test_workers_are_sent_little_more_than_the_embeddings(collate):
    assert len(pickle.dumps(StoredAudio(torch.zeros(1000, 96).half()))) < 1000 * 96 * 2 + 2000
    sent = pickle.loads(pickle.dumps(collate.audio_of))
    assert (sent([0, 1], [0.5, 0.5]) == collate.audio_of([0, 1])).all()


@pytest.mark.parametrize("injection", ["add", "none"])
def test_a_plain_trainer_trains_on_the_batches(tokenizer, bench, tmp_path, injection):
    model = hearing_audiobert(injection=injection)
    data = tokenize_auditorybench(bench["train"], tokenizer)
    if injection == "add":
        data = data.map(
            lambda row: {"audio_embeds": model.knowledge_base.audio_embeds(range(len(row["audio_positions"]))).tolist()}
        )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arguments = TrainingArguments(
        tmp_path, max_steps=2, per_device_train_batch_size=3, report_to=[], use_cpu=True, save_strategy="no"
    )
    trainer = Trainer(model, arguments, AudioBertDataCollator(tokenizer), data)
    assert np.isfinite(trainer.train().training_loss)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("lora_" in name for name in changed) and any(name.startswith("detector") for name in changed)
    assert any(name.startswith("audio_projection") for name in changed) == (injection == "add")


# --- the real data ---------------------------------------------------------------------------------------------------

# Per task, train to wiki: spans that are not empty, of these aligned, empty spans, rows without an aligned span.
REAL_ALIGNMENT = {
    "animal": [(4211, 3889, 0, 322), (593, 541, 0, 52), (1211, 1123, 0, 88), (197, 197, 0, 0)],
    "pitch": [(16620, 16443, 4, 18), (2353, 2334, 3, 2), (4773, 4731, 1, 4), (7250, 7250, 0, 0)],
}


@pytest.mark.real_data
@pytest.mark.skipif("AUDITORYBENCH_DIR" not in os.environ, reason="AUDITORYBENCH_DIR is not set to the real CSV files")
@pytest.mark.parametrize("task", REAL_ALIGNMENT)
def test_real_alignment(tokenizer, task):
    raw = load_auditorybench(os.environ["AUDITORYBENCH_DIR"], [task])
    tokenized = tokenize_auditorybench(raw, tokenizer)
    for (name, split), expected in zip(tokenized.items(), REAL_ALIGNMENT[task], strict=True):
        report = alignment_report(split)
        assert (report.spans, report.aligned, report.empty, report.rows_without_span) == expected, name
        assert report.rows == raw[name].num_rows
        for row in split.to_list():
            # Where the text is in the sentence, it is found; where it is found, it begins.
            sentence, texts = row["sentence"].casefold(), row["span_texts"]
            assert len(texts) == sum(bool(s.strip()) and s.strip().casefold() in sentence for s in row["spans"])
            starts = tokenizer.convert_ids_to_tokens([row["input_ids"][place] for place in row["audio_positions"]])
            for text, token in zip(texts, starts, strict=True):
                # The tokenizer writes "##" before a piece that begins within a word.
                assert text.removeprefix("##").replace(" ", "").startswith(token.removeprefix("##"))
