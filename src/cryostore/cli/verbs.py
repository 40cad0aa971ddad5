"""The list of commands, and how an error of a command becomes a message with advice and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from cryostore import __version__
from cryostore.cli import output
from cryostore.cli.exit_codes import EPILOGUE, FAILED, INTERRUPTED, OK
from cryostore.core.errors import CryostoreError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS = {
    "check": ("cryostore.cli.store.check", "Compare the catalog with the packs."),
    "completion": ("cryostore.cli.reference", "Print the completion script of a shell."),
    "agent-key": ("cryostore.cli.agent_keys", "Manage the keys that encrypt backups."),
    "backup": ("cryostore.cli.agent.backup", "Make a recovery point of files and folders."),
    "ls": ("cryostore.cli.agent.ls", "List the files in a recovery point."),
    "cat": ("cryostore.cli.agent.cat", "Write a file of a recovery point to stdout."),
    "mount": ("cryostore.cli.agent.mount", "Show recovery points as folders."),
    "points": ("cryostore.cli.agent.points", "List recovery points."),
    "restore": ("cryostore.cli.agent.restore", "Restore files and folders of a recovery point."),
    "verify": ("cryostore.cli.agent.verify", "Check whether a recovery point can be restored."),
    "delete": ("cryostore.cli.agent.delete", "Delete recovery points."),
    "diff": ("cryostore.cli.agent.diff", "List the differences between two recovery points."),
    "doctor": ("cryostore.cli.doctor", "Check the set-up for backups."),
    "find": ("cryostore.cli.agent.find", "Find files in all recovery points."),
    "gc": ("cryostore.cli.store.gc", "Free the space of unused data."),
    "init": ("cryostore.cli.store.init", "Prepare a store that several servers share."),
    "init-key": ("cryostore.cli.agent_keys", "Make a key that encrypts backups."),
    "jobs": ("cryostore.cli.store.jobs", "Show open jobs and background work."),
    "key": ("cryostore.cli.store.key", "Manage the master keys of a store."),
    "man": ("cryostore.cli.reference", "Print or write the manual pages."),
    "rebuild-catalog": ("cryostore.cli.store.rebuild_catalog", "Rebuild a lost catalog from the data."),
    "migrate": ("cryostore.cli.store.migrate", "Move a store between a directory and a shared place."),
    "openapi": ("cryostore.cli.reference", "Print the OpenAPI document of the server's operations."),
    "repair": ("cryostore.cli.store.repair", "Save damaged data from other copies."),
    "scrub": ("cryostore.cli.store.scrub", "Read and verify stored data."),
    "sdk-model": ("cryostore.cli.reference", "Write a botocore data folder for boto3 and the aws CLI."),
    "serve-nbd": ("cryostore.cli.agent.mount", "Let NBD clients read a disk of a recovery point."),
    "serve": ("cryostore.cli.store.serve", "Run the server on a data directory or a shared store."),
    "status": ("cryostore.cli.agent.status", "Show the age of the last good backup of each resource."),
}
"""The module of each command, and its help text. A module has `command`, or several commands under their own names."""
BY_CLASS = {
    "StorageFullError": "make room: delete recovery points and run `cryo gc --quarantine 0` twice, or enlarge the disk",
    "StorageUnavailableError": "check whether the disk is full, read-only or failing, then repeat the command",
    "UnknownFormatError": "use a newer cryo",
    "DamagedDataError": "`cryo check` lists the affected recovery points; `cryo repair` uses other copies",
    "KeyUnavailableError": "`cryo key list` shows which keys exist, and which are needed",
    "ArchiveDamagedError": "`cryo points` lists other recovery points; `cryo check` checks the store",
    "ConnectionFailedError": "`cryo doctor` checks the connection to the server",
    "SignatureError": "use the access key of this server (its DIR/credentials); `cryo doctor` checks it, and the clock",
    "AccessDeniedException": "use an access key with this permission",
    "ResourceNotFoundException": "`cryo points` lists recovery points; `cryo doctor` checks the vault",
    "ThrottlingException": "repeat the command later",
    "ServiceUnavailableException": "repeat the command later; the server's operator finds the cause in its log and"
    " with `cryo doctor` there",
    "RetryableException": "repeat the command later; see the server's log for details",
    "DamagedDataException": "`cryo verify POINT` names the affected files; the next backup heals what it reads again",
    "ServiceInternalException": "repeat the command; see the server's log for details",
    "KeyMissingError": "put back the keyring that has this key; `cryo key list` shows which keys are needed",
    "KMSInvalidKeyUsageException": "on the server, `cryo key list` shows which keys are missing",
}
"""Hints for errors that carry none. The classes are named, not imported: a command loads only those it can raise."""


class Verbs(click.Group):
    """The commands, each imported only when it is called or asked for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the same in every context
        """Return the names, sorted."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Return the command of this name."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name][0])
        verb: click.Command = getattr(module, "command", None) or getattr(module, cmd_name.replace("-", "_"))
        return verb

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the completions of a shell: the commands, without importing them, and the options."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in sorted(VERBS.items())]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [item for item in found if item.value.startswith(incomplete)] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write the list of commands in the help text."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(VERBS.items())])


@click.command(
    cls=Verbs,
    name="cryo",
    epilog=EPILOGUE,
    no_args_is_help=False,
    invoke_without_command=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="cryo", message="%(prog)s %(version)s")
@click.option("--json", is_flag=True, expose_value=False, help="Print errors as JSON.")
def cryo() -> None:
    """Cryostore: a backup storage service that speaks the AWS Backup Storage and AWS Backup APIs."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line, and return its exit code."""
    as_json = "--json" in arguments
    try:
        code: Any = cryo.main(list(arguments), prog_name="cryo", standalone_mode=False)
    except click.ClickException as error:
        return _fail(error.format_message(), _usage_hint(error), as_json=as_json)
    except CryostoreError as error:
        return _fail(error.message, error.hint or advice(error, arguments), as_json=as_json)
    except (OSError, MemoryError) as error:
        return _fail(*_system_words(error), as_json=as_json)
    except (click.Abort, KeyboardInterrupt) as error:
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        with suppress(OSError):  # after SIGHUP the terminal may be gone
            output.tell(": ".join(["interrupted", *getattr(cause, "__notes__", ())]))
        return INTERRUPTED
    return code if isinstance(code, int) else OK


