"""What an install brings: a light import and a checkpoint that answers."""

import json
import subprocess
import sys

import pytest
import yaml
from transformers import pipeline

import audiobert
from audiobert import AudioBertForMaskedLM, bundled

MEOW = "Meow is the sound a [MASK] makes."
PLAIN = "The [MASK] of the city was built in the same year."


@pytest.fixture(scope="module")
def model() -> AudioBertForMaskedLM:
    return AudioBertForMaskedLM.from_pretrained(bundled())


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300, stdin=subprocess.DEVNULL
    ).stdout


LIGHT = ["audiobert", "audiobert.sounds.decoding", "audiobert.benchmark.pitch", "audiobert.cli"]


@pytest.mark.processes
@pytest.mark.parametrize("module", LIGHT)
def test_imports_are_light(module):
    loaded = run_python(f"import {module}, sys; print(*sys.modules)").split()
    assert not {"torch", "transformers", "peft", "faiss", "datasets", "librosa", "evaluate"} & set(loaded)


@pytest.mark.processes
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_light(option):
    code = f"import sys; sys.argv = ['audiobert', {option!r}]\n"
    code += "from audiobert.cli import app\ntry: app()\nexcept SystemExit: print(*sys.modules)"
    loaded = run_python(code).split()
    assert "typer" in loaded
    assert not {"torch", "transformers", "datasets", "pyarrow", "numpy"} & set(loaded)


IMPORTS = ["from transformers import AutoModelForMaskedLM", "import audiobert"]


@pytest.mark.processes
@pytest.mark.parametrize(
    "imports",
    [
        IMPORTS,
        IMPORTS[::-1],
        ["import audiobert", "from transformers.models.auto.modeling_auto import AutoModelForMaskedLM"],
        ["from audiobert.modeling import AudioBertForMaskedLM", *IMPORTS],
        # To ask whether there is a package is not to import it.
        ["import audiobert, importlib.util", "importlib.util.find_spec('transformers')", IMPORTS[0]],
    ],
)
def test_the_auto_classes_know_audiobert_whatever_is_imported_first(imports):
    code = [*imports, "print(type(AutoModelForMaskedLM.from_pretrained(audiobert.bundled())).__module__)"]
    assert run_python("\n".join(code)).strip() == "audiobert.modeling.modeling_audiobert"


def test_public_names_are_listed_and_there():
    assert set(audiobert.__all__) <= set(dir(audiobert))
    assert all(getattr(audiobert, name) is not None for name in audiobert.__all__)
    # It needs an extra, and `import *` needs none.
    assert "add_recordings" in dir(audiobert) and "add_recordings" not in audiobert.__all__
    assert callable(audiobert.add_recordings)
    with pytest.raises(AttributeError, match="no attribute 'AudioBertForSpeech'"):
        _ = audiobert.AudioBertForSpeech


def test_an_unknown_bundled_name_names_those_there_are():
    with pytest.raises(ValueError, match="there is audiobert-tiny"):
        bundled("audiobert-huge")


def test_the_bundled_checkpoint_is_small_and_whole():
    files = [path for path in bundled().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    names = {path.relative_to(bundled()).as_posix() for path in files}
    assert {
        "README.md",
        "ATTRIBUTION.csv",
        "model.safetensors",
        "knowledge_base/text_encoder/model.safetensors",
    } <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_the_card_is_a_hub_model_card():
    _, header, body = (bundled() / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["pipeline_tag"] == "fill-mask"
    assert metadata["license"] == "cc-by-nc-3.0"
    for section in ("Use", "Training", "Results", "Limits", "Licenses and attribution"):
        assert f"\n## {section}\n" in body
    assert "@" + "RESULTS@" not in body


def test_its_recordings_are_those_that_may_be_shipped(model):
    sounds = [model.knowledge_base.recording(index) for index in range(len(model.knowledge_base))]
    assert {recording.source for recording in sounds} == {"ESC-10", "ESC-50"}
    attribution = (bundled() / "ATTRIBUTION.csv").read_text(encoding="utf-8")
    assert all(recording.id in attribution for recording in sounds)


def test_its_first_answer(model):
    fill = pipeline("fill-mask", model=str(bundled("audiobert-tiny")))
    assert fill(MEOW)[0]["token_str"] == "cat"
    import torch

    with torch.no_grad():
        output = model(**model.tokenizer([MEOW, PLAIN], return_tensors="pt", padding=True))
    ((span,), nothing) = output.spans
    assert (span.text, span.recordings[0].label) == ("meow", "cat")
    assert nothing == []


def test_it_is_loaded_in_the_precision_it_computes_in(model):
    import torch

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_code_in_the_checkpoint_is_the_packages():
    for path in bundled().glob("*_audiobert.py"):
        own = bundled().parent.parent / "modeling" / path.name
        assert path.read_bytes() == own.read_bytes(), f"save the checkpoint again: {path.name} has changed"


def test_the_default_of_the_command_line_is_the_bundled_checkpoint():
    from typer.testing import CliRunner

    from audiobert.cli import app

    result = CliRunner().invoke(app, ["fill-mask", "--json", MEOW])
    assert result.exit_code == 0, result.output
    (answer,) = json.loads(result.stdout)
    assert answer["answers"][0][0]["token"] == "cat"


def test_version():
    from importlib.metadata import version

    assert audiobert.__version__ == version("audiobert")
