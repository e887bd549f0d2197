import json
from dataclasses import replace

import numpy as np
import pytest
from swap_fixtures import tiny_sound_swap

from audiobert.benchmark.dataset.statistics import PAPER_TABLE_I, Statistics
from audiobert.benchmark.people.human_evaluation import Rating, aggregate
from audiobert.evaluation.predictions import RowPrediction
from audiobert.evaluation.preservation import (
    LORA_FORCED_ON,
    PLAIN_BERT,
    FalseAlarms,
    IdenticalAnswers,
    Preservation,
    PseudoPerplexity,
)
from audiobert.evaluation.sound_swap.answering import END_TO_END
from audiobert.evaluation.sound_swap.answers import SwapAnswer
from audiobert.evaluation.sound_swap.questions import ANIMALS_BY_EAR, NEW_SOUND, PARTS
from audiobert.reproduction import report
from audiobert.reproduction.findings import Answers, DetectorAlarms, DetectorScores, Results, find
from audiobert.reproduction.presets import AUDIOBERT, BLIND, MAJORITY, NO_AUDIO, OTHER_SPAN, RANDOM
from audiobert.reproduction.report import write_report
from audiobert.reproduction.sound_swap import TRAINED_WITHOUT_AUDIO
from audiobert.reproduction.verdict import verdict

ROWS = 120


@pytest.fixture
def no_drawing(monkeypatch):
    """Figures take long to draw, and have tests of their own."""
    monkeypatch.setattr(report, "write_figures", lambda findings, folder: [])


def answers(model: str, seed: int | None, pitch: float, animal: float = 0.4, similar: float = 0.5) -> Answers:
    """Answers to test, of which a share is right; the same rows for all."""
    draws = np.random.default_rng(0 if seed is None else seed)
    rows = []
    for task, share, answer in (("animal", animal, "cat"), ("pitch", pitch, "higher")):
        for right in draws.random(ROWS) < share:
            sentence = f"Sound {len(rows)} is [MASK]."
            predicted = answer if right else "?"
            rows.append(
                RowPrediction(
                    "test", task, len(rows), sentence, answer, (f"sound {len(rows)}",), predicted, bool(right)
                )
            )
    return Answers(model, seed, rows, {("test", number): similar for number in range(3)})


def results(audio: float = 0.6, **kwargs) -> Results:
    given = [answers(AUDIOBERT, seed, audio) for seed in range(3)]
    given += [answers(NO_AUDIO, seed, 0.6) for seed in range(2)] + [answers(MAJORITY, None, 0.5, 0.1)]
    return Results(configuration={"preset": "mini"}, answers=given, **kwargs)


def measured() -> Results:
    detectors = [
        DetectorScores("both", seed, "dev", task, 10, 0.9 + seed / 50, 0.7)
        for seed in range(2)
        for task in ("animal", "pitch", "combined")
    ]
    alarms = FalseAlarms(passages=200, passages_with_alarm=5, words=4000, spans=6)
    perplexity = {PLAIN_BERT: PseudoPerplexity(50.0, 900, 10), LORA_FORCED_ON: PseudoPerplexity(75.5, 900, 10)}
    return replace(
        results(),
        statistics=Statistics({"animal": {"dev": PAPER_TABLE_I["animal"]["dev"]}}),
        detectors=detectors,
        alarms=[DetectorAlarms("both", 0, alarms)],
        preservation={0: Preservation(alarms, IdenticalAnswers(200, 4, 196), perplexity)},
        human=aggregate([Rating("one", "animal", "a", 1, 3), Rating("two", "animal", "a", 1, 2)]),
        train=[{"task": "animal", "sentence": "Sound 0 is [MASK].", "answer": "cat", "spans": ["sound 0"]}],
    )


