"""What the documents tell a reader to type and to open: the commands parse, the links lead."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import tyro

from einsort_vla.cli import run
from einsort_vla.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", ".tools", "outputs", "shared"} & {*path.relative_to(ROOT).parts}
)
PROGRAM = re.compile(r"\s*(?:\.venv/bin/)?(python eval/\w+\.py|einsort-vla|make)(?=\s|$)(.*)$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def typed(text):
    """(program, arguments) of every command on a line of its own, indented or fenced."""
    is_fenced = False
    for line in text.replace("\\\n", " ").splitlines():
        is_fenced ^= line.startswith("```")
        if (is_fenced or line.startswith("    ")) and (found := PROGRAM.match(line)):
            yield found[1], shlex.split(found[2], comments=True)


@pytest.fixture(scope="module")
def settings():
    """What each program parses its command line into."""

    def of(program):
        if program not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "path", [*sys.path])
                patch.setattr(
                    run, "run_command", lambda kind, *_: known.update({program: run.named(kind)})
                )
                runpy.run_path(str(ROOT / program.removeprefix("python ")), run_name="__main__")
        return known[program]

    known = {"einsort-vla": COMMANDS}
    return of


def test_commands_parse_as_the_programs_do(settings, capfd):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    commands = [
        (path.name, *command)
        for path in DOCUMENTS
        for command in typed(path.read_text(encoding="utf-8"))
    ]
    assert len({program for _, program, _ in commands}) >= 5
    for document, program, arguments in commands:
        where = f"{document}: {program} {shlex.join(arguments)}"
        if program == "make":
            assert {a for a in arguments if "=" not in a} <= {*targets}, where
            continue
        try:
            tyro.cli(settings(program), args=arguments)
        except SystemExit as end:
            if end.code:
                pytest.fail(f"{where}\n{capfd.readouterr().err}")


def anchors(path):
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
    for found in LINK.finditer(path.read_text(encoding="utf-8")):
        link = found[1] or found[2]
        if re.match(r"\w+:", link):
            continue  # elsewhere on the web
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{link}: there is no such file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"
