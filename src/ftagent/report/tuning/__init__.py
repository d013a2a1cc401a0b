"""The report on a tuned configuration: what was tried round by round, what mattered, and an Optuna study of it."""