def test_the_verdict_says_what_the_paired_bootstrap_says():
    assert verdict(find(results(audio=0.6)))[0].startswith("**Not that the test could tell.**")
    better = verdict(find(results(audio=0.9)))
    assert better[0] == "**In part.** The audio helped in pitch test; elsewhere no difference is shown."
    assert "it is ahead in 1 and behind in 0" in better[1] and better[2] == "Training seeds: 3 with audio, 2 without."
    worse = verdict(find(results(audio=0.2)))
    assert worse[0] == "**No.** The audio did harm in pitch test; elsewhere no difference is shown."
    assert "it is ahead in 0 and behind in 1" in worse[1]
    assert "alone tells them apart in: none." in worse[1]


def test_rows_that_share_their_instruments_prove_less(tmp_path, no_drawing):
    # All rows of an instrument fare alike, and of eight instruments five fare better with audio.
    def of_few_instruments(given: Answers, right: str) -> Answers:
        rows = [
            replace(row, spans=(f"flute {number % 8}",), correct=right[number % 8] == "1")
            for number, row in enumerate(given.rows)
        ]
        return replace(given, rows=[row for row in rows if row.task == "pitch"])

    few = [
        of_few_instruments(answers(model, seed, 0.5), right)
        for model, right in ((AUDIOBERT, "11111100"), (NO_AUDIO, "10000011"))
        for seed in range(3)
    ]
    findings = find(Results({}, answers=few))
    (column,) = findings.comparisons[NO_AUDIO].columns
    assert column.mcnemar_p_holm < 0.001 < 0.05 < column.bootstrap_p_holm and column.audio.clusters == 8
    said = verdict(findings)
    assert said[0].startswith("**Not that the test could tell.**")
    assert "McNemar's test by row" in said[1] and "alone tells them apart in: pitch test." in said[1]
    text = write_report(Results({}, answers=few), tmp_path).read_text(encoding="utf-8")
    assert "told apart in none" in text and "McNemar p, by row" in text
    assert text.count("by bootstrap over instruments") >= 2


def test_a_gain_that_any_recording_gives_is_not_put_down_to_the_sound():
    found = results(audio=0.9)
    shares = {RANDOM: 0.9, OTHER_SPAN: 0.5, BLIND: 0.9}
    wrong = [answers(control, seed, share) for control, share in shares.items() for seed in range(3)]
    paragraphs = verdict(find(replace(found, answers=[*found.answers, *wrong])))
    assert "ahead in none. In pitch test it is not shown that the right sound" in paragraphs[3]
    assert paragraphs[4] == "Where it helped, against another span's recording: shown to be ahead in pitch test."
    assert "blind CLAP: shown to be ahead in none. In pitch test" in paragraphs[5]
    assert "it is not shown that the sound helped, and not what CLAP makes of the words." in paragraphs[5]


def test_without_one_of_the_two_nothing_is_said_of_audio():
    only = Results({}, answers=[answers(AUDIOBERT, 0, 0.6)])
    assert verdict(find(only)) == ["**Not known.** There is no run of no audio to tell by."]
    assert "no run of AudioBERT and none of no audio" in verdict(find(Results({})))[0]


def test_one_seed_is_said_to_be_one():
    few = [answers(AUDIOBERT, 0, 0.6), answers(NO_AUDIO, 0, 0.6)]
    assert "One seed says nothing" in verdict(find(Results({}, answers=few)))[2]


def test_two_results_of_one_seed_and_other_rows_are_refused():
    with pytest.raises(ValueError, match="two results of AudioBERT with seed 0"):
        find(Results({}, answers=[answers(AUDIOBERT, 0, 0.6)] * 2))
    short = answers(NO_AUDIO, 0, 0.6)
    short = replace(short, rows=short.rows[:-1])
    with pytest.raises(ValueError, match="AudioBERT cannot be compared with no audio. Predictions of 240 and of 239"):
        find(Results({}, answers=[answers(AUDIOBERT, 0, 0.6), short]))


def test_another_size_is_compared_with_its_own_control_only():
    found = results()
    small = [answers(f"{AUDIOBERT} (small)", 0, 0.9), answers(f"{NO_AUDIO} (small)", 0, 0.5)]
    findings = find(replace(found, answers=[*found.answers, *small]))
    assert list(findings.comparisons) == [NO_AUDIO, MAJORITY]
    assert list(findings.other_sizes) == ["AudioBERT (small)"]
    assert findings.models == (MAJORITY, "no audio (small)", NO_AUDIO, "AudioBERT (small)", AUDIOBERT)


