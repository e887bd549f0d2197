"""What setup.cfg declares is what is imported, and its lower bounds are those that CI tries."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUP = ROOT / "setup.cfg"
INSTALLED_AS = {"faiss": "faiss-cpu", "sklearn": "scikit-learn"}
# The rooms that an extra stands for; what the core has to do with imports the core's packages alone.
ROOMS = {
    "sounds": "audio",
    "training": "train",
    "evaluation": "evaluate",
    "benchmark": "benchmark",
    "reproduction": "reproduce",
}
CORE = ["__init__", "__main__", "cli", "console", "imports", "files", "inference", "reports"]


def configuration() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(SETUP, encoding="utf-8")
    return parser


def requirements(text: str) -> dict[str, str]:
    """Names and what is asked of their versions."""
    lines = [line for line in text.splitlines() if line and not line.startswith("audiobert[")]
    return {re.split(r"[<>=]", line)[0]: line for line in lines}


def with_extra(name: str) -> set[str]:
    """What is installed with an extra, the core and other extras that it takes along included."""
    config = configuration()
    names, found = [name], set(requirements(config["options"]["install_requires"]))
    for extra in names:
        text = config["options.extras_require"][extra]
        found |= set(requirements(text))
        names += [other for group in re.findall(r"audiobert\[(.+)\]", text) for other in group.split(",")]
    return found


def imported(path: Path, at_import_only: bool = False) -> set[str]:
    """The packages of others that a module imports, as they are installed."""
    names = set()
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    for node in nodes:
        if at_import_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
        nodes += ast.iter_child_nodes(node)
    return {INSTALLED_AS.get(name, name) for name in names - set(sys.stdlib_module_names)}


def modules_of(room: str) -> list[Path]:
    return [*(ROOT / "audiobert" / room).rglob("*.py")]


@pytest.mark.parametrize(("room", "extra"), ROOMS.items())
def test_a_room_imports_what_its_extra_installs(room, extra):
    for path in modules_of(room):
        assert imported(path) <= with_extra(extra), path


@pytest.mark.parametrize("path", [*(ROOT / "audiobert").rglob("*.py"), *(ROOT / "modeling").glob("*.py")], ids=str)
def test_every_import_is_declared(path):
    assert imported(path) <= with_extra("all")


def test_the_core_is_what_an_answer_needs():
    core = set(requirements(configuration()["options"]["install_requires"]))
    light = [path for name in CORE for path in (ROOT / "audiobert").glob(f"{name}*") if path.suffix == ".py"]
    commands = [*(ROOT / "audiobert").rglob("cli.py")]
    travelling = [*(ROOT / "modeling").glob("*.py")]
    assert set().union(*(imported(path) for path in travelling)) <= core
    for path in light + commands:
        assert imported(path, at_import_only=True) <= core, path


CORE_ALONE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)

blocked = set(sys.argv.pop(1).split(","))
sys.meta_path = [Without(finder) for finder in sys.meta_path]
from audiobert.cli import app
app()
"""
# What an extra installs and no package of the core asks for.
EXTRA_ALONE = ["datasets", "evaluate", "librosa", "matplotlib", "scipy", "sklearn", "soundfile", "soxr"]


@pytest.mark.processes
def test_the_core_alone_answers_a_prompt():
    arguments = [",".join(EXTRA_ALONE), "fill-mask", "Meow is the sound a [MASK] makes."]
    command = [sys.executable, "-c", CORE_ALONE, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (0, "")
    assert "as cat" in result.stdout


def test_nothing_is_declared_that_nothing_imports():
    used = set().union(
        *(imported(path) for folder in ("audiobert", "modeling") for path in (ROOT / folder).rglob("*.py"))
    )
    # transformers' Trainer imports accelerate, for us.
    assert with_extra("all") - used <= {"accelerate"}


def test_the_oldest_releases_that_ci_tries_are_the_lower_bounds():
    config = configuration()
    declared = requirements(config["options"]["install_requires"])
    for text in config["options.extras_require"].values():
        declared |= requirements(text)
    pins = dict(
        line.split("==")
        for line in (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    bounds = {name: re.search(r">=([\d.]+)", line)[1] for name, line in declared.items()}
    assert set(pins) == set(bounds)
    for name, bound in bounds.items():
        assert f"{pins[name]}.".startswith(f"{bound}."), name


def test_every_package_is_installed():
    packages = configuration()["options"]["packages"].split()
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "audiobert").rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} <= set(packages)
