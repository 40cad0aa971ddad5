"""Blob stores that fail on demand, and one that loses unsynced bytes."""

from __future__ import annotations

import threading

from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.core.errors import StorageUnavailableError

ANSWER_LOST = -1


class FaultyObjects:
    """Passes calls on to `inner`, except those that `fail` names. Blobs cannot be appended to, as in a cloud."""

    def __init__(self, inner):
        self.inner = inner
        self.calls = {}
        self.faults = {}
        self.lies = {}
        self.before = {}
        self.listings = lambda keys: keys
        self._lock = threading.Lock()

    def fail(self, method, at=1, error=None, *, torn_bytes=0, answer_lost=False):
        """Make the `at`-th call from now raise `error`; an append writes `torn_bytes` before that.

        With `answer_lost` any other call is done first.
        """
        error = error or StorageUnavailableError(f"{method} was told to fail")
        torn_bytes = ANSWER_LOST if answer_lost else torn_bytes
        self.faults[method, self.calls.get(method, 0) + at] = (error, torn_bytes)

    def lie(self, method, at, place):
        """Flip a bit in the byte at `place` of the `at`-th result from now, if it is that long."""
        self.lies[method, self.calls.get(method, 0) + at] = place

    def lie_in_listings(self, change):
        """Replace every listing by `change(keys)`, such as a truncated or a stale one."""
        self.listings = change

    def on(self, method, action):
        """Run `action()` at the start of each call, while no lock of this store is held."""
        self.before[method] = action

    def trouble(self, method):
        """Count a call; return its error, or None, and the number of bytes that are written nevertheless."""
        with self._lock:
            self.calls[method] = self.calls.get(method, 0) + 1
            fault = self.faults.pop((method, self.calls[method]), (None, 0))
        self.before.get(method, lambda: None)()
        return fault

    def _pass_on(self, method, *arguments):
        error, how = self.trouble(method)
        place = self.lies.pop((method, self.calls[method]), None)
        if error:
            if how == ANSWER_LOST:
                getattr(self.inner, method)(*arguments)
            raise error
        answer = getattr(self.inner, method)(*arguments)
        if place is not None and -len(answer) <= place < len(answer):
            answer = bytearray(answer)
            answer[place] ^= 1
            answer = bytes(answer)
        return answer

    def put(self, key, data):
        self._pass_on("put", key, data)

    def get(self, key, offset=0, length=None):
        return self._pass_on("get", key, offset, length)

    def stat(self, key):
        return self._pass_on("stat", key)

    def list(self, prefix="", after=""):
        return iter(self.listings(list(self._pass_on("list", prefix, after))))

    def delete(self, key):
        self._pass_on("delete", key)

    def close(self):
        self._pass_on("close")


class FaultyBlobs(FaultyObjects):
    """The same for blobs with append. Calls of all appenders count as "append", "sync" and "close"."""

    def owned(self, key):
        return self._pass_on("owned", key)

    def cut(self, key, size):
        return self._pass_on("cut", key, size)

    def open_append(self, key):
        return FaultyAppender(self, self._pass_on("open_append", key))


class FaultyAppender:
    def __init__(self, store, inner):
        self._store = store
        self._inner = inner
        self.close = inner.close

    @property
    def size(self):
        return self._inner.size

    def append(self, buffers):
        error, torn_bytes = self._store.trouble("append")
        if error:
            self._inner.append([b"".join(buffers)[:torn_bytes]])
            raise error
        return self._inner.append(buffers)

    def sync(self):
        error, _ = self._store.trouble("sync")
        if error:
            raise error
        self._inner.sync()


class CrashingBlobs(MemoryBlobs):
    """Blobs in memory that can lose unsynced bytes, like a machine that loses power."""

    def __init__(self):
        super().__init__()
        self.appenders = []

    def open_append(self, key):
        appender = CrashingAppender(self, key, super().open_append(key))
        self.appenders.append(appender)
        return appender

    def cut(self, key, size):
        """Like MemoryBlobs; the remaining bytes count as synced."""
        done = super().cut(key, size)
        for appender in self.appenders:
            if done and appender.key == key:
                appender.synced = appender.size
        return done

    def crash(self, kept_share=0.0, filler=None):
        """Kill all owners. Keep a share of the unsynced bytes, and replace the rest by `filler`, if given."""
        for appender in self.appenders:
            blob = self._blobs.get(appender.key)
            if blob is not None and not appender.dead:
                unsynced = len(blob) - appender.synced
                kept = appender.synced + int(unsynced * kept_share)
                lost = len(blob) - kept
                del blob[kept:]
                if filler is not None:
                    blob += bytes([filler]) * lost
            appender.dead = True
        self.appenders = []
        self._owned.clear()


class CrashingAppender:
    def __init__(self, store, key, inner):
        self.key = key
        self.synced = 0
        self.dead = False
        self._store = store
        self._inner = inner
        self.close = inner.close

    @property
    def size(self):
        return self._inner.size

    def append(self, buffers):
        self._check()
        return self._inner.append(buffers)

    def sync(self):
        self._check()
        self.synced = self._inner.size

    def _check(self):
        if self.dead:
            raise StorageUnavailableError("the power is gone")
