"""Invented names mean nothing, and those that are kept for measuring are never given in training."""

import re

import pytest

from audiobert.listening import names
from audiobert.listening.names import invented_names, is_held_out_name


def test_names_are_distinct_words_that_can_be_said():
    drawn = invented_names(2000, seed=0)
    assert len(set(drawn)) == 2000
    syllables = r"(qu|[^aeiou]{1,2})[aeiou]{1,2}[^aeiou]{1,2}([aeiou][^aeiou]{0,2})?"
    assert [name for name in drawn if not re.fullmatch(syllables, name)] == []


def test_the_seed_alone_decides_and_more_names_go_on_from_fewer():
    assert invented_names(20, seed=3) == invented_names(50, seed=3)[:20]
    assert invented_names(20, seed=3) != invented_names(20, seed=4)


def test_no_name_is_a_word_that_is_taken_in_any_case():
    drawn = invented_names(40, seed=0)
    others = invented_names(40, seed=0, taken=[name.upper() for name in drawn[:10]])
    assert not set(drawn[:10]) & set(others)
    assert set(drawn[10:]) <= set(others)


def test_names_for_measuring_are_of_their_own():
    training, measuring = invented_names(3000, seed=0), invented_names(300, seed=0, held_out=True)
    assert not set(training) & set(measuring)
    assert all(map(is_held_out_name, measuring))


def test_more_names_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(names, "_ONSETS", ("b",))
    with pytest.raises(ValueError, match="no 5000 invented names beside the 1 taken"):
        invented_names(5000, seed=0, taken=["bat"])
