"""Model and training stage: checkpoint, config, training."""
