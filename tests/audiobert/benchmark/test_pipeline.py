"""The whole build through its commands, against a real server on loopback: what comes out, and what a crash costs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import load_dataset
from typer.testing import CliRunner

from audiobert.benchmark.pipeline import BenchmarkBuild
from audiobert.benchmark.stages import NO_REPLY, Shard, read_all_rows, read_rows
from audiobert.cli import app
from audiobert.data.auditorybench import load_auditorybench

from llm_script import SOUNDS, scripted_reply
from llm_server import HANG, MODEL, SERVER_ERROR, LlmServer

STAGES = ("records", "categories", "animals", "pitches", "pairs", "comparisons")
ANIMALS = ("dog", "cat", "cow", "frog", "crow", "pig")
OTHERS = ("siren", "engine", "church bells", "piano", "clock alarm", "car horn", "helicopter", "rain", "guitar")
TAKES = 3
RATE = 16_000
# Seconds that a process may take to end, or to get so far, on a busy machine too.
TIMEOUT = 120


def harmonics(hz: float, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return sum(0.3 / n * np.sin(2 * np.pi * n * hz * time) for n in range(1, 5))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds that the stand-in for the LLM knows, in the pitch that it takes them to have."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = []
    for name in (*ANIMALS, *OTHERS):
        for take in range(TAKES):
            file_name = f"{name.replace(' ', '-')}-{take}.wav"
            soundfile.write(folder / file_name, harmonics(SOUNDS[name].hz * 1.01**take), RATE)
            rows.append([file_name, name, f"take {take}", "CC0", "made here"])
    rows += [["silent.wav", "siren", "nothing", "CC0", ""], ["broken.wav", "engine", "broken", "CC0", ""]]
    rows += [["nameless.wav", "", "", "", ""]]
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "broken.wav").write_bytes(b"RIFF, but not for long")
    soundfile.write(folder / "nameless.wav", harmonics(300), RATE)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file_name", "label", "tags", "license", "source"], *rows])
    return folder


def audiobert(*arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code != 0) == fails, result.output
    return " ".join(result.output.split())


def build(recordings: Path, out: Path, server: LlmServer, *options: object, fails: bool = False) -> str:
    llm = ("--llm-url", server.url, "--llm", MODEL)
    return audiobert("build-benchmark", recordings, out, *llm, *options, fails=fails)


def published(folder: Path) -> dict[str, bytes]:
    """All that was made but the locks, and the log of replies, whose order is that of their coming."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    files = [path for path in files if "replies" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def built(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build in one go; the others are measured by it."""
    out = tmp_path_factory.mktemp("built")
    with LlmServer(scripted_reply) as server:
        build(recordings, out, server)
    return out


def test_what_is_built_is_read_as_the_published_benchmark_is(built: Path) -> None:
    splits = load_auditorybench(built)
    assert Counter(splits["train"]["task"]).keys() == {"animal", "pitch"}
    for task in ("animal", "pitch"):
        loaded = load_dataset(str(built), task)
        assert loaded["wiki"].num_rows > 200
        for split, rows in loaded.items():
            of_task = splits[split].filter(lambda row, task=task: row["task"] == task)
            assert rows["sentence"][:] == of_task["sentence"][:]
    # What a tone of 100 Hz and one of 1000 Hz are called.
    directions = {tuple(row["spans"]): row["answer"] for row in splits["train"] if row["task"] == "pitch"}
    hertz = {sound.phrase: sound.hz for sound in SOUNDS.values()}
    assert directions
    assert all(answer == ("higher" if hertz[a] > hertz[b] else "lower") for (a, b), answer in directions.items())


