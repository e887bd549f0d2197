"""A benchmark on disk: what `datasets` and `load_auditorybench` read, and what the card says."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from datasets import Features, Value, get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from audiobert.benchmark.dataset import publication
from audiobert.benchmark.dataset.leakage import leakage
from audiobert.benchmark.dataset.publication import read_dataset, write_dataset
from audiobert.benchmark.dataset.statistics import benchmark_statistics
from audiobert.data.auditorybench import SPLITS, load_auditorybench

# Text that CSV readers and writers like to change.
ODD = [
    *("NA", "null", "", " ", "1", '17" cymbal', '""', "a,b", "a\nb", "a\rb", "a\r\nb", "=1+1", "'"),
    *("größer", "猫", "\ufeff", " meow ", "a|b", "<b>", "{{ title }}", "\\"),
]


def animal(sentence="A [MASK] meows.", answer="cat", span="meows", recordings=("r1",)):
    return {
        "task": "animal",
        "sentence": sentence,
        "answer": answer,
        "spans": [span],
        "recordings": list(recordings),
        "category": "animal/cat",
    }


def pitch(first="rain", second="hum", answer="higher", recordings=("r2", "r3")):
    sentence = f"The {first} has a [MASK] pitch than the {second}."
    spans = [first, second]
    return {"task": "pitch", "sentence": sentence, "answer": answer, "spans": spans, "recordings": list(recordings)}


def benchmark() -> dict[str, list[dict]]:
    return {
        "train": [animal(f"A [MASK] says {word}.", span=word) for word in ODD] + [pitch(), pitch("NA", "a\r\nb")],
        "dev": [pitch(answer="lower", recordings=["r4", "r5"]), animal(recordings=["r1", "r6"])],
        "test": [animal('"Meow, [MASK]"\nsaid it', "lion, or\ncat", 'M"eow')] + [pitch(word, "x") for word in ODD],
        "wiki": [animal(recordings=[]), pitch(recordings=[])],
    }


PROVENANCE = {
    "metadata": "some/recordings",
    "model": "some-org/some-model",
    "sampling": {"categories": {"temperature": 0.6, "top_p": 0.9, "stop": ["\n"]}},
    "templates": {"categorise.txt": "ab" * 32},
    "stages": [
        {"stage": "records", "read": 1200, "kept": 1100, "refused": {"no text": 30, "no audio": 70}},
        {"stage": "pairs", "read": 90, "kept": 90, "refused": {}},
    ],
    "licenses": {"CC0": 20, "": 7, "CC | BY\n<3": 30},
    "sources": {"Freesound": 57},
    "reviewed": False,
    "split": "grouped",
    "seed": 17,
    "wikipedia": {"animal": {"source": "List of animal sounds", "date": "2026-11-23", "revision": None}},
}


def published(folder: Path, splits=None, **changes) -> Path:
    write_dataset(folder, splits or benchmark(), {**PROVENANCE, **changes})
    return folder


def without(row, *keys):
    return {key: value for key, value in row.items() if key not in keys}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def of_task(splits, task):
    return {split: [without(row, "category") for row in rows if row["task"] == task] for split, rows in splits.items()}


@pytest.mark.parametrize("task", ["animal", "pitch"])
def test_load_dataset_reads_each_configuration_of_the_card(tmp_path, task):
    folder = published(tmp_path / "out")
    assert get_dataset_config_names(str(folder)) == ["animal", "pitch"]
    loaded = load_dataset(str(folder), task, cache_dir=str(tmp_path / "cache"))
    assert tuple(loaded) == SPLITS
    text = Value("string")
    assert loaded["train"].features == Features(
        {"sentence": text, "answer": text, "spans": [text], "task": text, "recordings": [text]}
    )
    assert {split: part.to_list() for split, part in loaded.items()} == of_task(benchmark(), task)


def test_load_auditorybench_reads_the_csv_files(tmp_path):
    loaded = load_auditorybench(published(tmp_path))
    for split, rows in benchmark().items():
        expected = [row for task in ("animal", "pitch") for row in rows if row["task"] == task]
        assert loaded[split].to_list() == [without(row, "category", "recordings") for row in expected]
    assert (tmp_path / "animal_dev.csv").read_bytes().startswith(b"animal,description,sentence\r\n")
    assert (tmp_path / "pitch_dev.csv").read_bytes().startswith(b"sentence,answer,span1,span2\r\n")


def test_read_dataset_knows_the_recordings(tmp_path):
    read = read_dataset(published(tmp_path))
    for task in ("animal", "pitch"):
        assert of_task(read, task) == of_task(benchmark(), task)
    assert read["dev"][0]["recordings"] == ["r1", "r6"]


def test_empty_splits_are_empty_in_csv_and_no_part_of_the_configurations(tmp_path):
    folder = published(tmp_path / "out")
    published(folder, {**benchmark(), "dev": [animal()], "wiki": [animal()]})
    loaded = load_dataset(str(folder), "pitch", cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in loaded.items()} == {"train": 2, "test": len(ODD)}
    assert not (folder / "data" / "pitch" / "dev.parquet").exists()
    counts = [len(ODD) + 2, 1, len(ODD) + 1, 1]
    assert [len(part) for part in load_auditorybench(folder).values()] == counts
    assert [len(part) for part in read_dataset(folder).values()] == counts


def test_a_task_without_rows_is_no_configuration(tmp_path):
    folder = published(tmp_path / "out", {**dict.fromkeys(SPLITS, []), "wiki": [animal()]})
    assert get_dataset_config_names(str(folder)) == ["animal"]
    assert "| pitch | wiki | 0 | - | 0 |" in (folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no row to write"):
        published(tmp_path, dict.fromkeys(SPLITS, []))


def test_the_bytes_depend_on_the_rows_alone_and_other_files_stay(tmp_path):
    (tmp_path / "b" / "stages").mkdir(parents=True)
    (tmp_path / "b" / "stages" / "records.jsonl").write_text("{}\n")
    # Left by a run that was killed.
    (tmp_path / "b" / ".unfinished" / "data").mkdir(parents=True)
    published(tmp_path / "b", {**benchmark(), "train": []})
    one, two = files_of(published(tmp_path / "a")), files_of(published(tmp_path / "b"))
    assert two.pop("stages/records.jsonl") == b"{}\n"
    assert one == two
    assert len(one) == 8 + 8 + 2


def test_a_full_disk_leaves_the_earlier_dataset(tmp_path, monkeypatch):
    before = files_of(published(tmp_path))

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(publication, "_write_text", full)
    with pytest.raises(OSError, match="No space left"):
        published(tmp_path, {**benchmark(), "train": [animal()]})
    assert files_of(tmp_path) == before


def test_statistics_and_leakage_are_those_of_the_rows(tmp_path):
    result = write_dataset(tmp_path, benchmark(), PROVENANCE)
    assert result.folder == tmp_path
    assert result.statistics == benchmark_statistics(benchmark()) == benchmark_statistics(read_dataset(tmp_path))
    assert result.leakage == leakage(benchmark()) == leakage(read_dataset(tmp_path))
    figures = json.loads((tmp_path / "statistics.json").read_text(encoding="utf-8"))
    assert figures["statistics"] == result.statistics.to_dict()
    assert figures["leakage"] == result.leakage.to_dict()
    assert figures["provenance"] == PROVENANCE


# --- the card --------------------------------------------------------------------------------------------------------


def test_the_metadata_of_the_card(tmp_path):
    data = DatasetCard.load(published(tmp_path) / "README.md").data.to_dict()
    assert (data["language"], data["task_categories"], data["size_categories"]) == ("en", ["fill-mask"], ["n<1K"])
    assert (data["license"], data["license_name"]) == ("other", "see-card")
    assert data["pretty_name"] == "Auditory knowledge from some/recordings"
    assert data["configs"][1]["data_files"][0] == {"split": "train", "path": "data/pitch/train.parquet"}
    named = DatasetCard.load(published(tmp_path, license="mit", pretty_name="Sounds: mine") / "README.md")
    assert (named.data.license, named.data.pretty_name) == ("mit", "Sounds: mine")
    assert "license_name" not in named.data.to_dict()
    assert "\n# Sounds: mine\n" in named.text


def test_the_size_of_the_card_is_that_of_all_rows(tmp_path):
    splits = {**dict.fromkeys(SPLITS, []), "train": [animal()] * 600, "test": [pitch()] * 400}
    assert DatasetCard.load(published(tmp_path, splits) / "README.md").data.size_categories == ["1K<n<10K"]


def test_the_card_says_how_the_benchmark_was_made(tmp_path):
    result = write_dataset(tmp_path, benchmark(), PROVENANCE)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert result.statistics.to_markdown() in card
    assert result.leakage.to_markdown() in card
    for line in (
        "| categories | temperature: 0.6; top_p: 0.9; stop: ['\\n'] |",
        f"| categorise.txt | {'ab' * 32} |",
        "| records | read | 1,200 |\n|  | refused: no audio | 70 |\n|  | refused: no text | 30 |\n|  | kept | 1,100 |",
        "| CC \\| BY &lt;3 | 30 |\n| CC0 | 20 |\n| not stated | 7 |",
        "| Freesound | 57 |",
        "| animal | source: List of animal sounds; date: 2026-11-23 |",
        "`some-org/some-model`",
        "(seed 17)",
        "title = {AudioBERT: Audio Knowledge Augmented Language Model},",
    ):
        assert line in card
    assert "\n\n\n" not in card and "{{" not in card and "{%" not in card


def card_of(folder, **changes):
    return (published(folder, **changes) / "README.md").read_text(encoding="utf-8")


def test_the_card_tells_what_was_done_from_what_was_not(tmp_path):
    unreviewed, reviewed = card_of(tmp_path), card_of(tmp_path, reviewed=True)
    assert "No person has reviewed the animal prompts." in unreviewed
    assert "A person decided on every animal prompt." in reviewed and "No person" not in reviewed
    assert "split by groups" in unreviewed
    plain = card_of(tmp_path, split="plain")
    assert "plain random split (seed 17)" in plain and "split by groups" not in plain
    facts_alone = card_of(tmp_path, model=None, stages=[], licenses={}, sources={})
    assert "No LLM was asked." in facts_alone and "some-org" not in facts_alone
    assert "refused" not in facts_alone and "\n\n\n" not in facts_alone


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (without(animal(), "spans", "recordings"), "Row 1 of dev has no spans, recordings"),
        ({**animal(), "task": "smell"}, "Row 1 of dev: the task must be animal or pitch, got 'smell'"),
        ({**animal(), "spans": ["a", "b"]}, "the task animal has a list of 1 spans"),
        ({**pitch(), "spans": "ab"}, "the task pitch has a list of 2 spans, got 'ab'"),
        ({**animal(), "spans": [None]}, "expected text, got None"),
        ({**animal(), "recordings": [7]}, "expected text, got 7"),
        (animal("A cat."), r"the sentence 'A cat.' has no \[MASK\]"),
        (animal(answer=" "), "Row 1 of dev: the answer is empty"),
        ({**pitch(), "answer": "louder"}, "the answer must be higher or lower, got 'louder'"),
        (animal(span="a\0b"), r"'a\\x00b' holds a character that no file"),
        (animal(span="\ud83d"), r"'\\ud83d' holds a character that no file"),
    ],
)
def test_a_row_that_could_not_be_read_back_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        published(tmp_path / "out", {**benchmark(), "dev": [animal(), row]})
    assert not (tmp_path / "out").exists()


def test_other_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="splits must be train, dev, test, wiki, got train, dev, test"):
        published(tmp_path, {split: [] for split in SPLITS[:3]})


def test_a_provenance_that_is_incomplete_or_does_not_add_up_is_refused(tmp_path):
    with pytest.raises(ValueError, match="provenance lacks licenses, seed"):
        write_dataset(tmp_path, benchmark(), without(PROVENANCE, "licenses", "seed"))
    lost = {"stage": "animals", "read": 10, "kept": 6, "refused": {"no span": 3}}
    with pytest.raises(ValueError, match="'animals' read 10 rows, but those kept and refused are 1 fewer"):
        published(tmp_path, stages=[lost])


def test_a_damaged_or_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_dataset(tmp_path / "nowhere")
    path = published(tmp_path) / "data" / "pitch" / "dev.parquet"
    path.write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"dev\.parquet is not the file that statistics\.json counts"):
        read_dataset(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"dev\.parquet, which statistics\.json counts"):
        read_dataset(tmp_path)
    (tmp_path / "statistics.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"dev\.parquet, though pitch_dev\.csv has rows"):
        read_dataset(tmp_path)
    path.write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"dev\.parquet is not a Parquet file"):
        read_dataset(tmp_path)
    (tmp_path / "statistics.json").write_text("{")
    with pytest.raises(ValueError, match=r"statistics\.json is damaged"):
        read_dataset(tmp_path)


def test_rows_that_were_replaced_without_their_counts_are_not_taken_for_theirs(tmp_path, monkeypatch):
    """A crash while one dataset takes the place of another."""
    published(tmp_path)
    replace, replaced = publication.os.replace, []

    def crash(source, target):
        if len(replaced) == 5:
            raise OSError("power cut")
        replaced.append(replace(source, target))

    monkeypatch.setattr(publication.os, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        published(tmp_path, {**benchmark(), "train": [animal()]})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"is not the file that statistics\.json counts; write the dataset again"):
        read_dataset(tmp_path)
    published(tmp_path, {**benchmark(), "train": [animal()]})
    assert len(read_dataset(tmp_path)["train"]) == 1
