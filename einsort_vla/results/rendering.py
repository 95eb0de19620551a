"""Pages from their templates: HTML that needs nothing but itself."""

import json
import re
from dataclasses import asdict, is_dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from einsort_vla.results import wording

_SENTENCE_END = re.compile(r"(?<=\.) (?=[A-Z])")
_WORDS = (
    wording.percent, wording.percent_range, wording.points_range, wording.number, wording.p_value,
    wording.megabytes, wording.count, wording.opening, wording.n_of,
)  # fmt: skip


def render(template: str, **content: Any) -> str:
    """A page as HTML; the same content gives the same text.

    Args:
        template: its name in the folder templates.
        content: what the template names; a missing one is an error. Text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("einsort_vla.results", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {word.__name__: word for word in _WORDS}
    environment.filters |= {
        "indented": _indented, "plain": _plain, "sentences": sentences, "as_facts": _as_facts
    }  # fmt: skip
    return environment.get_template(template).render(**content)


def sentences(text: str) -> list[str]:
    """A text cut after each full stop that a capital letter follows."""
    return _SENTENCE_END.split(text)


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _as_facts(value: Any) -> Any:
    """A mapping, or a record as one."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _plain(value: Any) -> str:
    """A setting as words: lists and tables on one line, yes and no, a dash for nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(v)}" for key, v in value.items()) or wording.DASH
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or wording.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return wording.DASH if value is None else str(value)
