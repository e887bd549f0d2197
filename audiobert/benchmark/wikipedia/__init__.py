"""The Wikipedia sets, and where their facts come from."""
