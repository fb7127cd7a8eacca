"""The files of a run: their names, readers and writers."""
