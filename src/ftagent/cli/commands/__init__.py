"""One file per command or group of commands; imported by `ftagent.cli.root` when the command runs."""
