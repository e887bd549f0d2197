"""Building AuditoryBench from recordings and their texts (paper, section II-A and figure 2)."""
