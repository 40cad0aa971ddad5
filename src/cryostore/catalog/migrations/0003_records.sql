-- What stands in a record outside the catalog, so that the catalog can be rebuilt: see catalog/records.py. changes counts
-- what was to be recorded of a noun, recorded is the highest of these numbers that a finished record has, in so many
-- parts with so many entries. gone: the noun is no more, and its record is to follow. previous: the tip that a commit
-- went on from in its lineage; what lies between was taken back.
CREATE TABLE record (
    noun TEXT NOT NULL,
    number BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    changes BIGINT NOT NULL,
    recorded BIGINT NOT NULL DEFAULT 0,
    parts BIGINT NOT NULL DEFAULT 0,
    entries BIGINT NOT NULL DEFAULT 0,
    gone INTEGER NOT NULL DEFAULT 0,
    previous BIGINT,
    PRIMARY KEY (noun, number, generation)
) {clustered};
CREATE INDEX record_due ON record (noun, number, generation) WHERE recorded < changes;

INSERT INTO record (noun, number, generation, changes) VALUES ('store', 0, 0, 1);
INSERT INTO record (noun, number, generation, changes) SELECT 'vault', vault_id, 0, 1 FROM vault;
INSERT INTO record (noun, number, generation, changes)
    SELECT 'commit', lineage_id, generation, 1 FROM (
        SELECT lineage_id, from_generation AS generation FROM object
        UNION SELECT lineage_id, to_generation FROM object
        UNION SELECT lineage_id, generation FROM recovery_point WHERE lineage_id IS NOT NULL
    ) AS written WHERE generation <= (SELECT tip_generation FROM lineage WHERE lineage.lineage_id = written.lineage_id);
