-- Garbage collection: see catalog/collections.py for the row of the run, maintenance/gc.py for the rules.

CREATE TABLE collection (
    epoch BIGINT NOT NULL,
    holder TEXT,
    lease_until_ms BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    finished_ms BIGINT NOT NULL
);
INSERT INTO collection (epoch, holder, lease_until_ms, started_ms, finished_ms) VALUES (0, NULL, 0, 0, 0);

-- condemned_ms: since when a chunk is given up and no longer offered. damaged_ms: since when its bytes are known to be
-- wrong. used_epoch: the last epoch in which a write referred to it.
ALTER TABLE chunk ADD COLUMN condemned_ms BIGINT;
ALTER TABLE chunk ADD COLUMN damaged_ms BIGINT;
ALTER TABLE chunk ADD COLUMN used_epoch {small} NOT NULL DEFAULT 0;
CREATE INDEX chunk_damaged ON chunk (vault_id, digest) WHERE damaged_ms IS NOT NULL;

-- retired_ms: since when a pack is empty and takes no rows. dropped_epoch: when its file was to be deleted.
-- verified_ms: when its envelopes were last read and found right.
ALTER TABLE pack ADD COLUMN retired_ms BIGINT;
ALTER TABLE pack ADD COLUMN dropped_epoch BIGINT;
ALTER TABLE pack ADD COLUMN verified_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX pack_open ON pack (pack_number) WHERE open = 1;
CREATE INDEX pack_retired ON pack (pack_number) WHERE retired_ms IS NOT NULL;
