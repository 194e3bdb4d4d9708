"""Rules that a table must keep: their language, what they measure, and a file of them checked in one pass."""
