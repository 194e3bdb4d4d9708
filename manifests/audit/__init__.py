"""Audits: what is in a corpus or a pack, in figures, on a page, by ear, and against rules."""
