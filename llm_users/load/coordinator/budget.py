"""What a run reserves, costs and may cost: said before each stage, and watched while rows come in.

The rule of ``--llm-budget``: nothing new starts once what was spent, plus what may be on its way, would pass the
budget. On its way are at most as many requests as there are users, each as dear as the dearest so far (at first: a mean
prompt and an answer as long as allowed); rows of workers come up to 3 s late, and in that time every user can have made
as many requests as the shortest answer so far allows. A counted stage that would not fit is not begun.
"""

from __future__ import annotations

import logging
import math

from llm_users.options.table import Options
from llm_users.prices import Price
from llm_users.record import RequestRecord

logger = logging.getLogger(__name__)

ROWS_LATE_S = 3.0
"""Locust's interval of workers' reports."""


class Budget:
    """The costs of one run, as its rows tell them."""

    def __init__(self, options: Options, *, distributed: bool = False, reserves_quota: bool = False) -> None:
        self._options = options
        self._reserves_quota = reserves_quota
        self._late_s = ROWS_LATE_S if distributed else 0.0
        self._input = options.input_tokens.mean
        self._output = options.output_tokens.mean
        self._shortest_s = math.inf
        self._dearest = 0.0
        self._unpriced: set[str] = set()
        self.spent = 0.0

    def add(self, record: RequestRecord) -> None:
        """One request has ended."""
        price = self._price(record.model)
        if price is None:
            self._unpriced.add(record.model)
            return
        cost = price.of(
            record.input_tokens or 0,
            record.output_tokens or 0,
            record.cached_tokens or 0,
            record.cache_write_tokens or 0,
        )
        if not record.ok and not record.output_tokens:
            return  # refused or lost before any output: nothing is charged
        self.spent += cost
        self._dearest = max(self._dearest, cost)
        if record.end_to_end_latency_s:
            self._shortest_s = min(self._shortest_s, record.end_to_end_latency_s)

    def plan(self, stage: int, users: int, *, free: bool) -> str | None:
        """Say what a stage reserves and costs, before it begins; returns why it must not, or None."""
        options = self._options
        requests = options.requests if free else options.stage_requests
        if requests is not None and not options.open_loop:
            requests += users * options.stage_warmup.requests
        text = self.describe_stage(users, requests)
        if text:
            logger.info("stage %d: %s", stage, text)
        cost = self._stage_cost(requests)
        if options.budget is not None and cost is not None and self.spent + cost > options.budget:
            after = f", after {self._shown(self.spent)} so far" if self.spent else ""
            return self._over(f"stage {stage} would cost about {self._shown(cost)}{after}")
        return self.why_stop(users)

    def describe_stage(self, users: int, requests: int | None) -> str | None:
        """What a stage reserves and costs, in words; None when there is nothing to say."""
        prices = self._options.prices
        tokens = self._input + self._output
        parts = []
        if self._reserves_quota and users:
            whose = "requests in flight" if self._options.open_loop else "users"
            parts.append(
                f"{users} {whose} x ({self._input:g} input + {self._output:g} max output) reserve "
                f"{users * tokens:,.0f} tokens of quota at a time"
            )
        if requests is not None and (self._reserves_quota or prices is not None):
            parts.append(f"{requests} requests with {requests * tokens:,.0f} tokens in all")
        cost = self._stage_cost(requests)
        if prices is not None and cost is not None:
            parts.append(f"about {prices.shown(cost)} if every answer is as long as allowed")
        elif prices is not None and self._options.model and self._price(self._options.model) is None:
            parts.append(f"the price file has no price for {self._options.model}")
        return "; ".join(parts) or None

    def _stage_cost(self, requests: int | None) -> float | None:
        """Of a counted stage, with answers as long as allowed; None when it cannot be said."""
        price = self._price(self._options.model or "")
        if price is None or requests is None:
            return None
        return requests * price.of(self._input, self._output)

    def why_stop(self, users: int) -> str | None:
        """Why nothing more must start, or None."""
        budget = self._options.budget
        if budget is None:
            return None
        if self._unpriced:
            return self._over(f"there is no price for {', '.join(sorted(self._unpriced))}")
        dearest = self._dearest
        if not dearest:
            price = self._price(self._options.model or "")
            if price is None:
                return self._over(f"there is no price for {self._options.model}") if self._options.model else None
            dearest = price.of(self._input, self._output)
        unseen = 1 + (math.ceil(self._late_s / self._shortest_s) if self._shortest_s < math.inf else 0)
        on_the_way = users * unseen * dearest
        if self.spent + on_the_way <= budget:
            return None
        return self._over(f"{self._shown(self.spent)} are spent and up to {self._shown(on_the_way)} on their way")

    def _over(self, why: str) -> str:
        return f"--llm-budget {self._options.budget:g}: {why}"

    def _price(self, model: str) -> Price | None:
        prices = self._options.prices
        return prices.of_model(model) if prices is not None and model else None

    def _shown(self, sum_: float) -> str:
        return self._options.prices.shown(sum_) if self._options.prices is not None else f"{sum_:g}"
