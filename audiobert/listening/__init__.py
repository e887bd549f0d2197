"""Learning to listen: rows about recordings under names that say nothing, so that only the sound can answer."""
