"""Sheets that people fill in: the human filter and the human evaluation."""
