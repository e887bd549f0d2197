"""Settings are kept beside what was made with them, and other ones are refused with what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiobert.files import settle_settings

SETTINGS = {"seed": 0, "arguments": {"rate": 0.1, "sizes": (1, 2)}, "data": "a" * 64, "none": None}


def test_the_same_settings_are_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "settings.json"
    settle_settings(path, SETTINGS)
    before = path.read_bytes()
    settle_settings(path, {**SETTINGS})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["settings.json"]


def test_others_are_refused_and_each_difference_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    settle_settings(path, SETTINGS)
    other = {"seed": 1, "arguments": {"rate": 0.2, "sizes": [1, 2], "more": "x"}, "data": "b" * 64}
    with pytest.raises(ValueError) as raised:
        settle_settings(path, other)
    differences = (
        "seed 0, now 1",
        "arguments.rate 0.1, now 0.2",
        'arguments.more absent, now "x"',
        f"data {'a' * 12}, now {'b' * 12}",
        "none null, now absent",
    )
    assert all(difference in str(raised.value) for difference in differences)
    assert f"Name another folder, go back to the settings in settings.json, or remove {tmp_path}" in str(raised.value)


def test_of_many_differences_some_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    settle_settings(path, {str(number): 0 for number in range(9)})
    with pytest.raises(ValueError, match="; and 4 more"):
        settle_settings(path, {str(number): 1 for number in range(9)})


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_file_that_holds_no_settings_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path} .*name another folder"):
        settle_settings(path, SETTINGS)
