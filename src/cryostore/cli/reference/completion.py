"""`cryo completion`: the completion script of a shell."""

from __future__ import annotations

import click

from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", epilog=EPILOGUE)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that makes a shell complete `cryo` commands.

    For this session: `source <(cryo completion bash)`, the same with zsh, and `cryo completion fish | source`.

    \b
    For every session, in a file that the shell reads at its start:
      bash  ~/.local/share/bash-completion/completions/cryo
      zsh   _cryo in a folder of $fpath
      fish  ~/.config/fish/completions/cryo.fish
    """  # noqa: D301 - click's mark
    from click.shell_completion import get_completion_class

    from cryostore.cli.verbs import cryo

    kind = get_completion_class(shell)
    assert kind is not None
    found = kind(cryo, {}, "cryo", "_CRYO_COMPLETE")
    output.document(found.source_template % found.source_vars() + "\n")
