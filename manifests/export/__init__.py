"""What leaves: corpora and packs in the formats of other libraries, and the cards that describe them."""
