"""Slurm and GPUs."""
