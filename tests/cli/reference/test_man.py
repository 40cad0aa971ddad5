"""`cryo man`: a page for each command, with each option, which manual page readers accept without warnings."""

from __future__ import annotations

import re
import shutil
import subprocess

import click
import pytest

from cryostore.cli import reference
from cryostore.cli.exit_codes import FAILED, OK
from cryostore.cli.reference import every_command, page, page_name
from cryostore.cli.verbs import VERBS, run

COVERS = ("cli/reference.py",)

PAGES = {page_name(context): context for context in every_command()}


def shown(text):
    """Return the approximate text of a page, without escapes and fonts."""
    text = re.sub(r"\\f[BRIP]", "", text).replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\(dq", '"')
    return text.replace(r"\&", "").replace(r"\e", "\\")


def test_each_verb_has_a_page():
    assert {f"cryo-{verb}" for verb in VERBS} <= set(PAGES)
    assert {"cryo", "cryo-key-rotate"} <= set(PAGES)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_has_everything_from_the_help_text(name):
    context = PAGES[name]
    text = shown(page(context))
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option):
            assert all(option in text for option in parameter.opts)
            assert (parameter.help or "") in text
    sections = [line for line in text.splitlines() if line.startswith(".SH ")]
    assert sections[:3] == [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"]
    assert ".SH EXIT STATUS" in sections


def test_one_page_is_printed(capsys):
    assert run(["man", "key", "rotate"]) == OK
    assert capsys.readouterr().out == page(PAGES["cryo-key-rotate"])
    assert run(["man"]) == OK
    assert capsys.readouterr().out == page(PAGES["cryo"])
    for wrong in (["nothing"], ["backup", "more"], ["key", "nothing"], ["--to", "x", "key"]):
        assert run(["man", *wrong]) == FAILED


def test_all_pages_are_written_and_groff_accepts_them(capsys, tmp_path):
    folder = tmp_path / "share" / "man1"
    assert run(["man", "--to", str(folder)]) == OK
    assert f"{len(PAGES)} pages" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {f"{name}.1" for name in PAGES}
    if shutil.which("groff") is None:
        pytest.skip("this machine has no groff")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", *sorted(folder.iterdir())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run(["man", "--to", str(tmp_path / "file")]) == FAILED
    assert "hint: name a folder that you may write to" in capsys.readouterr().err


@pytest.mark.parametrize("words", [".TH no request", "'br no request", r"a \fB backslash", "--dry-run", "say `x-y` so"])
def test_text_is_shown_unchanged(words):
    written = reference._text(words)
    assert not written.startswith((".", "'"))
    if shutil.which("groff") is None:
        pytest.skip("this machine has no groff")
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou"],
        input=f".TH a 1\n.PP\n{written}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert words.replace("`", "") in done.stdout
