"""Standard output and standard error: the one place that prints.

Printed text may come from outside: names of files and resources, messages of a server, ids of keys. So each line is
escaped before it is printed: nothing in it can move the cursor, change colours, reverse the direction of writing or
start a new line.

A run goes on although a stream cannot be written: its work is not undone by that. The error is kept, and `failure`
returns it at the end. A write that waits for a reader can be interrupted.
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

from cryostore.core.interrupts import deferred, interruptible

READER_MS = 100
"""How long an interrupted run waits for the reader of each remaining part of its output."""
CLEAR_LINE = "\r\x1b[K"
CLOSED = -1
"""Stands for the descriptor of a stream that the parent process closed."""
ENCODING = "utf-8"

Item = TypeVar("Item")


class InterruptibleOutput(io.RawIOBase):
    """A writable descriptor. Ctrl-C raises KeyboardInterrupt at once, even while a write waits for the reader."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poller = select.poll()
        if fd != CLOSED:
            self._poller.register(fd, select.POLLOUT)
        self.ends = False
        """Whether the run is ending: output that cannot be written at once is dropped."""
        self.failure: OSError | None = None
        """The first error of a write, after which nothing is written."""
        self._already_written = b""
        """A part that was written as KeyboardInterrupt came. A buffer offers it again."""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._fd != CLOSED and os.isatty(self._fd)

    def write(self, data: Any, /) -> int:
        """Write a part of the data; return its length. Data that cannot be written counts as written."""
        view = memoryview(data).cast("B")
        already, self._already_written = self._already_written, b""
        if already and view[: len(already)] == already:
            return len(already)
        if self.failure is not None:
            return len(view)
        if self.ends:
            if not self._poller.poll(READER_MS):
                return len(view)
            view = view[: select.PIPE_BUF]  # the poll promises room for this much
        written: list[int] = []
        try:
            while not written:
                with interruptible:
                    try:  # no signal is handled between the write and the note of its length, as both are one call
                        written.extend(map(os.write, (self._fd,), (view,)))
                    except BlockingIOError:  # a non-blocking descriptor with a slow reader
                        self._poller.poll(READER_MS)
        except OSError as error:
            self.failure = error
            return len(view)
        except KeyboardInterrupt:
            self._already_written = bytes(view[: sum(written)])
            raise
        return written[0]


def open_outputs() -> tuple[InterruptibleOutput, InterruptibleOutput]:
    """Replace Python's stdout and stderr by such streams; once in a process."""
    outputs = InterruptibleOutput(_descriptor(sys.stdout)), InterruptibleOutput(_descriptor(sys.stderr))
    sys.stdout = _text(outputs[0], sys.stdout)
    sys.stderr = _text(outputs[1], sys.stderr, line_buffering=True)
    return outputs


def _descriptor(stream: Any) -> int:
    return CLOSED if stream is None else int(stream.fileno())


def _text(output: InterruptibleOutput, old: Any, *, line_buffering: bool = False) -> io.TextIOWrapper:
    """Return a text stream that escapes characters its encoding lacks: no name may end a run."""
    stream = cast("io.TextIOWrapper | None", old)
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=ENCODING if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=line_buffering or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )


def visible(text: str) -> str:
    """Return a text on one line, with every control character, line break and invisible mark escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def show(*lines: str) -> None:
    """Print lines of a result to stdout, escaped."""
    for line in lines:
        print(visible(line))


def paragraph(lines: Iterable[str]) -> str:
    """Return lines as one text for `show_text`, each line escaped."""
    return "\n".join(map(visible, lines))


def show_text(text: str) -> None:
    """Print a text of `paragraph` to stdout."""
    show(*text.split("\n"))


def outcome(fact: Any, text: str, *, as_json: bool) -> None:
    """Print the result of a run: `fact` as JSON, or a text of `paragraph`."""
    if as_json:
        say(fact)
    else:
        show_text(text)


def show_now(*lines: str) -> None:
    """Print lines as `show` does, and flush them."""
    show(*lines)
    sys.stdout.flush()


def say(fact: Any, *, indent: int | None = None) -> None:
    """Print a fact to stdout as JSON, which is printable ASCII only."""
    print(json.dumps(fact, indent=indent))


def document(text: str) -> None:
    """Print a text to stdout unescaped: a manual page, a script, a key on paper."""
    print(text, end="")


def tell(*lines: str) -> None:
    """Print lines about a run to stderr, escaped."""
    for line in lines:
        print(visible(line), file=sys.stderr, flush=True)


def tell_fact(fact: Any) -> None:
    """Print a fact about a run to stderr as a line of JSON."""
    print(json.dumps(fact), file=sys.stderr, flush=True)


def tell_unexpected() -> None:
    """Print the unexpected error that is being handled, with its traceback."""
    import traceback

    tell(*traceback.format_exc().rstrip().split("\n"), "error: unexpected internal error: please report it")


def tell_over_progress(line: str) -> None:
    """Print a line to stderr; on a terminal it replaces the progress line, which is drawn again below it."""
    if sys.stderr.isatty():
        progress("")
    tell(line)


def progress(text: str) -> None:
    """Replace the last line of the terminal by a text; an empty one erases it."""
    print(CLEAR_LINE + visible(text), end="", file=sys.stderr, flush=True)


def confirm(question: str) -> None:
    """Ask on the terminal for a yes; any other answer aborts the command."""
    import click

    with interruptible:
        click.confirm(visible(question), abort=True, err=True)


def ask_secret(prompt: str, *, twice: bool = False) -> str:
    """Ask on the terminal for a secret. Raises click.Abort if the terminal is gone."""
    import click

    try:
        with deferred(), interruptible:  # SIGTERM must not leave the terminal without echo either
            return str(click.prompt(visible(prompt), hide_input=True, confirmation_prompt=twice, err=True))
    except OSError as error:
        raise click.Abort from error


def while_read(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items until stdout has no reader: for commands whose only effect is their output."""
    for item in items:
        yield item
        if failure(sys.stdout) is not None:
            return


def failure(stream: Any) -> OSError | None:
    """Return the write error of a stream; None if there is none, or if the stream is not an `InterruptibleOutput`."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, InterruptibleOutput) else None


def unwritten() -> bool:
    """Return whether part of the output could not be written; print that to stderr if possible."""
    sys.stdout.flush()
    error = failure(sys.stdout)
    if error is not None and error.errno != errno.EPIPE:  # a reader that closes the pipe has seen enough
        tell(f"error: stdout: {error.strerror}")
    return error is not None or failure(sys.stderr) is not None
