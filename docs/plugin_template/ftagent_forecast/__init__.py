"""A scenario for ftagent."""
