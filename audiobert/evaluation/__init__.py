"""What models answer to AuditoryBench, and how sure the figures are."""
