"""The command line, as a user types it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audiobert import cli
from audiobert.cli import app
from audiobert.evaluation.predictions import load_predictions

from audio_fixtures import save_tiny_ast, save_tiny_clap, write_recordings
from causal_fixtures import make_causal
from llm_server import MODEL, LlmServer
from model_fixtures import AUDITORY, PLAIN, TWO_SPANS, discerning_audiobert, hearing_audiobert, original_bert
from text_fixtures import write_auditorybench, write_csv

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model")
    hearing_audiobert().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(write_auditorybench(tmp_path_factory.mktemp("data")))


def fill_mask(*arguments: str, **kwargs):
    return runner.invoke(app, ["fill-mask", *arguments], **kwargs)


def test_an_answer_shows_span_recording_and_the_answer_without_audio(folder):
    result = fill_mask("--model", folder, AUDITORY)
    assert result.exit_code == 0, result.output
    assert "«meow» is the sound" in result.stdout
    assert "similarity" in result.stdout
    assert ".ogg" in result.stdout
    assert "audio off" in result.stdout


@pytest.fixture
def loaded(monkeypatch):
    """What `fill-mask` loads in these tests, in the place of a checkpoint."""

    def load(model):
        monkeypatch.setattr(cli, "_load", lambda _: (model, model.tokenizer))

    return load


def test_a_span_that_is_too_far_from_all_recordings_says_so(loaded):
    # The rain is found with a similarity of .600, the hum with .887.
    loaded(discerning_audiobert(retrieval_min_similarity=0.7))
    shown = " ".join(fill_mask(TWO_SPANS).stdout.split())
    assert "nothing heard at rain: too far is the nearest recording" in shown
    assert "similarity 0.600), below 0.700" in shown
    assert "heard hum as" in shown and "similarity 0.89)" in shown
    (answer,) = json.loads(fill_mask("--json", TWO_SPANS).stdout)
    assert answer["min_similarity"] == 0.7
    spans = [span["span"] for span in answer["spans"]]
    assert [(span["text"], span["injected"]) for span in spans] == [("rain", False), ("hum", True)]
    assert spans[0]["recordings"][0]["similarity"] == pytest.approx(0.6, abs=0.001)


def test_a_recording_that_was_found_by_its_label_says_so(loaded):
    model = discerning_audiobert()
    loaded(model)
    assert "found by its label" not in fill_mask(AUDITORY).stdout
    model.set_knowledge_base(model.knowledge_base.with_retrieval("label"))
    assert "found by its label)" in " ".join(fill_mask(AUDITORY).stdout.split())


def test_json_with_several_prompts(folder):
    result = fill_mask("--model", folder, "--json", "--top-k", "2", AUDITORY, PLAIN, TWO_SPANS)
    assert result.exit_code == 0, result.output
    heard, plain, two = json.loads(result.stdout)
    assert heard["prompt"] == AUDITORY
    assert (heard["spans"][0]["start"], heard["spans"][0]["end"]) == (0, 4)
    assert set(heard["spans"][0]["span"]["recordings"][0]) == {
        "id",
        "label",
        "source",
        "license",
        "seconds",
        "similarity",
        "pitch_hz",
        "voiced_seconds",
        "brightness_hz",
        "found_by",
    }
    assert heard["spans"][0]["span"]["injected"] is True
    assert heard["min_similarity"] is None
    assert len(heard["answers"][0]) == 2
    assert heard["answers"] != heard["answers_without_audio"]
    assert plain["spans"] == []
    assert plain["answers"] == plain["answers_without_audio"]
    assert [span["span"]["text"] for span in two["spans"]] == ["rain", "hum"]


def test_standard_input_and_a_file_are_one_batch(folder, tmp_path):
    (tmp_path / "prompts.txt").write_text(f"{AUDITORY}\n\n{PLAIN}\n")
    by_file = fill_mask("--model", folder, "--json", "--file", str(tmp_path / "prompts.txt"))
    by_input = fill_mask("--model", folder, "--json", input=f"{AUDITORY}\n{PLAIN}\n")
    by_both = fill_mask("--model", folder, "--json", AUDITORY, "-", input=PLAIN)
    assert by_file.stdout == by_input.stdout == by_both.stdout
    assert len(json.loads(by_file.stdout)) == 2


def test_a_line_ends_with_a_line_feed_alone_and_a_byte_order_mark_is_no_text(folder, tmp_path):
    prompt = f"{AUDITORY}\u2028\x0b and"
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf" + f"{prompt}\r\n{PLAIN}".encode())
    by_file = fill_mask("--model", folder, "--json", "--file", str(tmp_path / "prompts.txt"))
    by_input = fill_mask("--model", folder, "--json", input=(tmp_path / "prompts.txt").read_bytes())
    assert [answer["prompt"] for answer in json.loads(by_file.stdout)] == [prompt, PLAIN]
    assert by_input.stdout == by_file.stdout
    (tmp_path / "prompts.txt").write_bytes(b"\xff [MASK]")
    assert "prompts.txt is no UTF-8" in fill_mask("--file", str(tmp_path / "prompts.txt")).stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("model.safetensors", b""),
        ("tokenizer.json", b'{"version": "1.0", "trunc'),
        ("tokenizer.json", b"[]"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", None),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "audiobert", "text_config": {"hidden_size": "many"}}'),
    ],
)
def test_a_damaged_checkpoint_is_named_in_one_sentence(name, content, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / name).unlink()
    if content is not None:
        (tmp_path / "damaged" / name).write_bytes(content)
    result = fill_mask("--model", str(tmp_path / "damaged"), AUDITORY)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    (sentence,) = result.stderr.splitlines()
    assert str(tmp_path / "damaged") in sentence


@pytest.mark.processes
def test_standard_error_is_empty_where_all_is_well(folder):
    command = [sys.executable, "-m", "audiobert", "fill-mask", "--model", folder, AUDITORY]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (0, "")


def test_several_masks_have_a_table_each(folder):
    result = fill_mask("--model", folder, "meow is a [MASK] [MASK]")
    assert "[MASK] 1" in result.stdout
    assert "[MASK] 2" in result.stdout


def test_a_prompt_without_a_mask_is_one_sentence(folder):
    result = fill_mask("--model", folder, "meow is a cat")
    assert result.exit_code == 1
    assert "'meow is a cat' has no [MASK]" in result.stderr
    assert "Traceback" not in result.output


def test_bad_prompts_are_counted_and_do_not_hold_up_the_others(folder):
    result = fill_mask("--model", folder, AUDITORY, "meow", "the [MASK] " + "cat " * 100)
    assert result.exit_code == 0
    assert "2 of 3 prompts were not answered" in result.stderr
    assert "the model reads 64" in " ".join(result.stderr.split())
    assert "«meow»" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fill-mask", "--model", "no/such/folder/here", "a [MASK]"], "no/such/folder/here"),
        (["evaluate", "{folder}", "--data", "/no/such/data"], "/no/such/data"),
        (["train", "{tmp}", "--data", "{data}"], "Start from an AudioBERT with --model"),
        (["train", "{tmp}", "--data", "{data}", "--model", "{folder}", "--audio", "trained"], "go together"),
        (["train", "{tmp}", "--data", "{data}", "--bert", "x"], "--bert and --ast"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(arguments, message, folder, data, tmp_path):
    arguments = [a.format(folder=folder, data=data, tmp=tmp_path) for a in arguments]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())


def test_train_detector_then_train_then_evaluate(folder, data, tmp_path):
    detector, trained = tmp_path / "detector", tmp_path / "trained"
    result = runner.invoke(app, ["train-detector", str(detector), "--model", folder, "--data", data, "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "span_f1" in result.stdout
    options = ["--data", data, "--epochs", "1", "--seed", "3"]
    result = runner.invoke(app, ["train", str(trained), "--model", str(detector), *options])
    assert result.exit_code == 0, result.output
    assert set(json.loads((trained / "scores.json").read_text())) >= {"eval_accuracy", "eval_pitch_accuracy"}

    result = runner.invoke(app, ["evaluate", str(trained), "--data", data, "--format", "json"])
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)["scores"]
    assert set(scores) == {"dev", "test", "wiki"}
    assert set(scores["test"]) == {"animal", "pitch", "combined"}
    markdown = runner.invoke(app, ["evaluate", str(trained), "--data", data, "--format", "markdown", "--split", "dev"])
    assert "| dev | animal |" in markdown.stdout


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("bert")
    audiobert = hearing_audiobert()
    original_bert(audiobert).save_pretrained(path)
    audiobert.tokenizer.save_pretrained(path)
    return str(path)


def test_any_model_is_evaluated_beside_text_only_controls(bert, data, tmp_path):
    causal = str(make_causal(tmp_path / "llama", "llama"))
    saved = [tmp_path / f"{name}.jsonl" for name in ("masked", "causal", "served")]
    for model, path in ((bert, saved[0]), (causal, saved[1])):
        result = runner.invoke(app, ["evaluate", model, "--data", data, "--save", str(path), "--format", "json"])
        assert result.exit_code == 0, result.output
        beside = {"linear text-only", "majority answer"}
        if model == folder:
            beside |= {"audio off", "random recordings"}
        assert set(json.loads(result.stdout)["accuracy"]) == {Path(model).name, *beside}
    with LlmServer(lambda prompt: "higher") as server:
        llm = ["--llm-url", server.url, "--replies", str(tmp_path / "replies"), "--no-controls"]
        arguments = ["evaluate", MODEL, "--data", data, "--task", "pitch", "--save", str(saved[2]), *llm]
        result = runner.invoke(app, [*arguments, "--format", "markdown"])
        assert result.exit_code == 0, result.output
        asked = len(server.requests)
        assert "majority" not in result.stdout
        runner.invoke(app, arguments)
        assert len(server.requests) == asked, "replies that are kept were asked for again"
    assert {row.predicted for row in load_predictions(saved[2])} == {"higher"}

    page = tmp_path / "page.html"
    options = ["--audio", str(saved[0]), "--control", str(saved[1]), "--page", str(page), "--format", "json"]
    result = runner.invoke(app, ["compare", *options])
    assert result.exit_code == 0, result.output
    assert "mcnemar_p_holm" in result.stdout
    assert "<html" in page.read_text(encoding="utf-8")
    result = runner.invoke(app, ["compare", *options, "--data", data])
    assert set(json.loads(result.stdout)) == {"columns", "strata"}
    result = runner.invoke(app, ["compare", "--audio", str(saved[0]), "--control", str(saved[2])])
    assert result.exit_code == 1
    assert "cannot be paired" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "rank"], "--method means nothing for a masked model"),
        (["--kind", "causal", "--spans", "gold"], "--spans means nothing for a causal model"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message, bert, data):
    result = runner.invoke(app, ["evaluate", bert, "--data", data, *options])
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())


def test_four_choices(bert, tmp_path):
    choices = write_csv(
        tmp_path / "choices.csv",
        ["animal", "span", "sentence", "A", "B", "C", "D", "Answer"],
        [["cat", "meow", "Meow is the sound a [MASK] makes.", "dog", "cat", "duck", "rain", "B"]],
    )
    result = runner.invoke(app, ["evaluate-choices", bert, str(choices), "--format", "json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == 1


def test_explain(folder, tmp_path):
    page = tmp_path / "explanation.html"
    result = runner.invoke(app, ["explain", AUDITORY, "--model", folder, "--out", str(page)])
    assert result.exit_code == 0, result.output
    assert AUDITORY.split()[0] in page.read_text(encoding="utf-8")
    result = runner.invoke(app, ["explain", "no gap", "--model", folder, "--out", str(page)])
    assert result.exit_code == 1


def test_the_control_keeps_no_audio(folder, data, tmp_path):
    options = ["--model", folder, "--data", data, "--epochs", "1", "--audio", "none"]
    result = runner.invoke(app, ["train", str(tmp_path / "control"), *options])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "control" / "config.json").read_text())["injection"] == "none"
    answer = fill_mask("--model", str(tmp_path / "control"), "--json", AUDITORY)
    assert json.loads(answer.stdout)[0]["spans"][0]["span"]["recordings"] == []


def test_the_control_with_labels_as_text(folder, data, tmp_path):
    options = ["--model", folder, "--data", data, "--epochs", "1", "--hearing", "label-text"]
    result = runner.invoke(app, ["train", str(tmp_path / "sound"), *options])
    assert result.exit_code == 1 and "must be 'none'" in " ".join(result.stderr.split())
    result = runner.invoke(app, ["train", str(tmp_path / "control"), *options, "--audio", "none"])
    assert result.exit_code == 0, result.output
    control = str(tmp_path / "control")
    result = runner.invoke(
        app, ["evaluate", control, "--data", data, "--hearing", "label-text", "--format", "json", "--no-controls"]
    )
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["accuracy"]) == ["control"]


def test_what_is_left_of_bert(folder, tmp_path):
    (tmp_path / "text.txt").write_text(f"{PLAIN} and of the dog\n" * 3, encoding="utf-8")
    result = runner.invoke(app, ["preservation", str(tmp_path), "--model", folder, "--format", "json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["answers"]["identical"] == found["answers"]["prompts"] == 3
    assert set(found["pseudo_perplexity"]) == {"plain BERT", "AudioBERT", "AudioBERT, LoRA forced on"}


def test_train_clap_then_build_a_knowledge_base_then_use_it(folder, data, tmp_path):
    rows = [{"file_name": f"{i}.wav", "label": ("dog", "cat")[i % 2], "source": "me"} for i in range(8)]
    audio = str(write_recordings(tmp_path / "audio", rows))
    (tmp_path / "audio" / "7.wav").write_bytes(b"no sound")
    clap, ast = str(save_tiny_clap(tmp_path / "clap")), str(save_tiny_ast(tmp_path / "ast", hidden_size=12))
    options = ["--clap", clap, "--data", data, "--epochs", "1"]
    result = runner.invoke(app, ["train-clap", audio, str(tmp_path / "trained"), *options])
    assert result.exit_code == 0, result.output
    assert "precision_at_1" in result.stdout

    base = str(tmp_path / "base")
    options = ["--clap", str(tmp_path / "trained"), "--ast", ast, "--source", "me"]
    result = runner.invoke(app, ["build-knowledge-base", audio, base, *options])
    assert result.exit_code == 0, result.output
    assert "7 recordings" in result.stdout
    assert "7.wav" in result.stdout

    options = ["--model", folder, "--knowledge-base", base, "--data", data, "--epochs", "1"]
    result = runner.invoke(app, ["train", str(tmp_path / "model"), *options])
    assert result.exit_code == 0, result.output
    answer = fill_mask("--model", str(tmp_path / "model"), "--json", AUDITORY)
    (recording,) = json.loads(answer.stdout)[0]["spans"][0]["span"]["recordings"]
    assert recording["label"] in ("dog", "cat")
