"""Evaluation stage: predictions and metrics."""
