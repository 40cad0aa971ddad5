"""Keyring from a command: the output of a program that asks a key service, a secret store or a security module.

No shell is involved. The program's stderr is neither shown nor logged, because it may contain secrets.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from cryostore.chunks.keyring.document import DOCUMENT_BYTES_MAX, KeyringDocument, NoDocumentError, decode_text
from cryostore.chunks.keyring.master_key import MasterKey
from cryostore.core.errors import ConfigurationError, KeyMissingError

RUN_SECONDS_MAX = 30.0
WAIT_SECONDS_MAX = 5.0
"""How long a request for a missing key waits for the program."""
PAUSE_SECONDS = 5.0
"""The shortest time between the end of one run and the next run."""
OUTPUT_BYTES_MAX = 2 * DOCUMENT_BYTES_MAX
HINT = "run it by hand as the server's user: it must print the keyring document, or base64 of it, and exit with 0"


class CommandKeyring:
    """The keys that a program prints. It runs once, and again when a key is requested that it did not print.

    Raises ConfigurationError if the program fails, takes too long or prints no keyring document. `now` is a monotonic
    clock.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        run_seconds_max: float = RUN_SECONDS_MAX,
        wait_seconds_max: float = WAIT_SECONDS_MAX,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = f"command {arguments[0]}"
        self._arguments = arguments
        self._run_seconds_max = run_seconds_max
        self._wait_seconds_max = wait_seconds_max
        self._now = now
        self._document = self._ask()
        self._failure = ""
        self._lock = threading.Lock()
        self._begun = self._ended = float("-inf")  # the first key that is missing is asked for at once
        self._run: threading.Thread | None = None

    def active(self) -> MasterKey:
        """See Keyring."""
        return self._document.active

    def key(self, key_id: str) -> MasterKey:
        """See Keyring. May wait for the program, for a limited time."""
        if key_id not in self._document.keys:
            self._look_again()
        try:
            return self._document.keys[key_id]
        except KeyError:
            raise KeyMissingError(key_id, self._failure, hint=HINT) from None

    def document(self) -> KeyringDocument:
        """See KeyringSource. Returns the last output."""
        return self._document

    def _look_again(self) -> None:
        """Run the program, unless it has just run, and wait for its end for a limited time."""
        with self._lock:
            if self._run is None and self._now() - self._ended >= PAUSE_SECONDS:
                self._begun = self._now()
                self._run = threading.Thread(target=self._refresh, name="keyring", daemon=True)
                self._run.start()
            run, until = self._run, self._begun + self._wait_seconds_max
        if run is not None:
            run.join(max(0.0, until - self._now()))

    def _refresh(self) -> None:
        try:
            self._document = self._ask()
            self._failure = ""
        except ConfigurationError as error:
            self._failure = f", and {error.message}"
        finally:
            with self._lock:
                self._run, self._ended = None, self._now()

    def _ask(self) -> KeyringDocument:
        try:
            return decode_text(_output(self._arguments, self.place, self._run_seconds_max))
        except NoDocumentError:
            raise ConfigurationError(f"the {self.place} printed no keyring document", hint=HINT) from None


def _output(arguments: Sequence[str], place: str, seconds_max: float) -> bytes:
    """Return the output of a program that exits with 0. Raises ConfigurationError; leaves no process behind."""
    deadline = time.monotonic() + seconds_max
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own words, and no shell reads them
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its words cannot be passed on"
        raise ConfigurationError(f"the {place} for the keyring cannot be started: {reason}", hint=HINT) from None
    with process:
        data, code = _read(process, deadline), None
        if data is not None and len(data) <= OUTPUT_BYTES_MAX:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(max(0.0, deadline - time.monotonic()))
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)  # with its children; its number cannot be in use again yet
    if data is not None and len(data) > OUTPUT_BYTES_MAX:
        raise ConfigurationError(f"the {place} printed far more than a keyring document", hint=HINT)
    if data is None or code is None:
        raise ConfigurationError(f"the {place} for the keyring did not finish within {seconds_max:g} s", hint=HINT)
    if code:
        ended = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        raise ConfigurationError(f"the {place} for the keyring {ended}", hint=HINT)
    return bytes(data)


def _read(process: subprocess.Popen[bytes], deadline: float) -> bytearray | None:
    """Return the output of a process, cut off if it is too long; None if it does not end in time."""
    assert process.stdout is not None
    descriptor, data = process.stdout.fileno(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(data) <= OUTPUT_BYTES_MAX:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return data
            data += piece
    return data
