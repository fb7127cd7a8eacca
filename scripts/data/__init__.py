"""Data stage: fetch, unpack and split the images."""
