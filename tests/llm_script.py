"""A stand-in for a language model: sensible answers to the templates of `audiobert.benchmark`, and some bad ones.

What is answered depends on the prompt alone. A fixed share of the prompts gets a reply of each kind that the checks
refuse, another a good reply in an unusual dress.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Sound(NamedTuple):
    """What the stand-in knows of a sound; `answer` and `call` are those of animals, `hz` is a guess of its pitch."""

    category: str
    phrase: str
    hz: int
    answer: str = ""
    call: str = ""


def animal(path: str, answer: str, call: str, hz: int = 500) -> Sound:
    return Sound(f"animal/{path}", call, hz, answer, call)


SOUNDS = {
    "dog": animal("mammal/dog", "dog", "woof woof"),
    "cat": animal("mammal/cat", "cat", "meow"),
    "cow": animal("mammal/cow", "cow", "moo"),
    "lion": animal("mammal/lion", "lion", "deep roar"),
    "sheep": animal("mammal/sheep", "sheep", "baa"),
    "pig": animal("mammal/pig", "pig", "oink oink"),
    "monkey": animal("mammal/monkey", "monkey", "ooh ooh aah"),
    "donkey": animal("mammal/donkey", "donkey", "hee haw"),
    "frog": animal("amphibian/frog", "frog", "ribbit"),
    "bird": animal("bird", "bird", "tweet tweet"),
    "chirping birds": animal("bird", "bird", "bright chirping"),
    "rooster": animal("bird/rooster", "rooster", "cock-a-doodle-doo"),
    "hen": animal("bird/hen", "hen", "cluck cluck"),
    "chicken": animal("bird/chicken", "chicken", "bawk bawk"),
    "crow": animal("bird/crow", "crow", "caw caw"),
    "insects": animal("insect/bee", "bee", "buzz"),
    "crickets": animal("insect/cricket", "cricket", "steady chirp at night"),
    "crying baby": Sound("person/baby/crying", "crying of a baby", 450),
    "sneezing": Sound("person/sneeze", "sneeze of a person", 600),
    "coughing": Sound("person/cough", "cough of a person", 400),
    "laughing": Sound("person/laughter", "laughter of a person", 350),
    "snoring": Sound("person/snore", "snoring of a sleeper", 90),
    "breathing": Sound("person/breath", "breathing of a person", 700),
    "clapping": Sound("person/applause", "clapping of hands", 1100),
    "footsteps": Sound("person/footsteps", "footsteps on a floor", 200),
    "brushing teeth": Sound("person/brushing teeth", "brushing of teeth", 2500),
    "drinking or sipping": Sound("person/drinking", "sip from a cup", 900),
    "rain": Sound("environment/weather/rain", "patter of rain", 2200),
    "wind": Sound("environment/weather/wind", "howl of the wind", 300),
    "thunderstorm": Sound("environment/weather/thunderstorm", "rumble of thunder", 60),
    "sea waves": Sound("environment/water/sea", "waves on a beach", 500),
    "water drops": Sound("environment/water/drops", "drip of water", 1500),
    "pouring water": Sound("environment/water/pouring", "gurgle of water poured into a glass", 800),
    "crackling fire": Sound("environment/fire", "crackle of a fire", 1800),
    "church bells": Sound("music/bell/church bell", "ringing of church bells", 620),
    "guitar": Sound("music/string instrument/guitar", "strum of a guitar", 330),
    "piano": Sound("music/keyboard/piano", "note of a piano", 440),
    "flute": Sound("music/wind instrument/flute", "tone of a flute", 880),
    "drum": Sound("music/percussion/drum", "beat of a drum", 110),
    "helicopter": Sound("object/vehicle/helicopter", "rotor of a helicopter", 100),
    "airplane": Sound("object/vehicle/airplane", "drone of an airplane", 160),
    "train": Sound("object/vehicle/train", "passing of a train", 240),
    "engine": Sound("object/engine", "idling of an engine", 80),
    "car horn": Sound("object/vehicle/car horn", "honk of a car horn", 420),
    "siren": Sound("object/alarm/siren", "wail of a siren", 1000),
    "clock alarm": Sound("object/clock/alarm clock", "beep of an alarm clock", 2000),
    "clock tick": Sound("object/clock", "tick of a clock", 2800),
    "chainsaw": Sound("object/tool/chainsaw", "snarl of a chainsaw", 180),
    "hand saw": Sound("object/tool/hand saw", "rasp of a hand saw", 1300),
    "vacuum cleaner": Sound("object/household/vacuum cleaner", "drone of a vacuum cleaner", 250),
    "washing machine": Sound("object/household/washing machine", "hum of a washing machine", 120),
    "toilet flush": Sound("object/household/toilet", "flush of a toilet", 750),
    "keyboard typing": Sound("object/computer/keyboard", "clatter of a keyboard", 1900),
    "mouse click": Sound("object/computer/mouse", "click of a computer mouse", 2600),
    "glass breaking": Sound("object/glass", "shattering of a glass", 3000),
    "can opening": Sound("object/can", "hiss of a can that is opened", 2400),
    "door knock": Sound("object/door/knock", "knock on a door", 150),
    "door wood creaks": Sound("object/door/creak", "creak of a wooden door", 650),
    "fireworks": Sound("object/fireworks", "bang of fireworks", 130),
}
# Of so many prompts one gets a bad reply, and one a good reply in an unusual dress.
ONE_BAD_IN = 6
ONE_DRESSED_IN = 5
# Chosen so that the commonest sounds of small collections do not all get bad replies.
SALT = 4


def scripted_reply(prompt: str) -> str:
    """The reply to a prompt that was made with one of the package's four templates."""
    fields = last_record(prompt)
    draw = int.from_bytes(
        hashlib.sha256(repr((SALT, sorted(fields.items()))).encode(errors="replace")).digest()[:8], "big"
    )
    if "sentence" in fields:
        good, bad = blind_replies(fields)
    elif "first title" in fields:
        good, bad = comparison_replies(fields)
    elif fields["category"]:
        good, bad = animal_replies(fields)
    else:
        good, bad = category_replies(fields)
    if draw % ONE_BAD_IN == 0:
        return bad[draw // ONE_BAD_IN % len(bad)]
    return dressed(good, draw // ONE_DRESSED_IN) if draw % ONE_DRESSED_IN == 0 else good


def last_record(prompt: str) -> dict[str, str]:
    """The fields of the record that is asked about: the last paragraph."""
    lines = prompt.rstrip().rpartition("\n\n")[2].splitlines()
    return {label.lower(): value.strip() for label, _, value in (line.partition(":") for line in lines)}


def sound_of(*texts: str) -> Sound | None:
    """The sound that the words speak of; the longest name wins, as in "chirping birds"."""
    words = " ".join(texts).lower()
    named = [name for name in SOUNDS if re.search(rf"\b{name}s?\b", words)]
    return SOUNDS[max(named, key=len)] if named else None


def dressed(reply: str, draw: int) -> str:
    """The same reply as other models write it."""
    forms = (
        f"```\n{reply}\n```",
        "\n".join(f"  {line}  " for line in reply.splitlines()),
        re.sub(r"(?m)^([A-Z][a-z]+(?: \d)?): (.*)$", r'**\1:** "\2"', reply),
        re.sub(r"(?m)^([A-Z][a-z]+(?: \d)?):", lambda match: match[0].upper(), reply),
    )
    return forms[draw % len(forms)]


def category_replies(fields: dict[str, str]) -> tuple[str, list[str]]:
    sound = sound_of(fields["title"], fields["tags"], fields["description"])
    path = sound.category if sound else "0"
    return path, [
        "0",
        "```",
        f"{path}\nThe title says so.",
        "object/a/b/c/d/e",
        "object//thing",
        "动物/狗",
        f"Sure! The category is {path}",
        f"object/{'very ' * 10}long name",
    ]


def animal_replies(fields: dict[str, str]) -> tuple[str, list[str]]:
    sound = sound_of(fields["title"], fields["tags"], fields["description"], fields["category"])
    if sound is None or not sound.answer:
        return "0", ["0"]
    call, name = sound.call, sound.answer

    def reply(sentence: str, answer: str = name, span: str = call) -> str:
        return f"Prompt: {sentence}\nAnswer: {answer}\nSpan: {span}"

    good = f"{call.capitalize()} is the sound a [MASK] makes."
    return reply(good), [
        "0",
        "```",
        f"Here is a prompt.\n{reply(good)}",
        f"Prompt: {good}\nAnswer: {name}",
        f"{reply(good)}\nAnswer: {name}",
        reply(f"{call.capitalize()} is the sound it makes."),
        reply(f"A [MASK] makes a {call} sound when it sees a [MASK]."),
        reply(f"Many [MASK]s make a {call} sound."),
        reply(f"当你听到“{call}”时，那是一只[MASK]。"),
        reply(f"Le [MASK] fait {call} le matin."),
        reply(f"{call.capitalize()} is the sound a [MASK] makes, as every {name} does."),
        reply(good, answer=""),
        reply(good, answer="動物"),
        reply(good, answer="a very small furry friend"),
        reply(good, answer="zombie"),
        reply(good, span=""),
        reply(good, span="sound a [MASK] makes"),
        reply(good, span="whirr"),
    ]


def comparison_replies(fields: dict[str, str]) -> tuple[str, list[str]]:
    first, second = (
        sound_of(*(fields[f"{side} {name}"] for name in ("title", "tags", "description", "category")))
        for side in ("first", "second")
    )
    if first is None or second is None or first == second:
        return "0", ["0"]
    one, other = first.phrase, second.phrase
    direction, opposite = ("higher", "lower") if first.hz > second.hz else ("lower", "higher")

    def reply(sentence: str, answer: str = direction, spans: tuple[str, str] = (one, other)) -> str:
        return f"Prompt: {sentence}\nAnswer: {answer}\nSpan 1: {spans[0]}\nSpan 2: {spans[1]}"

    good = f"The {one} typically has a [MASK] pitch than the {other}."
    return reply(good), [
        "0",
        "```",
        f"{reply(good)}\nI hope this helps!",
        f"Prompt: {good}\nAnswer: {direction}\nSpan 1: {one}",
        f"Prompt: {good}\n{reply(good)}",
        reply(good.replace("[MASK]", "different")),
        reply(f"{good} It is [MASK]."),
        reply(f"{one}的音高比{other}[MASK]。"),
        reply(good.replace("[MASK] pitch", "[MASK]er pitch")),
        reply(good, answer="the same"),
        reply(good, answer=opposite),
        reply(f"The {one} has a [MASK] pitch, higher or lower, than the {other}."),
        reply(good, spans=(one, "sound of the other")),
        reply(good, spans=("", other)),
        reply(good, spans=(f"{one} typically has a [MASK] pitch", other)),
        reply(good, spans=(other, one)),
        reply(f"The {one} has a [MASK] pitch than the {one}.", spans=(one, one)),
    ]


def blind_replies(fields: dict[str, str]) -> tuple[str, list[str]]:
    hertz = {sound.phrase: sound.hz for sound in SOUNDS.values()}
    first, second = hertz.get(fields["first sound"].lower()), hertz.get(fields["second sound"].lower())
    if first is None or second is None:
        return "0", ["0"]
    answer, opposite = ("higher", "lower") if first > second else ("lower", "higher")
    return answer, ["0", opposite, "It depends on the recording.", f"{answer}\n{answer}"]


class FakeChat:
    """A `ChatModel` without a server: the answers of a function, one row after the other."""

    def __init__(self, answer: Callable[[str], str] = scripted_reply) -> None:
        self.answer = answer
        self.requests: list[tuple[str, Any]] = []

    async def reply(self, prompt: str, sampling: Any) -> str:
        self.requests.append((prompt, sampling))
        return self.answer(prompt)

    def map(self, work: Callable[[dict], Awaitable[dict]], rows: Iterable[dict]) -> Iterator[dict]:
        return (asyncio.run(work(row)) for row in rows)
