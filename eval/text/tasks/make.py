"""Makes the questions of the two local tasks: `python eval/text/tasks/make.py`.

Tables and templates were written for this project and have its licence. The seed is fixed, so that
the files beside this script are what it writes.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SEED = 0
N_PROBLEMS, N_SHOTS, N_CHOICES = 200, 4, 4
FOLDER = Path(__file__).parent

CAPITALS = """France Paris, Italy Rome, Spain Madrid, Germany Berlin, Japan Tokyo, China Beijing,
Russia Moscow, Egypt Cairo, Greece Athens, Norway Oslo, Sweden Stockholm, Portugal Lisbon,
Austria Vienna, Hungary Budapest, Poland Warsaw, Ireland Dublin, Cuba Havana, Peru Lima,
Chile Santiago, Kenya Nairobi, Thailand Bangkok, Vietnam Hanoi, Iraq Baghdad, Iran Tehran,
Turkey Ankara, Finland Helsinki, Denmark Copenhagen, Belgium Brussels, Canada Ottawa,
Australia Canberra, Ukraine Kyiv, Romania Bucharest, Bulgaria Sofia, Syria Damascus"""
OPPOSITES = """hot cold, big small, fast slow, early late, high low, light dark, open closed,
full empty, rich poor, old new, strong weak, hard soft, wet dry, happy sad, left right, up down,
inside outside, before after, begin end, buy sell, win lose, push pull, love hate, always never,
thick thin, wide narrow, sweet bitter, clean dirty, loud quiet, near far, deep shallow,
brave afraid, true false, day night"""
KINDS = """fruit: apple banana cherry grape pear peach; bird: eagle sparrow owl penguin duck pigeon;
tool: hammer saw screwdriver wrench drill pliers; metal: iron copper gold silver tin lead;
vehicle: car truck bus train bicycle tram; insect: ant bee beetle moth wasp fly;
colour: red blue green yellow purple orange; instrument: piano violin flute drum trumpet guitar;
sport: tennis football hockey rugby golf basketball; fish: salmon tuna trout cod herring shark;
tree: oak pine maple birch willow elm; garment: shirt coat skirt jacket sock glove"""
USES = """cut paper: scissors; tell the time: a clock; drive a nail: a hammer;
sweep the floor: a broom; see in the dark: a lamp; open a locked door: a key;
dry your hair: a towel; eat soup: a spoon; write a letter: a pen;
stay dry in the rain: an umbrella; boil water: a kettle; sleep: a bed;
cross a river: a bridge; measure a length: a ruler; look at the stars: a telescope;
keep food cold: a refrigerator; bake bread: an oven; dig a hole: a shovel; catch fish: a net;
wash your hands: soap; light a candle: a match; climb to the roof: a ladder; sew a dress: a needle;
take a picture: a camera; weigh a parcel: a scale; find north: a compass"""
YOUNG = """dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, pig piglet, lion cub,
duck duckling, goose gosling, frog tadpole, deer fawn, kangaroo joey, hen chick"""

NAMES = [
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Kate",
    "Leo", "Mary", "Noah", "Olga", "Paul",
]  # fmt: skip
THINGS = [
    "apples", "books", "pencils", "marbles", "stamps", "shells", "cards", "cookies", "stickers",
    "coins", "buttons", "eggs",
]  # fmt: skip
PLACES = ["shop", "market", "fair", "school", "library", "kitchen"]


def pairs(text: str, between: str = ",", inside: str = " ") -> list[tuple[str, str]]:
    """`a b, c d` as pairs."""
    entries = [" ".join(entry.split()) for entry in text.split(between)]
    return [(left, right.strip()) for left, _, right in (e.partition(inside) for e in entries)]


def facts(rng: random.Random) -> list[dict[str, Any]]:
    """Rows with `question`, `choices` and `answer`, the number of the right choice."""
    rows = []
    for what, table in (
        ("What is the capital of {}?", pairs(CAPITALS)),
        ("What is the opposite of {}?", pairs(OPPOSITES)),
        ("What is a young {} called?", pairs(YOUNG)),
        ("What do you use to {}?", pairs(USES, ";", ":")),
    ):
        answers = [answer for _, answer in table]
        for about, answer in table:
            others = rng.sample([a for a in answers if a != answer], N_CHOICES - 1)
            rows.append(_row(what.format(about), answer, others, rng))
    kinds = {kind: members.split() for kind, members in pairs(KINDS, ";", ":")}
    for kind, members in kinds.items():
        article = "an" if kind[0] in "aeiou" else "a"
        for answer in rng.sample(members, 3):
            rest = rng.sample([k for k in kinds if k != kind], N_CHOICES - 1)
            others = [rng.choice(kinds[k]) for k in rest]
            rows.append(_row(f"Which of these is {article} {kind}?", answer, others, rng))
    rng.shuffle(rows)
    return rows


def _row(question: str, answer: str, others: Sequence[str], rng: random.Random) -> dict[str, Any]:
    choices = [answer, *others]
    rng.shuffle(choices)
    return {"question": question, "choices": choices, "answer": choices.index(answer)}


def problem(rng: random.Random) -> dict[str, str]:
    """A sum in words, of one step or two, worked out and ended by `#### ` as in GSM8K."""
    who, friend = rng.sample(NAMES, 2)
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    a, b, c = rng.randint(4, 20), rng.randint(2, 9), rng.randint(2, 9)
    big = a + b
    question, working, result = rng.choice(
        (
            (f"{who} has {a} {thing}. {friend} gives {who} {b} more. How many {thing} does {who} "
             f"have now?", f"{a} + {b} = {a + b}", a + b),
            (f"There are {big} {thing} in the {place}. {who} takes {b} of them away. How many "
             f"{thing} are left?", f"{big} - {b} = {a}", a),
            (f"{who} buys {b} boxes at the {place}. Each box holds {c} {thing}. How many {thing} "
             f"does {who} buy?", f"{b} * {c} = {b * c}", b * c),
            (f"{who} has {b * c} {thing} and shares them equally among {b} friends. How many "
             f"{thing} does each friend get?", f"{b * c} / {b} = {c}", c),
            (f"{who} has {a} {thing}. {friend} has {b} more {thing} than {who}. How many {thing} "
             f"do they have together?",
             f"{friend} has {a} + {b} = {a + b}. {a} + {a + b} = {2 * a + b}", 2 * a + b),
            (f"{who} finds {a} {thing} on Monday and {b} on Tuesday, and loses {c - 1} of them. "
             f"How many {thing} does {who} still have?",
             f"{a} + {b} = {a + b}. {a + b} - {c - 1} = {a + b - c + 1}", a + b - c + 1),
            (f"A bag of {thing} costs {b} dollars at the {place}. {who} buys {c} bags and pays "
             f"with {b * c + a} dollars. How many dollars does {who} get back?",
             f"{b} * {c} = {b * c}. {b * c + a} - {b * c} = {a}", a),
        )
    )  # fmt: skip
    return {"question": question, "answer": f"{working}.\n#### {result}"}


def problems(rng: random.Random, n: int) -> list[dict[str, str]]:
    """`n` different ones."""
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < n:
        row = problem(rng)
        rows.setdefault(row["question"], row)
    return list(rows.values())


def write_all(folder: Path) -> None:
    """Write the files of both tasks."""
    rows = problems(random.Random(SEED), N_SHOTS + N_PROBLEMS)
    tasks = {
        "facts.jsonl": facts(random.Random(SEED)),
        "word_problems_shots.jsonl": rows[:N_SHOTS],
        "word_problems.jsonl": rows[N_SHOTS:],
    }
    for name, content in tasks.items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / name).write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    write_all(FOLDER)
