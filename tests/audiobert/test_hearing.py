"""What is heard at the spans of a row: what is retrieved, and what each control has in its place."""

from collections import Counter
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from datasets import Dataset

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import FEATURES
from audiobert.data.batches import AudioBertDataCollator, HearingCollator, tokenize_auditorybench
from audiobert.evaluation.cli import Heard
from audiobert.evaluation.masked import evaluate_model
from audiobert.hearing import Hearing, audible_rows, blind_embeddings, detect, hear, right_label
from audiobert.modeling.injection_audiobert import standardized

from audio_fixtures import tiny_knowledge_base
from model_fixtures import ScatteredQueries, discerning_audiobert, hearing_audiobert

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


# --- as the model itself hears ---------------------------------------------------------------------------------------

# The best recordings of the spans of ROWS have the similarities .538 (meow), .797 (bark), .600 (rain) and .887 (hum).
TOO_FAR = 0.7
# Those of which the model's detector finds the spans.
DETECTED = [ANIMAL, PITCH]
OPTIONS = [
    {},
    {"retrieval_top_k": 3},
    {"retrieval_top_k": 3, "retrieval_temperature": 0.1},
    {"retrieval_min_similarity": TOO_FAR},
    {"retrieval_min_similarity": 1.0},
    {"standardize_audio": True},
    {
        "retrieval_top_k": 3,
        "retrieval_temperature": 0.1,
        "retrieval_min_similarity": TOO_FAR,
        "standardize_audio": True,
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "the paper's")
def test_training_and_evaluation_hear_what_a_prompt_gets(options):
    model = discerning_audiobert(**options)
    data = Dataset.from_list(DETECTED, features=FEATURES)
    rows = audible_rows(model, data).to_list()
    batch = HearingCollator.of(model)(rows)
    names = model.tokenizer.model_input_names
    with torch.no_grad():
        prompted = model(**{name: batch[name] for name in names})
        trained = model(**{name: value for name, value in batch.items() if name not in ("labels", "span_labels")})
    found = [[span.start for span in spans] for spans in prompted.spans]
    assert found == [row["audio_positions"] for row in rows]
    assert torch.equal(trained.logits, prompted.logits)
    injected = [[span.injected for span in spans] for spans in prompted.spans]
    assert injected == [[bool(recordings) for recordings in row["recordings"]] for row in rows]
    assert ("audio_mask" in batch) == ("retrieval_min_similarity" in options)

    evaluated = []

    def keep(_module, _args, given, output):
        if (given["audio_positions"] >= 0).any():
            evaluated.append((given["input_ids"], output.logits))

    handle = model.register_forward_hook(keep, with_kwargs=True)
    try:
        evaluate_model(model, model.tokenizer, data, progress=False)
    finally:
        handle.remove()
    by_ids = {tuple(ids.tolist()): row for row, ids in enumerate(batch["input_ids"])}
    compared = 0
    for ids, logits in evaluated:
        columns = (ids == model.tokenizer.mask_token_id).any(0)
        for row, answered in zip(ids.tolist(), logits, strict=True):
            number = next(n for key, n in by_ids.items() if list(key[: len(row)]) == row)
            expected = prompted.logits[number, : len(row)][columns]
            assert torch.allclose(answered, expected, atol=1e-3)
            compared += 1
    assert compared == len(DETECTED)


@pytest.mark.parametrize("hearing", ["retrieved", "random", "other-span", "oracle"])
def test_every_way_to_hear_is_silent_where_the_best_recording_is_too_far_and_weighs_by_rank(hearing):
    model = discerning_audiobert(
        retrieval_top_k=3, retrieval_temperature=0.1, retrieval_min_similarity=TOO_FAR, injection="replace"
    )
    rows = tokenized(model, [ANIMAL, {**OTHER_ANIMAL, "answer": model.knowledge_base.recording(0).label}, PITCH])
    hear(model, rows, hearing)
    assert [[len(found) for found in row["recordings"]] for row in rows] == [[0], [3], [0, 3]]
    for text, (recordings, weights) in {
        "bark": (rows[1]["recordings"][0], rows[1]["recording_weights"][0]),
        "hum": (rows[2]["recordings"][1], rows[2]["recording_weights"][1]),
    }.items():
        (own,) = model.knowledge_base.search([text], 3)
        similarities = torch.tensor([recording.similarity for recording in own.recordings])
        assert weights == pytest.approx((similarities / 0.1).softmax(0).tolist(), abs=1e-5)
        assert (tuple(recordings) == own.indices) == (hearing == "retrieved" or (hearing, text) == ("oracle", "hum"))
    assert rows[0]["recording_weights"] == [[]]


def test_where_fewer_recordings_bear_the_label_the_first_weights_are_shared_out():
    model = discerning_audiobert(retrieval_top_k=8, retrieval_temperature=0.1)
    label = model.knowledge_base.recording(3).label
    (row,) = tokenized(model, [{**ANIMAL, "answer": label}])
    hear(model, [row], "oracle")
    (recordings,), (weights,) = row["recordings"], row["recording_weights"]
    (own,) = model.knowledge_base.search(["meow"], 8)
    first = torch.tensor([recording.similarity for recording in own.recordings[:4]])
    assert len(recordings) == 4  # of twelve recordings of three labels
    assert weights == pytest.approx((first / 0.1).softmax(0).tolist(), abs=1e-5)


def test_no_label_is_written_where_the_best_recording_is_too_far():
    model = discerning_audiobert(injection="none", retrieval_min_similarity=TOO_FAR)
    rows, before = tokenized(model), tokenized(model)
    hear(model, rows, "label-text")
    longer = [len(row["input_ids"]) > len(old["input_ids"]) for row, old in zip(rows, before, strict=True)]
    assert longer == [False, True, True]
    note = model.tokenizer.decode(rows[2]["input_ids"][: rows[2]["audio_positions"][1]])
    assert note.count("(") == 1 and note.rindex("(") > note.index("rain")


# --- blind CLAP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("clap_width", [8, 20])  # less and more than the audio embeddings have
def test_blind_clap_hears_the_text_tower_at_the_length_of_sounds(standardize, clap_width):
    model = hearing_audiobert(standardize_audio=standardize)
    wide = tiny_knowledge_base(width=clap_width, audio_hidden_size=12)
    wide.query_encoder = ScatteredQueries(clap_width)
    model.set_knowledge_base(wide)
    queries = ["meow sound", "hum sound", "bark sound"]
    embeds = torch.from_numpy(blind_embeddings(model, queries))
    assert torch.equal(embeds, torch.from_numpy(blind_embeddings(model, queries)))
    stored = wide.audio_embeds(range(len(wide)))
    if standardize:
        embeds, stored = standardized(embeds, wide), standardized(stored, wide)
    assert torch.allclose(embeds.norm(dim=1), stored.norm(dim=1).mean().expand(3), rtol=1e-3)
    if clap_width == 8:
        # The angles between texts are those that CLAP sees.
        texts = torch.cat([torch.from_numpy(wide.query_encoder(query)) for query in queries])
        unit = torch.nn.functional.normalize(embeds)
        assert torch.allclose(unit @ unit.T, texts @ texts.T, atol=1e-4)


def test_blind_clap_is_heard_in_training_and_evaluation_and_is_silent_where_recordings_are():
    model = discerning_audiobert(retrieval_min_similarity=TOO_FAR)
    data = Dataset.from_list(ROWS, features=FEATURES)
    rows = audible_rows(model, data, hearing="blind-clap")
    assert {"audio_embeds", "audio_mask"} <= set(rows.column_names) and "recordings" not in rows.column_names
    assert rows["audio_mask"][:] == [[False], [True], [False, True]]
    batch = HearingCollator.of(model)(rows.to_list())
    (expected,) = blind_embeddings(model, ["hum sound"])
    assert torch.allclose(batch["audio_embeds"][2, 1], torch.from_numpy(expected), atol=1e-5)
    assert batch["audio_mask"].tolist() == [[False, False], [True, False], [False, True]]

    heard = []
    handle = model.audio_projection.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    try:
        detected = Dataset.from_list(DETECTED, features=FEATURES)
        result = evaluate_model(model, model.tokenizer, detected, hearing="blind-clap", progress=False)
    finally:
        handle.remove()
    assert result.hearing == "blind-clap"
    assert torch.allclose(torch.cat(heard), torch.from_numpy(expected), atol=1e-5)


def test_the_commands_offer_every_way_to_hear():
    assert [choice.value for choice in Heard] == list(get_args(Hearing))


def test_a_model_without_a_threshold_hears_blind_clap_at_every_span(model):
    rows = tokenized(model)
    similarities = hear(model, rows, "blind-clap")
    assert similarities == hear(model, tokenized(model))
    assert all(set(row) & {"recordings", "audio_mask"} == set() for row in rows)
    assert [len(row["audio_embeds"]) for row in rows] == [1, 1, 2]
    with pytest.raises(ValueError, match="hears no sound"):
        hear(hearing_audiobert(injection="none"), tokenized(model), "blind-clap")
