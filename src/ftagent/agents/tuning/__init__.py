"""Agents for scenarios whose brief has a plan: one parameter at a time, or all at once."""
