"""Complete services in memory, several on one store, which can be killed: quick enough for state machines."""

from __future__ import annotations

from cryostore.catalog.rows import keys
from cryostore.chunks.blobs import Appendable
from cryostore.chunks.keyring import unwrap
from cryostore.chunks.records import Records
from cryostore.chunks.store import ChunkStore
from cryostore.core.ids import counting_ids
from cryostore.core.limits import Limits
from cryostore.core.time import FrozenClock
from cryostore.service import Caller, Context, Service, Settings
from cryostore.service.access import AccessKeys
from cryostore.service.arns import Arns
from cryostore.service.opening import assembly as opening
from cryostore.service.store_keyring import TOKEN_SECRET
from cryostore.service.tokens import Tokens
from cryostore.service.vault_keys import VaultKeys
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_blobs import CrashingBlobs, FaultyBlobs, FaultyObjects
from support.faults.faulty_database import FaultyDatabase
from support.stores.memory_keyring import MemoryKeyring

ROOT = Caller("AKIATESTROOT", root=True)


class MemoryStore:
    """The shared state of all processes: the catalog, the packs, the keyring and the clock."""

    def __init__(self, settings=None, database=None, blobs=None):
        self.database = database or MemoryDatabase()
        self.blobs = blobs or CrashingBlobs()
        self.keyring = MemoryKeyring()
        self.clock = FrozenClock()
        self.new_id = counting_ids()
        self.settings = settings or Settings()
        vault_keys = VaultKeys(self.database, self.keyring)
        opening.fill_new_store(self.database, vault_keys, self.clock, self.new_id)

    def open_database(self):
        """Return the database for another process."""
        return self.database

    def close(self):
        """Close everything."""

    def crash(self, kept_share=0.0):
        """Lose power. Every process must be restarted."""
        self.blobs.crash(kept_share)

    def pack_names(self):
        """Return the names of the packs."""
        return [key.rpartition("/")[2].removesuffix(".pack") for key in self.blobs.list("packs/")]


class Process:
    """One process on the store, with a database and blobs that fail on demand. It is a Call."""

    def __init__(self, store):
        self.store = store
        self.database = FaultyDatabase(store.open_database())
        self.blobs = (FaultyBlobs if isinstance(store.blobs, Appendable) else FaultyObjects)(store.blobs)
        opening.recover_packs(store.database, store.blobs)
        token_secret = store.database.read(lambda transaction: keys.secret(transaction, TOKEN_SECRET))
        self.context = Context(
            database=self.database,
            store=ChunkStore(self.blobs, store.new_id, pack_bytes_target=store.settings.pack_bytes_target),
            records=Records(self.blobs, store.keyring),
            keys=VaultKeys(self.database, store.keyring),
            tokens=Tokens(unwrap(store.keyring, token_secret, TOKEN_SECRET.encode())),
            arns=Arns(store.settings),
            clock=store.clock,
            new_id=store.new_id,
            limits=Limits(),
            settings=store.settings,
        )
        self.service = Service(self.context, AccessKeys(self.database, store.keyring, store.clock), self.blobs)

    def call(self, operation):
        """Carry out an operation as root."""
        return self.service.call(operation, ROOT)
