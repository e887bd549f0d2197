"""Results of two configurations never meet in one folder."""

import json
import shutil

import pytest

from audiobert.reproduction.configuration import refuse_another, settle_configuration, values_of
from audiobert.reproduction.contents import contents_of
from audiobert.reproduction.presets import MINI, PAPER, Cut

from text_fixtures import ANIMAL_ROWS, HEADERS, write_auditorybench, write_csv

PRESET = {"name": "mini", "epochs": 2, "detector": {"layers": (1, 2), "rate": 1e-3}}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return write_auditorybench(folder)


def configuration_of(preset, data, *, max_steps=None, **folders):
    return {"preset": preset, "max_steps": max_steps, **contents_of(data, **folders)}


def begin(out, configuration):
    """The first start: the configuration is kept, then a run is begun."""
    settled = settle_configuration(out, configuration)
    (out / "runs" / "bert.unfinished").mkdir(parents=True, exist_ok=True)
    return settled


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "bert"
    (folder / "knowledge_base").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("a card")
    (folder / "knowledge_base" / "index.faiss").write_bytes(b"index")
    return folder


def test_the_same_configuration_goes_on_and_leaves_the_file_as_it_is(data, tmp_path):
    out = tmp_path / "out"
    settled = begin(out, configuration_of(PRESET, data, max_steps=2))
    written = (out / "configuration.json").read_bytes()
    assert settle_configuration(out, configuration_of(PRESET, data, max_steps=2)) == settled
    assert (out / "configuration.json").read_bytes() == written
    assert settled["preset"]["detector"]["layers"] == [1, 2]
    assert len(settled["data"]) == 8
    assert settled["max_steps"] == 2
    assert settled["versions"]["audiobert"]


def test_where_things_lie_is_no_part_of_it(data, checkpoint, tmp_path):
    (tmp_path / "text").mkdir()
    for name in ("valid.txt", "test.txt"):
        (tmp_path / "text" / name).write_text("It rains.")

    def here():
        return configuration_of(PRESET, data, checkpoints={"bert": checkpoint}, text=tmp_path / "text")

    before = here()
    assert str(tmp_path) not in json.dumps(before)
    (checkpoint / "README.md").write_text("another card")
    (checkpoint / "results").mkdir()
    (checkpoint / "results" / "results.json").write_text("{}")
    (tmp_path / "moved").mkdir()
    for path in (data, checkpoint, tmp_path / "text"):
        shutil.move(path, tmp_path / "moved" / path.name)
    moved = tmp_path / "moved"
    assert before == configuration_of(
        PRESET, moved / data.name, checkpoints={"bert": moved / checkpoint.name}, text=moved / "text"
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"preset": {**PRESET, "epochs": 3}}, "preset.epochs 2, now 3"),
        ({"preset": {**PRESET, "detector": {"layers": (1,), "rate": 1e-3}}}, "preset.detector.layers [1, 2], now [1]"),
        ({"preset": {"name": "mini", "epochs": 2}}, "preset.detector.rate 0.001, now absent"),
        ({"max_steps": 5}, "max_steps null, now 5"),
        ({"checkpoints": {"bert": "other/bert"}}, 'checkpoints.bert "some/bert", now "other/bert"'),
    ],
)
def test_another_configuration_is_refused_by_name_and_values(change, named, data, tmp_path):
    given = {"preset": PRESET, "checkpoints": {"bert": "some/bert"}}
    begin(tmp_path / "out", configuration_of(data=data, **given))
    written = (tmp_path / "out" / "configuration.json").read_bytes()
    with pytest.raises(ValueError, match="Name another OUT") as refused:
        settle_configuration(tmp_path / "out", configuration_of(data=data, **{**given, **change}))
    assert named in str(refused.value)
    assert str(tmp_path / "out") in str(refused.value)
    assert (tmp_path / "out" / "configuration.json").read_bytes() == written


def test_a_changed_file_is_named(data, checkpoint, tmp_path):
    out = tmp_path / "out"
    begin(out, configuration_of(PRESET, data, checkpoints={"bert": checkpoint}))
    (checkpoint / "knowledge_base" / "index.faiss").write_bytes(b"another")
    with pytest.raises(
        ValueError, match=r"checkpoints.bert.knowledge_base/index.faiss [0-9a-f]{12}, now [0-9a-f]{12}\."
    ):
        begin(out, configuration_of(PRESET, data, checkpoints={"bert": checkpoint}))
    (checkpoint / "knowledge_base" / "index.faiss").write_bytes(b"index")
    write_csv(data / "animal_dev.csv", HEADERS["animal"], ANIMAL_ROWS[:1])
    with pytest.raises(ValueError, match=r"configuration: data.animal_dev.csv [0-9a-f]{12}, now"):
        settle_configuration(out, configuration_of(PRESET, data, checkpoints={"bert": checkpoint}))


