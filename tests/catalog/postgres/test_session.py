"""Translation of values and statements between Python and PostgreSQL."""

from __future__ import annotations

import itertools

from cryostore.catalog.postgres.session import translated


def test_only_named_values_are_translated():
    assert translated("SELECT ':a', b::text, 5 % 2 WHERE c = :c_1 AND d = :c_1") == (
        b"SELECT ':a', b::text, 5 %% 2 WHERE c = %(c_1)s AND d = %(c_1)s"
    )


def test_all_texts_keep_their_order(database):
    """Including U+0000, which PostgreSQL cannot store, and with any default collation of the server."""
    texts = ["".join(some) for some in itertools.product(["", "\0", "\1", "\2", "a", "B", "é"], repeat=3)]
    texts = sorted(set(texts))
    database.write(lambda t: t.run('CREATE TABLE texts (value TEXT COLLATE "C" UNIQUE)'))
    database.write(lambda t: [t.run("INSERT INTO texts (value) VALUES (:v)", v=text) for text in reversed(texts)])
    assert [row[0] for row in database.read(lambda t: t.rows("SELECT value FROM texts ORDER BY value"))] == texts
    for text in texts[::20]:
        assert database.read(lambda t, text=text: t.row("SELECT count(*) FROM texts WHERE value < :v", v=text)) == (
            texts.index(text),
        )


def test_every_text_column_sorts_by_bytes(database):
    statement = (
        "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND data_type = 'text' AND coalesce(collation_name, '') <> 'C' AND table_name <> 'catalog_writer'"
    )
    assert database.read(lambda t: t.rows(statement)) == []


def test_sums_and_booleans_are_integers(database):
    statement = "SELECT sum(n), n = 2, count(*) FROM (SELECT CAST(:n AS BIGINT) AS n) AS one GROUP BY n"
    (found,) = database.read(lambda t: t.rows(statement, n=2))
    assert found == (2, 1, 1)
    assert {type(value) for value in found} == {int}
