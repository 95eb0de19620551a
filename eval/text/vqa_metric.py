"""TextVQA's accuracy: agreement with ten people, after EvalAI's normalisation of answers.

Source: Goyal et al. 2017, arXiv:1612.00837 (the metric); the normalisation is that of the VQA
challenge's evaluation server, whose every step decides scores, its oddities included.
"""

import re
from collections.abc import Sequence
from statistics import fmean

ENOUGH_AGREEING = 3  # of the other annotators, for full marks
MAX_PERIODS = 32  # the evaluation server deletes no more: it passes a flag where a count belongs

_MARKS = ';/[]"{}()=+\\_-><@`!'
_PERIOD = re.compile(r"\.(?!\d)")
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = frozenset(("a", "an", "the"))

# Written without their apostrophe, these get it back. What the server's own list has beyond them
# can never occur: it is in capitals, or has an 's, which has been split off by then.
_CONTRACTED = """
    ain't aren't can't couldn't could've didn't doesn't don't hadn't hasn't haven't he'd he's how'd
    how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't o'clock oughtn't
    shan't should've shouldn't not've 'twas somebody'll somebody's someone'd someone'll someone's
    something'd something'll that's there'd there're there's they'd they'll they're they've wasn't
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
    who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_TWICE_CONTRACTED = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've
    somebody'd've someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've
    y'all'd've y'all'll you'd've
"""
_ODD = {"somebody'd": "somebodyd", "'ows'at": "'ow's'at"}


def normalise(answer: str) -> str:
    """An answer in the form in which answers are compared."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = _PERIOD.sub("", _without_marks(text), count=MAX_PERIODS)
    words = (_NUMBERS.get(word, word) for word in text.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the annotators of how far the others agree with the prediction, 0 to 1.

    Each annotator is left out once; three equal answers of the others are full agreement. Ten
    answers of which 0, 1, 2, 3, 4 equal the prediction thus give 0, 0.3, 0.6, 0.9, 1.

    Args:
        prediction: the model's answer, as it gave it.
        answers: the annotators', as they gave them; at least one.
    """
    wanted = normalise(prediction)
    agrees = [normalise(answer) == wanted for answer in answers]
    n = sum(agrees)
    return fmean(min(1.0, (n - own) / ENOUGH_AGREEING) for own in agrees)


def _without_marks(text: str) -> str:
    """A mark that stands next to a space anywhere is deleted everywhere, others become a space."""
    table = {
        mark: "" if f"{mark} " in text or f" {mark}" in text else " "
        for mark in _MARKS
        if mark in text
    }
    return text.translate(str.maketrans(table))


def _contractions() -> dict[str, str]:
    found = dict(_ODD)
    for form in _CONTRACTED.split():
        found[form.replace("'", "")] = form
    for form in _TWICE_CONTRACTED.split():  # one of its apostrophes is missing
        places = (k for k, letter in enumerate(form) if letter == "'")
        found |= {form[:k] + form[k + 1 :]: form for k in places}
    return found


_CONTRACTIONS = _contractions()
