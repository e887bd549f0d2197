"""Sound in, and a knowledge base out of it."""
