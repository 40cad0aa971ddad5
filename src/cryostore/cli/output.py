"""Standard output and standard error: the one place that prints.

What is printed may come from outside: names of files and resources, messages of a server, identifiers of keys. So each
line is made visible before it is printed: nothing in it can move the cursor, change colours, reverse the direction of
writing or begin a line of its own.

A stream that cannot be written to does not end a run: what the run does is not undone by it. The failure is kept, and
`failure` tells it at the end. A write that waits for a reader does not keep a run that was told to end.
"""

from __future__ import annotations

import errno
import io
import json
import os
import select
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from cryostore.core.interrupts import heeded, waiting

READER_MS = 100
"""How long, at the end of such a run, its reader has for each part of what was printed until then."""
CLEAR_LINE = "\r\x1b[K"
CLOSED = -1
"""The descriptor of a stream that the caller closed."""
ENCODING = "utf-8"

Item = TypeVar("Item")


class Output(io.RawIOBase):
    """A descriptor that is written to. A KeyboardInterrupt that comes while it takes nothing is raised at once."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poller = select.poll()
        if fd != CLOSED:
            self._poller.register(fd, select.POLLOUT)
        self.ends = False
        """Whether the run ends: what cannot be written any more is left out."""
        self.failure: OSError | None = None
        """The first error of a write. Nothing is written after it."""

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._fd != CLOSED and os.isatty(self._fd)

    def write(self, data: Any, /) -> int:
        """Write some of the data; answers how much. Data that cannot be written counts as written."""
        view = memoryview(data).cast("B")
        if self.failure is not None:
            return len(view)
        if self.ends:
            if not self._poller.poll(READER_MS):
                return len(view)
            view = view[: select.PIPE_BUF]  # for so much there is room
        try:
            while True:
                with waiting:
                    try:
                        return os.write(self._fd, view)
                    except BlockingIOError:  # the descriptor does not block, its reader is slow
                        self._poller.poll(READER_MS)
        except OSError as error:
            self.failure = error
            return len(view)


def open_outputs() -> tuple[Output, Output]:
    """Put such streams in the place of Python's own, for stdout and stderr; once in a process."""
    outputs = Output(_descriptor(sys.stdout)), Output(_descriptor(sys.stderr))
    sys.stdout = _text(outputs[0], sys.stdout)
    sys.stderr = _text(outputs[1], sys.stderr, line_buffering=True)
    return outputs


def _descriptor(stream: Any) -> int:
    return CLOSED if stream is None else int(stream.fileno())


def _text(output: Output, old: Any, *, line_buffering: bool = False) -> io.TextIOWrapper:
    """Characters that the stream's encoding lacks are escaped: a name must not end a run."""
    stream = cast("io.TextIOWrapper | None", old)
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=ENCODING if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=line_buffering or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )


def visible(text: str) -> str:
    """A text in one line in which every control character, line break and invisible mark is escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def show(*lines: str) -> None:
    """Print lines of a result to stdout, made visible."""
    for line in lines:
        print(visible(line))


def paragraph(lines: Iterable[str]) -> str:
    """Lines as one text, each made visible: for `show_text`."""
    return "\n".join(map(visible, lines))


def show_text(text: str) -> None:
    """Print to stdout what `paragraph` made."""
    show(*text.split("\n"))


def outcome(fact: Any, text: str, *, as_json: bool) -> None:
    """Print the result of a run: for programs as JSON, else what `paragraph` made."""
    if as_json:
        say(fact)
    else:
        show_text(text)


def show_now(*lines: str) -> None:
    """As `show`, and hand them to the reader at once."""
    show(*lines)
    sys.stdout.flush()


def say(fact: Any, *, indent: int | None = None) -> None:
    """Print a fact to stdout as JSON. Its escapes leave nothing but printable ASCII."""
    print(json.dumps(fact, indent=indent))


def document(text: str) -> None:
    """Print a text of our own making to stdout as it is: a manual page, a script, a key on paper."""
    print(text, end="")


def tell(*lines: str) -> None:
    """Print lines about a run to stderr, made visible."""
    for line in lines:
        print(visible(line), file=sys.stderr, flush=True)


def tell_fact(fact: Any) -> None:
    """Print a fact about a run to stderr as a line of JSON."""
    print(json.dumps(fact), file=sys.stderr, flush=True)


def tell_unexpected() -> None:
    """Print the error that is being handled, with its traceback: nobody foresaw it."""
    import traceback

    tell(*traceback.format_exc().rstrip().split("\n"), "error: this is a fault of Cryostore: please report it")


def tell_over_progress(line: str) -> None:
    """As `tell`; on a terminal in the place of a line of progress, which is drawn again below it."""
    if sys.stderr.isatty():
        progress("")
    tell(line)


def progress(text: str) -> None:
    """Put a text in the place of the last line of the terminal; an empty one takes it away."""
    print(CLEAR_LINE + visible(text), end="", file=sys.stderr, flush=True)


def confirm(question: str) -> None:
    """Ask on the terminal for a yes; anything else aborts the command."""
    import click

    with waiting:
        click.confirm(visible(question), abort=True, err=True)


def ask_secret(prompt: str, *, twice: bool = False) -> str:
    """Ask on the terminal for a secret. Raises click.Abort if the terminal is gone."""
    import click

    try:
        with heeded(), waiting:  # a SIGTERM, too, must not leave the terminal without its echo
            return str(click.prompt(visible(prompt), hide_input=True, confirmation_prompt=twice, err=True))
    except OSError as error:
        raise click.Abort from error


def while_read(items: Iterable[Item]) -> Iterator[Item]:
    """The items, until nobody reads stdout any more: for results that are nothing but output."""
    for item in items:
        yield item
        if failure(sys.stdout) is not None:
            return


def failure(stream: Any) -> OSError | None:
    """Why a stream could not be written to; None if it could, or is not one of ours."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, Output) else None


def unwritten() -> bool:
    """Whether part of the result or of what was told could not be written; says so where that is possible."""
    sys.stdout.flush()
    error = failure(sys.stdout)
    if error is not None and error.errno != errno.EPIPE:  # a reader that has seen enough needs no word
        tell(f"error: stdout: {error.strerror}")
    return error is not None or failure(sys.stderr) is not None
