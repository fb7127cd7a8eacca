"""The search of `base_config: auto`: candidates, finalists, the choice."""
