"""What a run starts from: all of the data, or of a try the same few rows each time."""

from dataclasses import replace
from pathlib import Path

import pytest
from swap_fixtures import held_out_of_all, sounding_knowledge_base, tiny_sound_swap

from audiobert.evaluation.sound_swap.questions import PARTS, SOUND_SWAP_FOLDER
from audiobert.reproduction import runs
from audiobert.reproduction.planning import Run
from audiobert.reproduction.presets import AUDIOBERT, BLIND, MINI, NO_AUDIO, PAPER, RANDOM, Cut
from audiobert.reproduction.runs import start_model
from audiobert.reproduction.workshop import Workshop
from audiobert.training.viewings import Listening

from text_fixtures import tiny_bert, tiny_tokenizer, write_auditorybench


@pytest.fixture
def folders(tmp_path):
    data, text = tmp_path / "data", tmp_path / "text"
    data.mkdir(), text.mkdir()
    animal = [["cat", "meow", f"Meow {number} is the sound a [MASK] makes."] for number in range(40)]
    pitch = [[f"The rain {number} has a [MASK] pitch than hum.", "higher", "rain", "hum"] for number in range(50)]
    write_auditorybench(data, animal, pitch)
    for name in ("valid.txt", "test.txt"):
        (text / name).write_text("".join(f"Paragraph {number} tells of nothing to hear.\n" for number in range(30)))
    return data, text


def test_a_try_has_the_same_few_rows_of_each_task_and_split(folders, tmp_path):
    data, text = folders
    cut = Cut(2, rows=6, passages=5, perplexity_passages=3)
    few, again, full = (Workshop(tmp_path, MINI, data, text, cut=how) for how in (cut, cut, None))
    for split, part in few.dataset.items():
        assert part["task"][:] == ["animal"] * 6 + ["pitch"] * 6
        sentences, all_sentences = part["sentence"][:], full.dataset[split]["sentence"][:]
        assert sentences == again.dataset[split]["sentence"][:]
        places = [all_sentences.index(sentence) for sentence in sentences]
        assert places == sorted(places) and places[:6] != list(range(6)), "in their order, but not the first"
    assert [len(part) for part in full.dataset.values()] == [90] * 4
    # Table I is counted on the whole of it.
    assert [len(part) for part in few.benchmark.values()] == [90] * 4
    assert (len(few.adapter_rows["train"]), len(full.adapter_rows["train"])) == (24, 180)
    assert (len(few.silence), len(full.silence)) == (5, 30)
    assert (len(few.passages), len(full.passages)) == (5, 30)
    assert (len(few.perplexity_passages), len(full.perplexity_passages)) == (3, 30)
    assert few.passages == again.passages and set(few.perplexity_passages) < set(few.passages)


def test_a_task_with_fewer_rows_has_them_all(folders, tmp_path):
    few = Workshop(tmp_path, MINI, folders[0], cut=Cut(2, rows=45))
    assert [len(part) for part in few.dataset.values()] == [85] * 4


@pytest.mark.parametrize(
    ("what", "hearing", "audio"),
    [
        (AUDIOBERT, "retrieved", "trained"),
        (RANDOM, "random", "trained"),
        # It hears no recording that the audio encoder could be trained on.
        (BLIND, "blind-clap", "cached"),
        (NO_AUDIO, "retrieved", "none"),
    ],
)
def test_each_control_is_trained_on_what_it_hears(what, hearing, audio, tmp_path, monkeypatch):
    class Model:
        class detector:  # noqa: N801
            load_state_dict = staticmethod(lambda weights: None)

    asked = {}

    def train(model, rows, args, **how):
        asked.update(how)
        raise InterruptedError

    monkeypatch.setattr(runs, "start_model", lambda name, workshop: Model())
    monkeypatch.setattr(runs, "load_file", lambda path: {})
    monkeypatch.setattr(runs, "train_audiobert", train)
    monkeypatch.setattr(Workshop, "adapter_rows", {})
    run = Run("x-0", "audiobert", what, 0, "bert", ("detector-both-0",))
    with pytest.raises(InterruptedError):
        runs._audiobert(run, Workshop(tmp_path, PAPER, Path("data"), audio=Path("audio")), tmp_path)
    # The paper's preset does not listen.
    assert asked == {
        "audio": audio,
        "audio_dir": Path("audio") if audio == "trained" else None,
        "hearing": hearing,
        "listening": Listening(),
    }


def test_a_try_is_asked_a_few_questions_of_each_part_the_same_each_time(tmp_path):
    swap = tiny_sound_swap()
    model = tmp_path / "model"
    swap.save(model / SOUND_SWAP_FOLDER)
    held_out_of_all().save_pretrained(model)
    sounding_knowledge_base().save_pretrained(tmp_path / "sounds")
    preset = replace(MINI, berts=(str(model),), knowledge_base=str(tmp_path / "sounds"))
    few, again, full = (
        Workshop(tmp_path, preset, Path("data"), cut=cut) for cut in (Cut(2, rows=5), Cut(2, rows=5), None)
    )
    assert full.sound_swap == swap and few.sound_swap == again.sound_swap
    for part in PARTS:
        asked = few.sound_swap.part(part)
        assert len(asked) == min(5, len(swap.part(part)))
        assert [question for question in swap.part(part) if question in asked] == asked


def test_a_plain_bert_needs_an_audio_encoder(tmp_path):
    tiny_bert(len(tiny_tokenizer())).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is a BERT without an audio encoder: name one with --ast"):
        start_model(str(tmp_path / "bert"), Workshop(tmp_path, MINI, Path("data")))
