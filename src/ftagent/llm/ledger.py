"""What calls cost, and the one place that decides whether another one may be made under `--budget-usd`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from ftagent.core.calls import Calls
from ftagent.core.errors import RequestError
from ftagent.core.session import LimitReached
from ftagent.llm.types import Price, Usage

_ROUNDING = 1e-12


class Ledger:
    """Shared by everyone who spends a run's dollars: proposer, judge, scripts. For one event loop.

    A call reserves its worst case before it is sent. It is sent when that still fits under the cap; else it waits
    until calls in flight have settled, and goes alone if it does not fit then either. So the cap is exceeded by at
    most one call, and a small cap still lets one call through.
    """

    def __init__(self, calls: Calls, price_of: Callable[[str], Price | None]) -> None:
        self._calls = calls
        self._price_of = price_of
        self._held = 0.0
        self._in_flight = 0
        self._gate = asyncio.Lock()
        self._settled = asyncio.Event()
        self._unrecorded = 0.0

    @property
    def spent_usd(self) -> float:
        """Dollars of the run, with what this session spent outside of recorded calls."""
        return self._calls.spent_usd + self._unrecorded

    def cost(self, model: str, usage: Usage) -> float | None:
        """Dollars; None where the price is unknown."""
        price = self._price_of(model)
        return None if price is None else price.of(usage)

    @contextlib.contextmanager
    def account(self, model: str, worst: Callable[[], Usage]) -> Iterator[Account]:
        """For one call with all its attempts; what it holds is released when the block ends.

        `worst` gives the largest usage of one attempt and is asked only under a cap.
        """
        account = Account(self, model, worst)
        try:
            yield account
        finally:
            account.release()

    async def _admit(self, model: str, worst: Callable[[], Usage]) -> float | None:
        """The dollars held for an attempt, once it may be made; None without a cap. Raises LimitReached."""
        if self._calls.cap_usd is None:
            return None
        most = self.cost(model, worst())
        if most is None:
            raise unpriced(model)
        # In the order of asking: a large call that waits is not overtaken by small ones for ever.
        async with self._gate:
            while True:
                cap, spent = self._calls.cap_usd, self.spent_usd
                if cap is None or (spent < cap and not self._in_flight):
                    break
                if spent >= cap:
                    raise LimitReached("--budget-usd")
                if spent + self._held + most <= cap + _ROUNDING:
                    break
                self._settled.clear()
                await self._settled.wait()
            self._held += most
            self._in_flight += 1
            return most

    def _release(self, held: float) -> None:
        self._in_flight -= 1
        self._held = self._held - held if self._in_flight else 0.0
        self._settled.set()

    def _charge(self, usd: float) -> None:
        self._unrecorded += usd


class Account:
    """One call's share of the ledger."""

    def __init__(self, ledger: Ledger, model: str, worst: Callable[[], Usage]) -> None:
        self._ledger = ledger
        self._model = model
        self._worst = worst
        self._held: float | None = None
        self._failed = 0.0

    async def reserve(self) -> None:
        """Before each attempt. Raises LimitReached when nothing is left, RequestError for a model without a price."""
        self.release()
        self._held = await self._ledger._admit(self._model, self._worst)

    def failed(self, usage: Usage) -> None:
        """An attempt failed after it delivered these tokens, which the provider charges."""
        cost = self._ledger.cost(self._model, usage) or 0.0
        self._failed += cost
        self._ledger._charge(cost)
        self.release()

    def settle(self, usage: Usage) -> float | None:
        """Dollars of the whole call, failed attempts included; None where unknown. Whoever asks records them now."""
        cost = self._ledger.cost(self._model, usage)
        self._ledger._charge(-self._failed)
        total, self._failed = self._failed, 0.0
        return None if cost is None else cost + total

    def spend(self, usage: Usage) -> float | None:
        """As `settle`, for what no event records: it counts against the cap for the rest of this session."""
        total = self.settle(usage)
        self._ledger._charge(total or 0.0)
        return total

    def release(self) -> None:
        """Hold nothing any longer."""
        if self._held is not None:
            held, self._held = self._held, None
            self._ledger._release(held)


def unpriced(model: str) -> RequestError:
    """The error for a dollar cap over a model whose price nobody knows."""
    return RequestError(
        f"--budget-usd: the price of {model} is unknown, so a cap could not be kept; set FTAGENT_MODEL_PRICES="
        f'\'{{"{model}": {{"input": DOLLARS, "output": DOLLARS}}}}\' (per million tokens), or input_cost_per_token '
        "and output_cost_per_token in LITELLM_CHAT_MODEL_MAP"
    )
