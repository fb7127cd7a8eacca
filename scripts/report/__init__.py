"""Report stage: figures, leaderboard, provenance."""