def test_every_recording_is_accounted_for(built: Path) -> None:
    counts = {
        stage["stage"]: stage for stage in json.loads((built / "statistics.json").read_text())["provenance"]["stages"]
    }
    for stage in counts.values():
        assert stage["read"] == stage["kept"] + sum(stage["refused"].values()), stage
    assert counts["records"]["refused"] == {"no text": 1}
    assert counts["categories"]["read"] == counts["records"]["kept"]
    roots = Counter(row["category"].split("/")[0] for row in read_rows(built / "stages" / "categories.jsonl"))
    assert counts["animals"]["read"] == roots["animal"]
    assert counts["pitches"]["read"] == sum(roots[root] for root in ("music", "object", "environment"))
    assert counts["pitches"]["refused"].keys() >= {"silence", "unreadable audio"}
    used = counts["main categories"]["kept"]
    assert used == counts["animals"]["read"] + counts["pitches"]["read"]
    paired = [name for row in read_all_rows(built / "stages" / "pairs.jsonl") for name in row["recordings"]]
    assert len(paired) == len(set(paired)) == counts["pitches"]["kept"]
    assert counts["comparisons"]["read"] == counts["pairs"]["kept"]
    assert counts["animal prompts"]["read"] == counts["animals"]["kept"]
    card = (built / "README.md").read_text()
    assert "CC0" in card and MODEL in card and "unreadable audio" in card


def test_a_second_run_asks_nothing_and_changes_nothing(recordings: Path, built: Path) -> None:
    before = published(built)
    with LlmServer(scripted_reply) as server:
        build(recordings, built, server)
        assert server.requests == []
    assert published(built) == before
    # And needs no server for it.
    build(recordings, built, server)
    assert published(built) == before


def test_a_build_that_is_not_finished_asks_for_the_server_before_the_work(recordings: Path, tmp_path: Path) -> None:
    with LlmServer(scripted_reply) as server:
        pass
    assert "cannot be reached" in build(recordings, tmp_path / "out", server, fails=True)
    assert not (tmp_path / "out" / "stages" / "records.jsonl").exists()


