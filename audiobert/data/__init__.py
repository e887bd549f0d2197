"""AuditoryBench as rows and as tensors."""
