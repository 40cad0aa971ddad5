-- Which process does which piece of background work: see catalog/claims.py. holder: who is at it, NULL if nobody is.
-- fence: how often the work was claimed. until_ms: when the claim lapses, or when it was given back. finished_ms: when the
-- work last came to its end. doing: what the holder last said, for people. place: how far the work is, for who goes on.
CREATE TABLE claim (
    work TEXT NOT NULL PRIMARY KEY,
    holder TEXT,
    fence BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    begun_ms BIGINT NOT NULL,
    finished_ms BIGINT NOT NULL,
    doing TEXT NOT NULL,
    place TEXT NOT NULL
) {clustered};
INSERT INTO claim (work, holder, fence, until_ms, begun_ms, finished_ms, doing, place)
    SELECT 'garbage collection', NULL, 0, 0, started_ms, finished_ms, '', '' FROM collection;

-- The epoch alone stays: a collector that goes by a lease in this row can change nothing any more.
ALTER TABLE collection DROP COLUMN holder;
ALTER TABLE collection DROP COLUMN lease_until_ms;
ALTER TABLE collection DROP COLUMN started_ms;
ALTER TABLE collection DROP COLUMN finished_ms;
