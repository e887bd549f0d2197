"""
Sentences about sounds, in the forms that the train rows of AuditoryBench have.

The weights are counts over `pitch_train.csv` (8,312 rows, each with the two things compared cut out) and
`animal_train.csv` (4,211 rows): a form is as frequent here as it is there. Nothing but names of two sounds, or the name
of one, goes in, so that a sentence never tells the answer.
"""

from __future__ import annotations

import random

from ..data.masking import MASK

Sentence = tuple[str, list[str]]

# "{a}" is the name with its article, "{}" the name alone.
_FIRST = {
    "The sound of {a}": 5546,
    "The sound of {}": 2206,
    "{a}": 279,
    "The {}": 72,
    "{}": 56,
    "The sound of the {}": 37,
}
_VERBS = {"typically has": 6814, "has": 1474, "usually has": 3}
_SECOND = {
    "{a}": 3126,
    "the sound of {a}": 2085,
    "the sound of {}": 1506,
    "the {}": 1006,
    "{}": 380,
    "the sound of the {}": 15,
}

# The article before the mask is "a" whatever the answer is, which is so in 97 % of the train rows.
_ANIMAL = {
    "A {mask} makes {a} sound.": 662,
    "{} is the sound a {mask} makes.": 442,
    "A {mask} makes {a}.": 176,
    "The sound of a {mask} is {a}.": 95,
    "A {mask} makes a sound like {a}.": 66,
    "The {mask} makes {a} sound.": 41,
    "The {mask} makes {a}.": 37,
    "A {mask} makes a sound like {}.": 29,
    "The sound of a {mask} is a distinctive {}.": 21,
    "The sound of {} is typically associated with a {mask}.": 20,
    "The sound of a {mask} is often described as {a}.": 20,
    "The {mask} makes a distinctive {} sound.": 18,
    "A {mask} makes a loud {} sound.": 13,
    "A {mask} makes a sound of {}.": 12,
    "The sound of {} is associated with a {mask}.": 12,
    "A {mask} makes a sound like '{}'.": 11,
    "A {mask} makes a sound called {a}.": 10,
    "A {mask} makes {a} noise.": 10,
    "The sound of a {mask} is {}.": 10,
}
# "... makes a blicking sound": so many of the descriptions of one word end.
_ING = 0.4


def pitch_sentence(first: str, second: str, draw: random.Random) -> Sentence:
    """
    "The sound of a blick typically has a [MASK] pitch than a drooth."

    Args:
        first, second: the names of two sounds, of any words.
        draw: chooses the form, and from nothing but itself.

    Returns:
        The sentence, to be answered by "higher" or "lower", and its spans: the two names as they stand in it.
    """
    subject, verb, other = (_chosen(forms, draw) for forms in (_FIRST, _VERBS, _SECOND))
    sentence = f"{_filled(subject, first)} {verb} a {MASK} pitch than {_filled(other, second)}."
    return _capital(sentence), [first, second]


def animal_sentence(sound: str, draw: random.Random) -> Sentence:
    """
    "Blick is the sound a [MASK] makes.", "A [MASK] makes a blicking sound."

    Args:
        sound: an invented word for a sound.
        draw: chooses the form, and from nothing but itself.

    Returns:
        The sentence, to be answered by an animal, and its span: the word as it stands in it.
    """
    if draw.random() < _ING:
        sound = f"{sound.removesuffix('e')}ing"
    form = _chosen(_ANIMAL, draw).replace("{mask}", MASK)
    return _capital(_filled(form, sound)), [sound]


def _chosen(forms: dict[str, int], draw: random.Random) -> str:
    return draw.choices(list(forms), list(forms.values()))[0]


def _filled(form: str, name: str) -> str:
    return form.replace("{a}", _with_article(name)).replace("{}", name)


def _with_article(name: str) -> str:
    if name.endswith("s") and not name.endswith("ss"):
        return name  # bagpipes, tubular bells
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
