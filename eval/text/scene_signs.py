"""What made-up signs say, what is asked about them, and what ten people answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Look = Literal["board", "street", "plate", "screen", "tag", "poster", "label"]
N_ANNOTATORS = 10
UNANSWERABLE = "unanswerable"

# How often an annotator answers so; the rest gives the answer. With these shares an annotator
# scores 82 % against the other nine (measured on 64 questions); TextVQA's people score 85 %
# (Singh et al. 2019, arXiv:1904.08920).
TYPO, PARTIAL, WORDY, OTHER_SIGN, NO_ANSWER = 0.05, 0.08, 0.04, 0.02, 0.03

FAMILIES = ("Miller", "Carter", "Bennett", "Hughes", "Foster", "Murphy", "Coleman", "Walsh",
            "Palmer", "Schneider", "Moreno", "Lindgren")  # fmt: skip
TRADES = ("Bakery", "Books", "Hardware", "Pharmacy", "Flowers", "Barber Shop", "Dental Clinic",
          "Garage", "Toy Store", "Music School")  # fmt: skip
TREES = ("Oak", "Maple", "Cedar", "Willow", "Chestnut", "Juniper", "Walnut", "Hazel", "Birch")
WAYS = ("Street", "Avenue", "Road", "Lane", "Drive")
GOODS = ("Coffee", "Green Tea", "Muffin", "Bagel", "Soup", "Lemonade", "Sandwich", "Pancakes",
         "Olive Oil", "Honey")  # fmt: skip
BRANDS = ("Zarella", "Brightfield", "Nordvik", "Altamira", "Greenhill", "Lumora", "Castello",
          "Pinecrest", "Solaria", "Redstone")  # fmt: skip
PRODUCTS = ("Tea", "Flour", "Rice", "Pasta", "Olives", "Soap", "Cocoa", "Sugar", "Noodles")
EVENTS = ("Jazz Concert", "Book Fair", "Flea Market", "Science Day", "Film Night", "Chess Club",
          "Garden Show", "Piano Recital")  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
NOTICES = ("No Parking", "Wet Floor", "Staff Only", "Exit", "Please Ring the Bell", "Mind the Step",
           "Do Not Enter", "Keep Door Closed", "Fire Extinguisher", "Push", "No Smoking",
           "Caution Hot Surface")  # fmt: skip


@dataclass(frozen=True)
class Sign:
    """One thing in a picture that bears text.

    Attributes:
        lines: its text, from top to bottom.
        look: how it is drawn.
        question: what is asked about it, for a picture in which no other sign is of its `look`.
        answer: what a careful person answers.
        partial: shorter answers that people give, too.
    """

    lines: tuple[str, ...]
    look: Look
    question: str
    answer: str
    partial: tuple[str, ...] = ()


def draw_sign(rng: np.random.Generator, look: Look) -> Sign:
    """A sign of that look."""
    return _MAKERS[look](rng)


def annotate(sign: Sign, others: list[Sign], rng: np.random.Generator) -> list[str]:
    """Ten answers, with the slips that people make.

    Args:
        sign: the one that is asked about.
        others: the rest of the picture, which some mistake it for.
    """
    return [_answer(sign, others, rng) for _ in range(N_ANNOTATORS)]


def _answer(sign: Sign, others: list[Sign], rng: np.random.Generator) -> str:
    partial, other = sign.partial or (sign.answer,), [each.answer for each in others]
    kinds: list[tuple[float, Callable[[], str]]] = [
        (TYPO, lambda: _mistyped(sign.answer, rng)),
        (PARTIAL, lambda: _pick(rng, partial)),
        (WORDY, lambda: f"it says {sign.answer}"),
        (OTHER_SIGN, lambda: _pick(rng, other or [UNANSWERABLE])),
        (NO_ANSWER, lambda: UNANSWERABLE),
    ]
    draw = rng.random()
    for share, make in kinds:
        if draw < share:
            return make()
        draw -= share
    return sign.answer if rng.random() < 0.7 else sign.answer.lower()


def _mistyped(text: str, rng: np.random.Generator) -> str:
    """One character left out or two exchanged."""
    if len(text) < 3:
        return text
    k = int(rng.integers(1, len(text) - 1))
    if rng.random() < 0.5:
        return text[:k] + text[k + 1 :]
    return text[:k] + text[k + 1] + text[k] + text[k + 2 :]


def _pick(rng: np.random.Generator, values: tuple[str, ...] | list[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _shop(rng: np.random.Generator) -> Sign:
    family, trade = _pick(rng, FAMILIES), _pick(rng, TRADES)
    question = _pick(rng, ("What is the name of the shop?", "What does the large sign say?"))
    answer = f"{family} {trade}"
    return Sign((family.upper(), trade.upper()), "board", question, answer, (family,))


def _street(rng: np.random.Generator) -> Sign:
    tree, way = _pick(rng, TREES), _pick(rng, WAYS)
    question = f"What is the name of the {way.lower()}?"
    return Sign((f"{tree} {way}",), "street", question, f"{tree} {way}", (tree,))


def _plate(rng: np.random.Generator) -> Sign:
    number = str(int(rng.integers(101, 999)))
    question = _pick(rng, ("What is the room number?", "What number is on the room sign?"))
    return Sign((f"Room {number}",), "plate", question, number, (f"room {number}",))


def _clock(rng: np.random.Generator) -> Sign:
    time = f"{int(rng.integers(1, 13))}:{int(rng.integers(0, 60)):02d}"
    question = _pick(rng, ("What time is it?", "What time does the clock show?"))
    return Sign((time,), "screen", question, time)


def _tag(rng: np.random.Generator) -> Sign:
    good, price = _pick(rng, GOODS), f"${int(rng.integers(1, 13))}.{_pick(rng, ('25', '50', '95'))}"
    form = _pick(rng, ("What is the price of the {}?", "How much does the {} cost?"))
    question = form.format(good.lower())
    return Sign((good.upper(), price), "tag", question, price, (price[1:],))


def _poster(rng: np.random.Generator) -> Sign:
    event, day = _pick(rng, EVENTS), f"{_pick(rng, MONTHS)} {int(rng.integers(1, 29))}"
    if rng.random() < 0.5:
        question, answer, partial = f"When is the {event.lower()}?", day, (day.split()[0],)
    else:
        question, answer, partial = "What event is on the poster?", event, (event.split()[0],)
    return Sign((event, day), "poster", question, answer, partial)


def _product(rng: np.random.Generator) -> Sign:
    brand, product = _pick(rng, BRANDS), _pick(rng, PRODUCTS)
    question = f"What is the brand of the {product.lower()}?"
    return Sign((brand, product.upper()), "label", question, brand, (f"{brand} {product}",))


def _notice(rng: np.random.Generator) -> Sign:
    notice = _pick(rng, NOTICES)
    question = _pick(rng, ("What does the sign say?", "What is written on the sign?"))
    return Sign((notice.upper(),), "board", question, notice, (notice.split()[0],))


def _board(rng: np.random.Generator) -> Sign:
    return _shop(rng) if rng.random() < 0.5 else _notice(rng)


_MAKERS: dict[Look, Callable[[np.random.Generator], Sign]] = {
    "board": _board,
    "street": _street,
    "plate": _plate,
    "screen": _clock,
    "tag": _tag,
    "poster": _poster,
    "label": _product,
}
LOOKS: tuple[Look, ...] = tuple(_MAKERS)
