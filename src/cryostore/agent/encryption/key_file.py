"""Key files of the agent: a whole key, with or without a passphrase, or a public part. Also keys on paper.

Key files are JSON; a key on paper is lines of text to print, lock away, and type in again. Formats:
docs/reference/archive.md. The rule of this module: no error repeats any content of a key.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from collections.abc import Callable
from typing import Any

from cryostore.agent.encryption.agent_key import AgentKey, PublicKey
from cryostore.agent.encryption.cipher import (
    NONCE_BYTES,
    SALT_BYTES,
    SECRET_BYTES,
    STRETCHING_MAX,
    Stretching,
    random_bytes,
    seal,
    stretched,
    unseal,
)
from cryostore.core.errors import ConfigurationError, DamagedDataError, KeyUnavailableError
from cryostore.core.paper import Paper

FORMAT = "cryostore agent key 1"
PUBLIC_FORMAT = "cryostore agent public key 1"
FILE_BYTES_MAX = 64 * 1024
OTHERS = 0o077
COMMENT = (
    "A Cryostore agent key. Whoever has it and the archives sealed for it can read them; without it, or another key "
    "that was added to them, nobody can. Keep a copy in a safe place away from the data."
)
PUBLIC_COMMENT = "The public part of a Cryostore agent key, which is no secret: only the whole key reads what it wrote."

Ask = Callable[[], str]
"""Returns a passphrase. Called only if one is needed."""
PAPER_TITLE = "CRYOSTORE AGENT KEY 1"
PAPER = Paper(
    title=PAPER_TITLE,
    name="agent key",
    comment=(
        "# Whoever has these lines and the archives can read them; without them, or the key file, nobody can.",
        "# To put them back: type all lines from CRYOSTORE AGENT KEY on into a file, then:",
        "# cryo init-key NEW-KEY-FILE --from-paper FILE",
        "# The letters are A to Z and the digits 2 to 7. Spaces and the size of letters do not matter.",
    ),
    line_bytes=10,
    end_characters=8,
)


def encode(key: AgentKey, passphrase: str = "", stretching: Stretching | None = None) -> bytes:
    """The content of a key file. With a passphrase, only the passphrase opens it."""
    document: dict[str, Any] = {"comment": COMMENT, "format": FORMAT, "public": _text(key.public)}
    if not passphrase:
        return _json(document | {"secret": _text(key.seed)})
    how = stretching or Stretching(random_bytes(SALT_BYTES))
    nonce = random_bytes(NONCE_BYTES)
    sealed = nonce + seal(stretched(passphrase.encode(), how), nonce, key.seed, FORMAT.encode() + key.public)
    costs = {"iterations": how.iterations, "lanes": how.lanes, "memory_kib": how.memory_kib}
    return _json(document | {"argon2id": costs | {"salt": _text(how.salt)}, "sealed": _text(sealed)})


def encode_public(key: PublicKey) -> bytes:
    """The content of a file with the public part of a key."""
    return _json({"comment": PUBLIC_COMMENT, "format": PUBLIC_FORMAT, "public": _text(key.public)})


def stretching_of(data: bytes) -> Stretching | None:
    """The costs of a key file's passphrase; None if it has none. Raises ConfigurationError if it is no key file."""
    how: Stretching | None = None
    try:
        found: Any = json.loads(data) if len(data) <= FILE_BYTES_MAX else None
        how = _stretching(found["argon2id"]) if "argon2id" in found else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        found = None
    if found is None:
        raise ConfigurationError("this is not a key file of the agent")
    return how


def decode(data: bytes, ask: Ask, name: str = "this") -> PublicKey:
    """The key in a key file: an AgentKey, or a PublicKey if the file has only the public part. Errors use `name`.

    Raises ConfigurationError if it is no key file, KeyUnavailableError for a wrong passphrase.
    """
    try:
        found: Any = json.loads(data) if len(data) <= FILE_BYTES_MAX else None
        public = PublicKey(_bytes(found["public"]))
        if found["format"] == PUBLIC_FORMAT:
            return public
        if found["format"] == FORMAT:
            seed = _bytes(found["secret"]) if "secret" in found else None
            locked = None if seed else (_stretching(found["argon2id"]), _bytes(found["sealed"]))
            key = AgentKey(seed) if seed else _opened(public, *(locked or ()), ask=ask)
            if key.public == public.public:
                return key
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        pass  # raised below, outside of the block: the cause would quote the file
    raise ConfigurationError(f"{name} is not a key file of the agent", hint="`cryo init-key` creates one")


def _opened(public: PublicKey, how: Stretching, sealed: bytes, *, ask: Ask) -> AgentKey:
    secret = stretched(ask().encode(), how)
    try:
        return AgentKey(
            bytes(unseal(secret, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], FORMAT.encode() + public.public))
        )
    except DamagedDataError:
        pass
    raise KeyUnavailableError(
        "the passphrase does not open the key", hint="repeat the command with the right passphrase"
    )


def _stretching(found: dict[str, Any]) -> Stretching:
    how = Stretching(_bytes(found["salt"]), found["iterations"], found["lanes"], found["memory_kib"])
    costs: list[Any] = [how.iterations, how.lanes, how.memory_kib]
    for cost, most in zip(costs, STRETCHING_MAX[1:], strict=True):
        if not isinstance(cost, int) or not 0 < cost <= most:
            raise ValueError("costs out of bounds")
    return how


def read(path: str, ask: Ask) -> PublicKey:
    """Read a key file.

    Raises ConfigurationError if it is missing, no key file, or a secret that other users can read.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read key file {path}: {error.strerror}", hint="`cryo init-key` creates one"
        ) from error
    if stat.S_ISREG(status.st_mode) and status.st_mode & OTHERS and PUBLIC_FORMAT.encode() not in data:
        raise ConfigurationError(f"other users can access key file {path}", hint=f"run: chmod 600 {path}")
    return decode(data, ask, path)


def create(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a new file durably. Raises ConfigurationError if it exists already, or cannot be written."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already", hint="name a new file: no key is ever replaced") from None
    except OSError as error:
        raise ConfigurationError(f"cannot create {path}: {error.strerror}") from error
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        _sync_folder(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        os.unlink(path)
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def print_paper(key: AgentKey) -> str:
    """The key as text for people."""
    return PAPER.write(key.seed, key.public)


def read_paper(data: bytes) -> AgentKey:
    """The key in a typed-in text of `print_paper`. Raises ConfigurationError, as `Paper.read`."""
    return AgentKey(PAPER.read(data, lambda seed: AgentKey(seed).public if len(seed) == SECRET_BYTES else None))