def test_the_report_holds_every_table(tmp_path):
    text = write_report(measured(), tmp_path).read_text(encoding="utf-8")
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "Did the audio help?" and headings[-1] == "Configuration"
    assert len(headings) == 8
    # The paper's rows stand below ours, and a cell that nobody has is a dash.
    table = [line for line in text.splitlines() if line.startswith("| AudioBERT-large (paper)")]
    assert table == ["| AudioBERT-large (paper) | - | 36.69 | 76.31 | 62.97 |"]
    assert "| ceiling, one answer per sentence | - | 100.00 | 100.00 | 100.00 |" in text
    assert "| Imagine to Hear (published) | - | 41.55 | 78.96 | - |" in text
    assert "no AudioBERT: all of BERT-base is fine-tuned" in text and "arXiv 2503.16853" in text
    assert "### Set-valued accuracy" in text
    assert "Fewer seeds than the 3 of others: no audio (2)." in text
    # Mean of 0.90 and 0.92, and their sample deviation.
    assert "| both | dev | 2 | 91.00 ± 1.41 | 91.00 ± 1.41 |" in text
    assert "| both | 1 | 200 | 4,000 | 1.50 | 2.50 |" in text
    assert "| 0 | 200 | 4 | 196 | 196 | 100.00 |" in text and "| AudioBERT, LoRA forced on | 1 | 75.50 |" in text
    assert (
        "| animal | dev | 593 | 593 | 9.39 | 9.39 | 5,567 | 5,567 |" in text and "All figures are the paper's" in text
    )
    assert "| sentence in train | test | animal | seen with this answer | 1 |" in text
    assert "Human evaluation, 2 annotators" in text and '"preset": "mini"' in text
    for name in ("accuracy", "differences", "detectors", "perplexity"):
        assert f"(figures/{name}.png)" in text and (tmp_path / "figures" / f"{name}.png").is_file()


def swapped(follows_sound) -> list[SwapAnswer]:
    """To each question of the sound swap what its sound says, or something else."""
    return [
        SwapAnswer(question, question.answer if follows_sound(question) else "")
        for question in tiny_sound_swap().questions
    ]


def test_the_sound_swap_is_told_part_by_part_against_the_control_without_audio(tmp_path, no_drawing):
    def hears(question):
        return question.part != ANIMALS_BY_EAR

    runs = [{"majority answer": swapped(lambda question: False)}]
    runs += [{END_TO_END: swapped(hears)}, {END_TO_END: swapped(hears)}]
    runs += [{TRAINED_WITHOUT_AUDIO: swapped(lambda question: question.part == NEW_SOUND)}]
    given = Results({}, swap=runs)
    text = write_report(given, tmp_path).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line[2:].partition(":")[0] for line in lines] == list(PARTS)
    unheard, swap, new, animals = lines
    assert "sound in 100.00 %, the same training with no audio in 0.00 %; that is +100.00 points [+100" in unheard
    assert unheard.endswith(", told apart.") and "100.00 % and the name in 0.00 %, the same" in swap
    assert "+0.00 points" in new and new.endswith("not told apart.") and animals.endswith("not told apart.")
    short, *table = [line for line in text.splitlines() if line.startswith("| unheard names")]
    assert short.startswith("| unheard names | ") and "| 100.00 ± 0.00 [100.00, 100.00] | 0.00 |" in short
    # AudioBERT stands first, whatever was read first.
    assert [row.split(" | ")[1] for row in table] == [END_TO_END, TRAINED_WITHOUT_AUDIO, "majority answer"]
    assert "| 100.00 ± 0.00 |" in table[0] and "over the labels of the recordings" in text
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["sound_swap"]["parts"]
    assert found["unheard names"][END_TO_END]["seeds"] == 2
    assert found["swapped recordings"][TRAINED_WITHOUT_AUDIO]["hearing_adds"][0] == 1


