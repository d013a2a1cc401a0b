"""Whether a model or an adapter can be used, looked at without loading its weights."""

from ftagent.toolkit.checking.check import Checked, Options, check_folder, check_pair

__all__ = ["Checked", "Options", "check_folder", "check_pair"]
