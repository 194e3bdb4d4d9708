"""The command: gathers the verbs of the folders, nothing else. Importing it imports neither torch nor ray."""
