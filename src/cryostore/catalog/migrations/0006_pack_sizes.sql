-- readable by: 5
-- size_bytes: how large a pack is that does not grow; NULL: not known yet, or it may still grow.
ALTER TABLE pack ADD COLUMN size_bytes BIGINT;
