"""What differs between two corpora, packs or snapshots: rows, columns, hours, and why."""
