"""The rendered sample data set."""