def _usage_hint(error: click.ClickException) -> str:
    if not isinstance(error, click.UsageError):
        return ""
    return f"{error.ctx.command_path if error.ctx else 'cryo'} --help lists the options"


def _system_words(error: OSError | MemoryError) -> tuple[str, str]:
    """Return a message and a hint for an error of the operating system that no command handled."""
    if isinstance(error, MemoryError):
        return "not enough memory", "free memory, or raise the limit of this process"
    if error.errno == errno.ENOENT and not _is_directory_there():
        return "the current directory does not exist any more", "change to a directory that exists"
    what = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    hints = {
        errno.EMFILE: "raise the limit of open files of this process (`ulimit -n`)",
        errno.ENFILE: "too many files are open on this machine",
        errno.ENOSPC: "make room on this file system",
    }
    return f"{what}{error.strerror or error}", hints.get(error.errno or 0, "")


def _is_directory_there() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - pathlib asks the same
    except OSError:
        return False
    return True


def _fail(message: str, hint: str, *, as_json: bool) -> int:
    if as_json:
        output.tell_fact({"error": message} | ({"hint": hint} if hint else {}))
    else:
        output.tell(f"error: {message}", *([f"hint: {hint}"] if hint else []))
    return FAILED


def advice(error: BaseException, arguments: Sequence[str]) -> str:
    """Return a hint for an error: that of its class or the nearest base class, else a pointer to the help text.

    The cause of an error comes first: with a store in this process there is no server whose log has it.
    """
    for each in (error.__cause__, error):
        for kind in type(each).__mro__:
            if kind.__name__ in BY_CLASS:
                return BY_CLASS[kind.__name__]
    verb = next((word for word in arguments if not word.startswith("-")), "")
    return f"{f'cryo {verb}'.strip()} --help lists the options"
