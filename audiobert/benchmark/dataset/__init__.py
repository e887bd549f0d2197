"""A benchmark as a dataset: split, counted, checked for leaks and published."""
