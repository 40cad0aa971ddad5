-- The packs by when they were last read and found right: the order in which a scrub takes them.
CREATE INDEX pack_verified ON pack (verified_ms, pack_number) WHERE retired_ms IS NULL;
