"""Recordings and what is known of them in words, from folders, archives and datasets."""
