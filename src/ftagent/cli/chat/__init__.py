"""Conversations at a terminal."""
