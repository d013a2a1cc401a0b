"""Every error that ftagent raises on purpose. A command turns each into one line and an exit code."""


class FtagentError(Exception):
    """Base of all; its text is one line that a user can act on."""

    exit_code = 1


class RequestError(FtagentError):
    """What was asked for cannot be done as asked; nothing was started or changed."""

    exit_code = 2


class JournalDamaged(RequestError):
    """The journal does not read as what was written. `line` is the first damaged line, counted from 1."""

    def __init__(self, path: str, line: int, why: str) -> None:
        super().__init__(f"{path}:{line}: journal is damaged ({why}); `ftagent journal repair` can cut it there")
        self.line = line


class RunLocked(RequestError):
    """Another process holds the run; the text names it."""


class WorkspaceMissing(RequestError):
    """A workspace that a resumed step needs is gone; the text names the step to go back to."""


class StorageFull(FtagentError):
    """No space (or no permission) left to record what happened. What is recorded is intact; resumable."""

    exit_code = 3


class EnvironmentUnavailable(FtagentError):
    """The place where commands execute failed, not the code in it. `hint` says what would help."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.hint = hint


class NoUsableReply(FtagentError):
    """An agent has no answer after a bounded number of tries. The experiment fails, the run goes on."""


class AgentUnavailable(FtagentError):
    """The model behind an agent cannot be used (credentials, name, address, no answer); resumable once it can.

    `passing`: a later request may be answered, after `retry_after` seconds where the provider says how many.
    """

    def __init__(self, message: str, passing: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.retry_after = retry_after


class StageRefused(FtagentError):
    """A scenario refuses to go on after a stage: the experiment broke a rule (for example the overlap gate)."""


class StoppedEarly(StageRefused):
    """A trial could not win any more and was stopped; the text names the rule."""

    prefix = "stopped early:"
    """How the record of such a stage begins."""


class ScoreUnavailable(FtagentError):
    """A metric could not be computed. It is missing then, never 0."""


def first_of(group: ExceptionGroup[Exception]) -> Exception:
    """The first error of a group that is no group itself."""
    found = group.exceptions[0]
    return first_of(found) if isinstance(found, ExceptionGroup) else found