@pytest.mark.parametrize("name", ["held_out.json", "sound_swap/settings.json", "sound_swap/new_sound.jsonl"])
def test_what_is_held_out_and_what_is_asked_count_too(name, data, checkpoint, tmp_path):
    (checkpoint / "sound_swap").mkdir()
    (checkpoint / name).write_text("{}")
    begin(tmp_path / "out", configuration_of(PRESET, data, checkpoints={"bert": checkpoint}))
    (checkpoint / name).write_text("[]")
    with pytest.raises(ValueError, match=rf"checkpoints.bert.{name} [0-9a-f]{{12}}, now"):
        settle_configuration(tmp_path / "out", configuration_of(PRESET, data, checkpoints={"bert": checkpoint}))


def test_of_many_differences_some_are_named(data, tmp_path):
    begin(tmp_path, configuration_of({f"value{n}": n for n in range(9)}, data))
    with pytest.raises(ValueError, match="; and 4 more") as refused:
        settle_configuration(tmp_path, configuration_of({f"value{n}": n + 1 for n in range(9)}, data))
    assert str(refused.value).count(", now") == 5


def test_recordings_may_be_given_later_and_then_stay(data, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metadata.csv").write_text(f"file_name\n{name}.wav\n")
    out = tmp_path / "out"
    begin(out, configuration_of(PRESET, data))
    settle_configuration(out, configuration_of(PRESET, data, audio=tmp_path / "one"))
    settled = settle_configuration(out, configuration_of(PRESET, data))
    assert settled["audio"]
    assert json.loads((out / "configuration.json").read_text()) == settled
    with pytest.raises(ValueError, match=r"audio.metadata.csv"):
        settle_configuration(out, configuration_of(PRESET, data, audio=tmp_path / "other"))
    (tmp_path / "one" / "a.wav").write_bytes(b"sound")
    with pytest.raises(ValueError, match="audio.names and sizes"):
        settle_configuration(out, configuration_of(PRESET, data, audio=tmp_path / "one"))


def test_runs_of_an_unknown_configuration_are_refused(data, tmp_path):
    (tmp_path / "runs" / "majority").mkdir(parents=True)
    with pytest.raises(ValueError, match="no configuration.json"):
        settle_configuration(tmp_path, configuration_of(PRESET, data))


@pytest.mark.parametrize("content", ['{"preset": ', "[]"])
def test_a_damaged_file_is_refused(content, data, tmp_path):
    (tmp_path / "runs" / "majority").mkdir(parents=True)
    (tmp_path / "configuration.json").write_text(content)
    with pytest.raises(ValueError, match=r"configuration.json (is no JSON|holds no settings).*name another folder"):
        settle_configuration(tmp_path, configuration_of(PRESET, data))


def test_what_is_not_there_is_named(data, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="animal_train.csv"):
        configuration_of(PRESET, tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="valid.txt"):
        configuration_of(PRESET, data, text=tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        configuration_of(PRESET, data, checkpoints={"bert": tmp_path / "empty"})
    with pytest.raises(FileNotFoundError, match="metadata.csv"):
        configuration_of(PRESET, data, audio=tmp_path / "empty")


def test_a_folder_without_runs_is_free(data, tmp_path):
    settle_configuration(tmp_path, configuration_of(PRESET, data))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bert.error.txt").write_text("It failed at once.")
    settled = settle_configuration(tmp_path, configuration_of(PRESET, data, max_steps=5))
    assert json.loads((tmp_path / "configuration.json").read_text()) == settled
    assert settled["max_steps"] == 5


@pytest.mark.parametrize(
    ("kept", "now", "named"),
    [
        (None, Cut(2), "max_steps null, now 2; cut.rows absent, now 32"),
        (Cut(2), None, "max_steps 2, now null"),
        (Cut(2), Cut(2, rows=8), "cut.rows 32, now 8"),
    ],
)
def test_a_try_never_mixes_with_results_nor_with_another_try(kept, now, named, tmp_path):
    begin(tmp_path, values_of(MINI, kept))
    settle_configuration(tmp_path, values_of(MINI, kept))
    for check in (settle_configuration, refuse_another):
        with pytest.raises(ValueError, match="holds results of another configuration") as refused:
            check(tmp_path, values_of(MINI, now))
        assert named in str(refused.value)


def test_what_needs_no_file_is_compared_by_itself(data, tmp_path):
    refuse_another(tmp_path / "none", values_of(MINI, None))
    begin(tmp_path / "out", {**values_of(MINI, None), **contents_of(data)})
    written = (tmp_path / "out" / "configuration.json").read_bytes()
    refuse_another(tmp_path / "out", values_of(MINI, None))
    assert (tmp_path / "out" / "configuration.json").read_bytes() == written
    with pytest.raises(ValueError, match='preset.name "mini", now "paper"'):
        refuse_another(tmp_path / "out", values_of(PAPER, None))
