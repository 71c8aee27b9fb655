"""What we remember: SQLite files and their readers. Nothing in this room opens a socket or prints."""