def test_without_one_of_the_two_the_sound_swap_says_who_is_missing(tmp_path, no_drawing):
    text = write_report(Results({}, swap=[{END_TO_END: swapped(lambda question: True)}]), tmp_path).read_text("utf-8")
    assert text.count(f"no answers of a model {TRAINED_WITHOUT_AUDIO} to tell by") == len(PARTS)


def test_without_a_sound_swap_the_report_has_no_word_of_it(tmp_path, no_drawing):
    text = write_report(measured(), tmp_path).read_text(encoding="utf-8")
    assert "sound swap" not in text
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["sound_swap"] is None


def test_what_was_not_run_is_said(tmp_path):
    text = write_report(Results({"preset": "paper"}), tmp_path).read_text(encoding="utf-8")
    for line in ("**Not known.**", "No model has been", "No detector has been", "Not measured yet", "Not counted yet"):
        assert line in text
    assert "human-sheets" in text and "|" not in text and "figures/" not in text


def test_a_try_is_called_one_at_the_top(tmp_path, no_drawing):
    cut = {"rows": 32, "passages": 16, "perplexity_passages": 2}
    text = write_report(Results({"max_steps": 3, "cut": cut}), tmp_path).read_text(encoding="utf-8")
    first = text.split("\n\n")[1]
    assert "its figures mean nothing" in first and "after 3 steps" in first and "at most 32 rows of each task" in first
    whole = write_report(Results({"max_steps": None}), tmp_path).read_text(encoding="utf-8")
    assert "mean nothing" not in whole


def test_json_holds_the_figures_unrounded(tmp_path, no_drawing):
    given = measured()
    write_report(given, tmp_path)
    everything = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    right = np.mean([[row.correct for row in one.rows if row.task == "pitch"] for one in given.answers[:3]])
    assert everything["table_3"]["accuracies"][AUDIOBERT]["test"]["pitch"]["mean"] == pytest.approx(right, abs=1e-12)
    assert everything["configuration"] == {"preset": "mini"} and everything["paper"]["II"]["figures"] == []
    assert everything["preservation"]["pseudo_perplexity"][LORA_FORCED_ON] == {"seeds": 1, "mean": 75.5, "sd": None}

    by_seed = {
        (one["model"], one["seed"], one["split"], one["task"]): one["accuracy"]
        for one in everything["table_3"]["accuracies_by_seed"]
    }
    # No two say the same thing.
    assert len(by_seed) == len(everything["table_3"]["accuracies_by_seed"]) == 2 * len(given.answers)
    assert np.mean([by_seed[AUDIOBERT, seed, "test", "pitch"] for seed in range(3)]) == pytest.approx(right, abs=1e-12)
    assert (MAJORITY, None, "test", "pitch") in by_seed
    column = everything["table_3"]["accuracies"][AUDIOBERT]["test"]["pitch"]
    assert (column["clusters"], column["ceiling"]) == (ROWS, 1) and column["set_valued"] == column["mean"]
    (published,) = everything["published"]
    assert published["accuracies"]["pitch wiki"] == 76.74 and "2503.16853" in published["source"]
    theirs = [figure for figure in everything["paper"]["III"]["figures"] if figure["model"] == "AudioBERT-large"]
    assert {"split": "test", "task": "pitch", "value": 76.31}.items() <= next(
        figure for figure in theirs if (figure["split"], figure["task"]) == ("test", "pitch")
    ).items()
    assert [one["token_f1"] for one in everything["table_2"]["detectors_by_seed"] if one["seed"] == 1][0] == 0.92
    assert everything["table_1"]["animal"]["dev"]["captions"] == 593
    assert everything["table_1_paper"]["animal"]["train"]["total_tokens"] == 39024


def test_the_same_results_give_the_same_bytes(tmp_path, no_drawing):
    for name in ("one", "two"):
        write_report(measured(), tmp_path / name)
    written = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {str(path) for path in written} == {"report.md", "results.json"}
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
