"""Shared fixtures."""

pytest_plugins = ["engines"]
