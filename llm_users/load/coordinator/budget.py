"""The budget of a run: announces the cost and the token quota of each stage, and checks the cost while rows arrive.

The rule of ``--llm-budget``: nothing new starts when the cost so far plus the possible cost of requests in flight would
exceed the budget. At most as many requests are in flight as there are users. Each is assumed to cost as much as the
most expensive one so far (at first: a mean prompt and an answer of the maximum length). Rows of workers arrive up to 3
s late, and in that time each user may have sent as many requests as the shortest answer so far allows. A stage with a
fixed number of requests that would exceed the budget does not start.
"""

from __future__ import annotations

import logging
import math

from llm_users.load.coordinator.expected_usage import mean_price, requests_of_stage
from llm_users.number_words import counted
from llm_users.options.table import Options
from llm_users.prices import Price, PriceError
from llm_users.record import Lengths, RequestRecord

logger = logging.getLogger(__name__)

ROWS_LATE_S = 3.0
"""The interval of Locust's worker reports."""


class Budget:
    """The costs of one run, calculated from its rows."""

    def __init__(self, options: Options, *, distributed: bool = False, reserves_quota: bool = False) -> None:
        self._options = options
        self._reserves_quota = reserves_quota
        self._late_s = ROWS_LATE_S if distributed else 0.0
        self._input: float = options.input_tokens.mean
        self._output: float = options.output_tokens.mean
        self._shortest_s = math.inf
        self._highest_cost = 0.0
        self._unpriced: set[str] = set()
        self._known_prices: dict[str, Price | None] = {}
        self._known_mean_price: Price | None = None
        self._mean_price_is_known = False
        self.spent = 0.0

    def add(self, record: RequestRecord) -> None:
        """Add the cost of a request that has ended."""
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
            return  # rejected or lost before any output: the provider does not charge it
        self.spent += cost
        self._highest_cost = max(self._highest_cost, cost)
        if record.end_to_end_latency_s:
            self._shortest_s = min(self._shortest_s, record.end_to_end_latency_s)

    def plan(self, stage: int, users: int, *, free: bool, lengths: Lengths | None = None) -> str | None:
        """Log what a stage reserves and costs. Return why the stage must not start, or None.

        ``lengths`` are those of the stage's requests if they differ from the mean lengths of the run.
        """
        if lengths is not None:
            self._input, self._output = lengths
        requests = requests_of_stage(self._options, users, free=free)
        text = self.describe_stage(users, requests)
        if text:
            logger.info("stage %d: %s", stage, text)
        return self.why_not(stage, users, free=free, lengths=lengths)

    def why_not(self, stage: int, users: int, *, free: bool, lengths: Lengths | None = None) -> str | None:
        """Return why the stage must not start, or None. See ``plan``."""
        options = self._options
        if lengths is not None:
            self._input, self._output = lengths
        requests = requests_of_stage(options, users, free=free)
        cost = self._stage_cost(requests)
        if options.budget is not None and cost is not None and self.spent + cost > options.budget:
            after = f", after {self._formatted(self.spent)} so far" if self.spent else ""
            return self._over(f"stage {stage} would cost about {self._formatted(cost)}{after}")
        return self.why_stop(users)

    def describe_stage(self, users: int, requests: int | None) -> str | None:
        """Return what a stage reserves and costs, as text, or None if neither applies."""
        prices = self._options.prices
        tokens = self._input + self._output
        parts = []
        if self._reserves_quota and users:
            whose = counted(users, "request" if self._options.open_loop else "user")
            whose += " in flight" if self._options.open_loop else ""
            parts.append(
                f"{whose} x ({self._input:g} input + {self._output:g} max output) reserve "
                f"{users * tokens:,.0f} tokens of quota at a time"
            )
        if requests is not None and (self._reserves_quota or prices is not None):
            parts.append(f"{counted(requests, 'request')} with {requests * tokens:,.0f} tokens in total")
        cost = self._stage_cost(requests)
        if prices is not None and cost is not None:
            parts.append(f"about {prices.shown(cost)} if every answer has the maximum length")
        elif prices is not None and self._mean_price() is None:
            unpriced = [model for model in self._models() if self._price(model) is None]
            if unpriced:
                parts.append(f"the price file has no price for {', '.join(unpriced)}")
        return "; ".join(parts) or None

    def _stage_cost(self, requests: int | None) -> float | None:
        """Return the cost of a stage with answers of the maximum length, or None if it is unknown."""
        price = self._mean_price()
        if price is None or requests is None:
            return None
        return requests * price.of(self._input, self._output)

    def why_stop(self, users: int) -> str | None:
        """Return why nothing more may start, or None."""
        budget = self._options.budget
        if budget is None:
            return None
        if self._unpriced:
            return self._over(f"there is no price for {', '.join(sorted(self._unpriced))}")
        highest_cost = self._highest_cost
        if not highest_cost:
            costs = []
            for model in self._models():
                if (price := self._price(model)) is None:
                    return self._over(f"there is no price for {model}")
                costs.append(price.of(self._input, self._output))
            if not costs:
                return None
            highest_cost = max(costs)
        unseen = 1 + (math.ceil(self._late_s / self._shortest_s) if self._shortest_s < math.inf else 0)
        in_flight = users * unseen * highest_cost
        if self.spent + in_flight <= budget:
            return None
        return self._over(
            f"{self._formatted(self.spent)} is spent, "
            f"and requests in flight may cost up to {self._formatted(in_flight)}"
        )

    def _over(self, why: str) -> str:
        return f"--llm-budget {self._options.budget:g}: {why}"

    def _models(self) -> list[str]:
        """Return the models that the options name."""
        if self._options.targets:
            return [target.model for target in self._options.targets]
        return [self._options.model] if self._options.model else []

    def _mean_price(self) -> Price | None:
        """Return the mean price over the models by their shares of the requests, or None if it is unknown."""
        if not self._mean_price_is_known:
            self._mean_price_is_known = True
            try:
                self._known_mean_price = mean_price(self._options)
            except PriceError as error:
                logger.error("--llm-prices: %s", error)
        return self._known_mean_price

    def _price(self, model: str) -> Price | None:
        """Return the price of a model. The lookup is kept, because it compares the names of the whole file."""
        if model not in self._known_prices:
            self._known_prices[model] = self._price_in_file(model)
        return self._known_prices[model]

    def _price_in_file(self, model: str) -> Price | None:
        prices = self._options.prices
        try:
            return prices.of_model(model) if prices is not None and model else None
        except PriceError as error:  # a model that the server named; a named model is checked before the run
            logger.error("--llm-prices: %s", error)
            return None

    def _formatted(self, amount: float) -> str:
        return self._options.prices.shown(amount) if self._options.prices is not None else f"{amount:g}"
