"""The tables of cache.db, documented for whoever reads it, and the steps that make them. Columns are only ever added.

A text lives as long as its entry: deleting a row of `entries` takes its texts, its documents and the prompts of its
hits along, and keeps `totals` right, by triggers. So `DELETE FROM entries WHERE ...` is all that forgetting needs, with
`cache_upkeep` to write the file anew. Digests are 32 bytes (`core.scope`), times Unix seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

MARK = 0x6C6C6D63
"""The `application_id` of the file ("llmc"): a database without it is another program's, and is not touched."""

_TABLES = """
CREATE TABLE entries (
  n INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,         -- of the call that was answered
  scope BLOB NOT NULL,
  exact BLOB NOT NULL UNIQUE,
  canonical BLOB,                  -- NULL: may only be found exactly
  created_at REAL NOT NULL,
  expires_at REAL NOT NULL,
  used_at REAL NOT NULL,           -- the last hit, or the making: what was used longest ago is let go first
  hits INTEGER NOT NULL,
  bytes INTEGER NOT NULL,          -- what it counts for in `totals`
  model TEXT NOT NULL,             -- the name that was asked, as `calls.model` of the ledger
  served_by TEXT NOT NULL,
  provider TEXT NOT NULL,
  deployment TEXT NOT NULL,
  cost_nanousd INTEGER,            -- NULL: unknown; each hit saves it once
  seal BLOB NOT NULL               -- over all that is answered (`cache_rows`): damage is a miss, never another's answer
);
CREATE INDEX entries_canonical ON entries (canonical) WHERE canonical IS NOT NULL;
CREATE INDEX entries_used_at ON entries (used_at);
CREATE INDEX entries_expires_at ON entries (expires_at);
CREATE TABLE texts (
  entry INTEGER PRIMARY KEY,       -- entries.n
  prompt TEXT NOT NULL,            -- the last user text
  answer BLOB NOT NULL             -- zlib of the JSON of `core.caching.packed`
);
CREATE TABLE documents (
  hash TEXT NOT NULL,              -- of the content, hexadecimal
  entry INTEGER NOT NULL,          -- entries.n
  PRIMARY KEY (hash, entry)
) WITHOUT ROWID;
CREATE INDEX documents_entry ON documents (entry);
CREATE TABLE hits (                -- the newest 10,000
  n INTEGER PRIMARY KEY,
  id TEXT NOT NULL,                -- of the call that was answered from the cache
  entry TEXT NOT NULL,             -- entries.id, also after that row has gone
  tier TEXT NOT NULL,
  at REAL NOT NULL,
  age_s REAL NOT NULL,
  asked BLOB NOT NULL,             -- the exact key that was asked
  answered BLOB NOT NULL,          -- the exact key of the entry
  prompt TEXT,                     -- what was asked; NULL: as the entry's (exact tier), not kept, or gone
  version INTEGER NOT NULL         -- `core.scope.VERSION`
);
CREATE INDEX hits_id ON hits (id);
CREATE INDEX hits_entry ON hits (entry);
CREATE TABLE forbidden (
  asked BLOB NOT NULL,             -- an exact key that may never be answered
  entry BLOB NOT NULL,             -- by what stands under this one; both ways round, a key with itself for exact hits
  at REAL NOT NULL,
  PRIMARY KEY (asked, entry)
) WITHOUT ROWID;
CREATE TABLE leases (
  flight BLOB PRIMARY KEY,
  owner TEXT,                      -- the call that asks; NULL once it has landed
  renewed_at REAL NOT NULL,
  expires_at REAL NOT NULL,
  gave_up_at REAL                  -- when a leader last landed without an answer to share
) WITHOUT ROWID;
CREATE INDEX leases_expires_at ON leases (expires_at);
CREATE TABLE vectors (
  n INTEGER PRIMARY KEY,
  key BLOB NOT NULL UNIQUE,
  model TEXT NOT NULL,
  created_at REAL NOT NULL,
  used_at REAL NOT NULL,           -- to the day
  bytes INTEGER NOT NULL,
  cost_nanousd INTEGER,
  seal BLOB NOT NULL,
  data BLOB NOT NULL               -- 32-bit floats in the machine's order
);
CREATE INDEX vectors_used_at ON vectors (used_at);
CREATE TABLE totals (
  name TEXT PRIMARY KEY,           -- entries | vectors
  count INTEGER NOT NULL,
  bytes INTEGER NOT NULL
) WITHOUT ROWID;
"""
_COUNTS = """
CREATE TRIGGER {0}_made AFTER INSERT ON {0} BEGIN
  UPDATE totals SET count = count + 1, bytes = bytes + NEW.bytes WHERE name = '{0}'; END;
CREATE TRIGGER {0}_gone AFTER DELETE ON {0} BEGIN
  UPDATE totals SET count = count - 1, bytes = bytes - OLD.bytes WHERE name = '{0}'; END;
"""
_TRIGGERS = """
CREATE TRIGGER texts_gone AFTER DELETE ON entries BEGIN
  DELETE FROM texts WHERE entry = OLD.n;
  DELETE FROM documents WHERE entry = OLD.n;
  UPDATE hits SET prompt = NULL WHERE entry = OLD.id AND prompt IS NOT NULL; END;
CREATE TRIGGER hits_made AFTER INSERT ON hits BEGIN
  DELETE FROM hits WHERE n <= NEW.n - 10000; END;
"""


def _tables(connection: sqlite3.Connection) -> None:
    text = _TABLES + _COUNTS.format("entries") + _COUNTS.format("vectors") + _TRIGGERS
    for statement in text.split("\nCREATE ")[1:]:
        connection.execute("CREATE " + statement)
    connection.execute("INSERT INTO totals (name, count, bytes) VALUES ('entries', 0, 0), ('vectors', 0, 0)")
    connection.execute(f"PRAGMA application_id = {MARK}")


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_tables,)
