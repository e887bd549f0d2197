"""What the results of a reproduction depend on, kept beside them: results of two kinds never meet in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import as_json, differing_settings, read_settings, whole_file
from .planning import RUNS_FOLDER
from .presets import Cut, Preset

CONFIGURATION_FILE = "configuration.json"
# Of the preset's values these say where checkpoints lie, not what they hold.
_PLACES = ("berts", "ast", "knowledge_base", "baselines")


def values_of(preset: Preset, cut: Cut | None) -> dict[str, Any]:
    """The part of a configuration that needs no file to be read: `preset`, `max_steps` and, of a try, `cut`."""
    values = {name: value for name, value in asdict(preset).items() if name not in _PLACES}
    if cut is None:
        return {"preset": values, "max_steps": None}
    rest = asdict(cut)
    return {"preset": values, "max_steps": rest.pop("max_steps"), "cut": rest}


def refuse_another(out: Path, values: Mapping[str, Any]) -> None:
    """
    Makes sure that what lies in a folder was made with these values; what they do not name is not looked at.

    Raises:
        ValueError: it was made with others, or it is not known with which.
        OSError: the folder or the file cannot be read.
    """
    if _has_runs(out):
        kept = _read(out / CONFIGURATION_FILE)
        _refuse_differences(
            out / CONFIGURATION_FILE, {name: kept[name] for name in values if name in kept}, as_json(values)
        )


def settle_configuration(out: Path, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """
    Keeps the configuration in `out/configuration.json`, or makes sure that it is the one that is kept there.

    Where no run was begun yet the file is written anew. Recordings that are given in one of the two alone are no
    difference, as Table III alone needs them; the file then keeps them.

    Args:
        out: the folder of the reproduction, made if it is not there.
        configuration: everything that a result depends on, but its seed: `values_of` and `contents_of`.

    Returns:
        What is in the file now.

    Raises:
        ValueError: what lies in `out` was made with another configuration, or it is not known with which.
        OSError: the folder or the file cannot be read or written.
    """
    path = out / CONFIGURATION_FILE
    settled = as_json(configuration)
    if _has_runs(out):
        kept = _read(path)
        optional = {"audio"} if kept.get("audio") is None or settled.get("audio") is None else set()
        _refuse_differences(
            path, *({name: part[name] for name in part if name not in optional} for part in (kept, settled))
        )
        settled["audio"] = settled.get("audio") or kept.get("audio")
        if settled == kept:
            return settled
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps(settled, indent=2) + "\n")
    return settled


def _has_runs(out: Path) -> bool:
    runs = out / RUNS_FOLDER
    return runs.is_dir() and any(entry.is_dir() for entry in runs.iterdir())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"{path.parent} holds runs, but no {path.name} that says how they were made: name another OUT."
        )
    return read_settings(path)


def _refuse_differences(path: Path, kept: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if differences := differing_settings(kept, now):
        raise ValueError(
            f"{path.parent} holds results of another configuration: {differences}. Name another OUT, or go back to "
            f"what {path.name} says."
        )