def test_a_recording_that_was_withdrawn_is_not_published(recordings: Path, built: Path, tmp_path: Path) -> None:
    out, fewer = tmp_path / "out", tmp_path / recordings.name
    shutil.copytree(built, out)
    shutil.copytree(recordings, fewer)
    header, _, *rows = (fewer / "metadata.csv").read_text().splitlines(keepends=True)
    (fewer / "metadata.csv").write_text("".join([header, *rows]))
    audiobert("benchmark", "records", fewer, out)
    before = published(out)
    refused = audiobert("benchmark", "publish", out, fails=True)
    assert "was not made of the records that lie there now: run the stage 'categories' again" in refused
    assert published(out) == before
    with LlmServer(scripted_reply) as server:
        build(fewer, out, server)
    used = {row["id"] for row in read_all_rows(out / "stages" / "categories.jsonl")}
    assert len(used) == len({row["id"] for row in read_all_rows(built / "stages" / "categories.jsonl")}) - 1
    audiobert("benchmark", "publish", out)


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks on this system")
def test_a_build_in_use_by_another_process_is_refused_before_the_work(
    recordings: Path, built: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "stages" / "build.lock"
    lock.parent.mkdir()
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); "
    hold += "print(flush=True); time.sleep(99)"
    other = subprocess.Popen([sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline()
    with LlmServer(scripted_reply) as server:
        for refused in (
            build(recordings, tmp_path, server, fails=True),
            audiobert("benchmark", "records", recordings, tmp_path, fails=True),
            audiobert("benchmark", "publish", tmp_path, fails=True),
        ):
            assert "Another process is at work in" in refused
        assert server.requests == []
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["build.lock", "stages"]
        # It ends with the process, however that ends.
        other.kill()
        other.communicate(timeout=TIMEOUT)
        audiobert("benchmark", "records", recordings, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks on this system")
def test_other_shards_go_on_beside_one_but_no_publication(tmp_path: Path) -> None:
    one, other = BenchmarkBuild(tmp_path), BenchmarkBuild(tmp_path)
    with one.claimed("pitches", Shard(1, 2)):
        with other.claimed("pitches", Shard(2, 2)), one.claimed():
            pass
        for stage, shard in (("pitches", Shard(1, 2)), (None, None)):
            with pytest.raises(OSError, match="Another process is at work"), other.claimed(stage, shard):
                pass


def test_a_folder_that_is_no_place_for_a_benchmark(
    recordings: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("mine")
    with LlmServer(scripted_reply) as server:
        assert "needs a folder of its own" in build(recordings, ".", server, fails=True)
        assert "README.md is a file" in build(recordings, "README.md", server, fails=True)
        assert server.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"] and Path("README.md").read_text() == "mine"
    # One that is a build already is meant.
    monkeypatch.chdir(built)
    audiobert("benchmark", "publish", ".")


# Of the requests of a build: among those for categories, for animals, and for comparisons.
@pytest.mark.processes
@pytest.mark.parametrize("answers", [20, 55, 72])
def test_a_killed_build_goes_on_and_pays_for_nothing_twice(
    recordings: Path, built: Path, tmp_path: Path, answers: int
) -> None:
    command = [sys.executable, "-c", "from audiobert.cli import app; app()", "build-benchmark", recordings, tmp_path]
    llm = ["--llm", MODEL, "--concurrency", "4"]
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with LlmServer(scripted_reply, fault=lambda request: HANG if request.number >= answers else None) as server:
        run = subprocess.Popen([*command, *llm, "--llm-url", server.url], env=environment, stderr=subprocess.DEVNULL)
        log = tmp_path / "stages" / "replies" / "replies.jsonl"
        end = time.monotonic() + TIMEOUT
        while not (log.is_file() and len(log.read_bytes().splitlines()) >= answers):
            assert run.poll() is None and time.monotonic() < end, "the build ended before it could be killed"
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait(TIMEOUT)
        paid = list(server.answered)
    with LlmServer(scripted_reply) as server:
        build(recordings, tmp_path, server)
        paid += server.answered
    assert max(Counter(paid).values()) == 1
    assert published(tmp_path) == published(built)


def test_shards_give_the_bytes_of_the_single_run(recordings: Path, built: Path, tmp_path: Path) -> None:
    audiobert("benchmark", "records", recordings, tmp_path)
    with LlmServer(scripted_reply) as server:
        llm = ("--llm-url", server.url, "--llm", MODEL)
        for stage in STAGES[1:]:
            if stage == "pairs":
                audiobert("benchmark", "pairs", tmp_path)
                continue
            for shard in ("2/2", "1/2"):
                arguments = (recordings, tmp_path) if stage == "pitches" else (tmp_path, *llm)
                audiobert("benchmark", stage, *arguments, "--shard", shard)
            audiobert("benchmark", "merge", tmp_path, stage, 2)
    audiobert("benchmark", "publish", tmp_path)
    shards = {name: content for name, content in published(tmp_path).items() if ".shard-" not in name}
    assert shards == published(built)


def test_a_request_that_fails_is_counted_and_asked_again_later(
    recordings: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiobert.llm.client.FIRST_WAIT", 0.01)
    unlucky = "take 1"
    with LlmServer(scripted_reply, fault=lambda r: SERVER_ERROR if unlucky in r.prompt[-300:] else None) as server:
        build(recordings, tmp_path, server)
    refusals = Counter(row["refusal"] for row in read_all_rows(tmp_path / "stages" / "categories.jsonl"))
    assert refusals[NO_REPLY] == len(ANIMALS) + len(OTHERS)
    with LlmServer(scripted_reply) as server:
        build(recordings, tmp_path, server)
    assert published(tmp_path) == published(built)


def test_the_review_decides_what_is_published(recordings: Path, built: Path, tmp_path: Path) -> None:
    with LlmServer(scripted_reply) as server:
        build(recordings, tmp_path, server)
    assert "No person has reviewed the animal prompts" in (tmp_path / "README.md").read_text()
    audiobert("benchmark", "review", tmp_path)
    sheet = tmp_path / "review" / "review.csv"
    with open(sheet, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["answer"] for row in rows} <= {*ANIMALS, "bird"}
    for number, row in enumerate(rows):
        row["keep"] = ("no", "yes")[min(number, 1)]
    with open(sheet, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    printed = audiobert("benchmark", "publish", tmp_path, "--decisions", sheet)
    assert "dropped in the review" in printed
    assert "A person decided on every animal prompt" in (tmp_path / "README.md").read_text()
    splits = load_auditorybench(tmp_path, ["animal"])
    sentences = [sentence for split in ("train", "dev", "test") for sentence in splits[split]["sentence"]]
    assert sorted(sentences) == sorted(row["sentence"] for row in rows[1:])


def test_a_template_of_ones_own(recordings: Path, tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    own = templates / "categorise.txt"
    with LlmServer(lambda prompt: "person/whistler") as server:
        own.write_text("What is it? {{title}} {{tags}}")
        assert "{{description}}" in build(recordings, tmp_path / "out", server, "--templates", templates, fails=True)
        own.write_text("What is it? {{title}} {{tags}} {{description}}")
        audiobert("benchmark", "records", recordings, tmp_path / "out")
        llm = ("--llm-url", server.url, "--llm", MODEL, "--templates", templates)
        audiobert("benchmark", "categories", tmp_path / "out", *llm)
        assert all(prompt.startswith("What is it? ") for prompt in server.prompts)
        assert "holds none of the templates" in build(recordings, tmp_path, server, "--templates", tmp_path, fails=True)


def test_errors_name_the_culprit(recordings: Path, built: Path, tmp_path: Path) -> None:
    with LlmServer(scripted_reply) as server:
        llm = ("--llm-url", server.url, "--llm")
        assert "'scripted', not 'gpt'" in audiobert("benchmark", "categories", built, *llm, "gpt", fails=True)
        audiobert("benchmark", "records", recordings, tmp_path / "new")
        new = ("benchmark", "categories", tmp_path / "new", *llm)
        assert "has no model 'gpt'" in audiobert(*new, "gpt", fails=True)
        missing = audiobert("benchmark", "categories", tmp_path, *llm, MODEL, fails=True)
        assert "run the stage 'records' first" in missing
        assert "no column" in build(tmp_path_with_other_columns(tmp_path), tmp_path / "out", server, fails=True)
    unreachable = audiobert(*new, MODEL, fails=True)
    assert "cannot be reached" in unreachable
    other = audiobert("benchmark", "pitches", recordings, built, "--pitch-method", "yin", fails=True)
    assert "was made with method 'pyin', not 'yin'" in other
    assert "is I/N" in audiobert("benchmark", "pitches", recordings, built, "--shard", "3/2", fails=True)
    assert "stages with shards" in audiobert("benchmark", "merge", built, "pairs", 2, fails=True)


def test_a_saved_page_replaces_a_table_of_this_build(recordings: Path, built: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.wiki"
    page.write_text("""{| class="wikitable"
! Animal !! Description !! Listen
|-
| [[Dog]] || bark, [[howl]] ||
|-
| [[Wren]] || tick ||
|}""")
    out = tmp_path / "out"
    shutil.copytree(built, out)
    assert "3 facts" in audiobert("benchmark", "wikipedia", out, "--animals", page)
    audiobert("benchmark", "publish", out)
    wiki = load_auditorybench(out)["wiki"]
    animals = [(row["answer"], row["spans"][0]) for row in wiki if row["task"] == "animal"]
    assert animals == [("dog", "bark"), ("dog", "howl"), ("wren", "tick")]
    assert sum(row["task"] == "pitch" for row in wiki) > 1000
    assert str(page) not in (out / "README.md").read_text()


def tmp_path_with_other_columns(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "metadata.csv").write_text("path,words\na.wav,dog\n")
    return folder


def test_reports_and_sheets_of_what_was_built(built: Path, tmp_path: Path) -> None:
    statistics = json.loads(audiobert("benchmark", "statistics", built, "--format", "json"))
    assert json.loads((built / "statistics.json").read_text())["statistics"] == statistics
    overlaps = json.loads(audiobert("benchmark", "leakage", built, "--format", "json"))
    assert json.loads((built / "statistics.json").read_text())["leakage"] == overlaps
    audiobert("benchmark", "human-sheets", built, tmp_path, "--split", "wiki", "--per-task", 5, "--annotators", 2)
    sheets = sorted(tmp_path.glob("*.csv"))
    assert len(sheets) == len(sorted(tmp_path.glob("*.html"))) == 2
    for sheet in sheets:
        text = sheet.read_text().splitlines()
        header = text[0].split(",")
        with open(sheet, newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 10
        with open(sheet, "w", newline="") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows({**row, "accuracy": "1", "fluency": "2"} for row in rows)
    scores = json.loads(audiobert("benchmark", "human-scores", *sheets, "--format", "json"))
    assert scores["tasks"]["pitch"]["fluency"]["mean"] == 2.0
