"""Copies: clips that are the same audio or text as others, in the corpus or in a registry of evaluation sets."""
