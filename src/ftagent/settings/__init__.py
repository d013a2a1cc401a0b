"""What users set in the environment and in `.env`. A `Settings` object is loaded once and passed around."""

from ftagent.settings.loading import Settings, load

__all__ = ["Settings", "load"]
