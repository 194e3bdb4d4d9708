"""What may be used, and what has to go: the ledger of rights, and takedown."""
