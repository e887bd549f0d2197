"""How commands fail: one sentence for what a user can mend, a traceback for what only a developer can."""

import errno
import importlib
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from audiobert.console import Debugging, check_output_folder, err, out, plain_errors


@plain_errors
def command(error: Exception | None = None, text: str = "", device: str = "cpu", path: Path = Path()) -> None:
    if error is not None:
        raise error
    out.print("word " * 60)


def test_what_a_user_can_mend_is_one_sentence_on_one_line(capsys):
    with pytest.raises(typer.Exit) as exited:
        command(FileNotFoundError(errno.ENOENT, "No such file", "long/" * 60 + "name"))
    assert exited.value.exit_code == 1
    assert capsys.readouterr().err == f"Error: [Errno 2] No such file: '{'long/' * 60}name'\n"


def test_a_message_in_a_pipe_is_one_line(capsys):
    command()
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_full_disk_says_what_to_do(capsys):
    with pytest.raises(typer.Exit):
        command(OSError(errno.ENOSPC, "No space left on device"))
    assert "Make room on the disk" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [KeyError("a"), TypeError("a"), RuntimeError("a"), AssertionError("a")])
def test_a_fault_of_ours_keeps_its_traceback(fault):
    with pytest.raises(type(fault)):
        command(fault)


def test_a_value_error_that_is_not_our_word_keeps_its_traceback():
    @plain_errors
    def broken() -> None:
        import random

        random.sample([1], 2)

    with pytest.raises(ValueError):
        broken()


def test_debugging_shows_every_traceback(monkeypatch):
    monkeypatch.setattr(Debugging, "on", True)
    with pytest.raises(FileNotFoundError):
        command(FileNotFoundError("x"))


def test_a_reader_who_has_seen_enough_is_no_error(capsys):
    with pytest.raises(BrokenPipeError):
        command(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_the_work(device, capsys):
    with pytest.raises(typer.Exit):
        command(AssertionError("the work began"), device=device)
    assert f"--device {device} cannot be used here" in capsys.readouterr().err


def test_an_argument_that_is_no_text_is_refused(capsys):
    with pytest.raises(typer.Exit):
        command(text="\udcff [MASK]")
    assert r"no UTF-8: \xff [MASK]" in capsys.readouterr().err


def test_an_extra_that_is_missing_is_named(capsys, monkeypatch):
    # None in sys.modules would be an error of its own kind: the package has to be found by nobody.
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.delitem(sys.modules, "audiobert.reproduction.figures", raising=False)
    finders = [f if type(f).__name__ == "Extras" else _without("matplotlib", f) for f in sys.meta_path]
    monkeypatch.setattr(sys, "meta_path", finders)

    @plain_errors
    def draw() -> None:
        importlib.import_module("audiobert.reproduction.figures")

    with pytest.raises(typer.Exit):
        draw()
    said = capsys.readouterr().err
    assert said.strip() == (
        "Error: audiobert.reproduction.figures needs matplotlib, which is not installed: "
        "pip install 'audiobert[reproduce]'"
    )


def _without(package: str, finder):
    """A finder that finds all but one package; importlib.metadata asks it too."""

    class Hiding:
        find_distributions = staticmethod(getattr(finder, "find_distributions", lambda context=None: ()))

        @staticmethod
        def find_spec(fullname, path=None, target=None):
            return None if fullname.split(".")[0] == package else finder.find_spec(fullname, path, target)

    return Hiding()


def test_an_output_folder_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert check_output_folder(Path("new/folder")) == Path("new/folder")
    for place in (".", str(tmp_path), "file", "file/below"):
        with pytest.raises(ValueError, match="name a folder"):
            check_output_folder(Path(place))


def test_errors_go_to_standard_error():
    assert err.stderr


def test_the_global_options():
    from audiobert import __version__
    from audiobert.cli import app

    assert CliRunner().invoke(app, ["--version"]).stdout == f"audiobert {__version__}\n"
    result = CliRunner().invoke(app, ["--debug", "fill-mask", "--file", "no/such/file"])
    assert isinstance(result.exception, FileNotFoundError)
    result = CliRunner().invoke(app, ["fill-mask", "--file", "no/such/file"])
    assert isinstance(result.exception, SystemExit) and "no/such/file" in result.stderr
