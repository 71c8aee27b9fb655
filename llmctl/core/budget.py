"""What may be spent: allowances as they are configured, what the state of one means for an amount, and how it is said.

Amounts are nano-dollars. Reading what was spent and reserving are the ledger's business (`store/spend`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmctl.core.errors import BudgetExceeded
from llmctl.core.money import NANO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.core.catalog import Catalog, Deployment


class Allowance(NamedTuple):
    """What may be spent by one call, in a day and in a month, of one scope: everything, a tag, or a model group.

    `tag` is (key, value), `model` a name as it is typed; None of both is everything. None is unlimited.
    """

    tag: tuple[str, str] | None = None
    model: str | None = None
    per_call: int | None = None
    daily: int | None = None
    monthly: int | None = None
    refuses: bool = True

    @property
    def scope(self) -> str:
        """What it is an allowance for, in words."""
        if self.tag is not None:
            return f"tag {self.tag[0]}={self.tag[1]}"
        return "all calls" if self.model is None else f"model {self.model}"

    @property
    def key(self) -> str:
        """The table of the configuration that it is written in."""
        if self.tag is not None:
            return f'[budget.tags."{self.tag[0]}={self.tag[1]}"]'
        return "[budget]" if self.model is None else f'[budget.models."{self.model}"]'

    def holds_for(self, model: str, tags: Mapping[str, str]) -> bool:
        """Whether a call of `model`, as it is typed, under `tags` is charged to it."""
        if self.tag is not None:
            return tags.get(self.tag[0]) == self.tag[1]
        return self.model in (None, model)


class Budgets(NamedTuple):
    """All allowances; days and months are those of `zone` ("local", or an IANA name).

    `allow_unpriced` names those who may be asked under a budget although nobody knows their price: groups,
    deployments or provider/model.
    """

    allowances: tuple[Allowance, ...] = ()
    zone: str = "local"
    allow_unpriced: frozenset[str] = frozenset()

    @property
    def refuses(self) -> bool:
        """Whether any allowance refuses, so that nothing may be sent that is not booked."""
        return any(each.refuses for each in self.allowances)

    def of_call(self, model: str, tags: Mapping[str, str], max_cost: int | None = None) -> Budgets:
        """Those that a call is charged to; `max_cost` is one more, for it alone."""
        held = [each for each in self.allowances if each.holds_for(model, tags)]
        if max_cost is not None:
            held.append(Allowance(per_call=max_cost))
        return self._replace(allowances=tuple(held))

    def unpriced(
        self, deployment: Deployment, catalog: Catalog | None = None, group: str = ""
    ) -> BudgetExceeded | None:
        """Why `deployment` may not be asked under these allowances: nobody knows its price, and one refuses.

        It may where it is named, or the `group` it is asked in, or one of the catalog's that has it.
        """
        if deployment.price is not None or not self.refuses:
            return None
        asked, groups = (deployment.id, deployment.served_by), catalog.groups if catalog is not None else {}
        allowed = (each for name in self.allow_unpriced & groups.keys() for each in groups[name].deployments)
        if not self.allow_unpriced.isdisjoint((*asked, group)) or asked in ((d.id, d.served_by) for d in allowed):
            return None
        return BudgetExceeded(
            f"{deployment.served_by}: nobody knows its price, and a budget refuses what it cannot reckon",
            hint="say price = { input = ..., output = ... } on it (0 where nobody bills it), or name it in "
            "allow_unpriced under [budget]",
        )

    def per_call_exceeded(self, nanousd: int) -> list[Allowance]:
        """The allowances that have less than `nanousd` for one call, the tightest first."""
        over = [each for each in self.allowances if each.per_call is not None and nanousd > each.per_call]
        return sorted(over, key=lambda each: each.per_call or 0)

    def check_call(self, nanousd: int) -> None:
        """Raise BudgetExceeded where one call may not cost so much."""
        for each in self.per_call_exceeded(nanousd):
            if each.refuses:
                raise BudgetExceeded(
                    of_one_call(each, nanousd),
                    hint="ask for less with --max-tokens, ask a cheaper model, or raise per_call or --max-cost",
                )


class Standing(NamedTuple):
    """How an allowance stands in the current `period` ("day" or "month"), which `began` and `ends` at these instants.

    `reserved` is what running calls may still cost. `limit` is None where nothing is configured.
    """

    allowance: Allowance
    period: str
    limit: int | None
    spent: int
    reserved: int
    began: float
    ends: float

    @property
    def left(self) -> int | None:
        """What may still be spent."""
        return None if self.limit is None else max(0, self.limit - self.spent - self.reserved)

    def holds(self, nanousd: int) -> bool:
        """Whether so much more may be spent."""
        return self.limit is None or self.spent + self.reserved + nanousd <= self.limit

    @property
    def what(self) -> str:
        """The allowance in words: "$5.00 a day for all calls"."""
        return f"{dollars(self.limit or 0)} a {self.period} for {self.allowance.scope}"

    def exceeded(self, nanousd: int, begins_anew: str) -> str:
        """What is wrong with spending `nanousd` more."""
        reserved = f" and {dollars(self.reserved)} reserved by running calls" if self.reserved else ""
        return (
            f"of {self.what}, {dollars(self.spent)} are spent{reserved}; this call may cost {dollars(nanousd)} "
            f"(begins anew {begins_anew})"
        )


def of_one_call(allowance: Allowance, nanousd: int) -> str:
    """What is wrong with a call that may cost so much."""
    return f"this call may cost {dollars(nanousd)}, more than the {dollars(allowance.per_call or 0)} that one call may"


def dollars(nanousd: int) -> str:
    """An amount for a message, exactly; in cents where that is all.

    >>> dollars(5_000_000_000), dollars(1_074_000)
    ('$5.00', '$0.001074')
    """
    whole, rest = divmod(nanousd, NANO)
    return f"${whole:,}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"
