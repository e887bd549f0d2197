"""The tables of the paper, and the controls that it lacks, from one command (paper, Tables I to IV)."""
