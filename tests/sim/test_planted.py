"""Bugs that are planted are found: each rule, each counterexample of the model, and each design that does without.

A bug counts as found when one of its own signs is seen within its budget of seeds: a kind of the checker, or a rule that the
witness saw broken. The scenes by themselves are sound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from sim import planted as bugs
from sim import scenes
from sim.scenes import SCENES
from sim.trial import Scenes, hold

BUDGET = 4


class Row(NamedTuple):
    """A bug, where it shows, and the signs by which it is known; any of them will do."""

    rule: str
    bug: Callable[[pytest.MonkeyPatch], None]
    scene: Scenes
    signs: set[str]
    seeds: int = BUDGET


ROWS = [
    Row("R1", bugs.no_fence, scenes.preempt, {"fenced"}),
    Row("R1", bugs.no_key_guard, scenes.storm, {"legal-status", "unique-claim", "steady-cursor", "doubled"}),
    Row("R2", bugs.unknown_is_done, scenes.storm, {"claim", "effect-has-claim"}),
    Row("R2", bugs.unknown_is_failed, scenes.storm, {"claim", "doubled", "legal-status", "unique-claim"}),
    Row("R2", bugs.orders_amid_writes, scenes.unanswered, {"claim"}),
    Row("R3", bugs.any_term, scenes.preempt, {"term"}),
    Row("R3", bugs.unaware_of_restores, scenes.restored, {"doubled"}),
    Row("R3", bugs.unaware_while_leading, scenes.restored_unseen, {"doubled"}),
    Row("R3", bugs.hasty, scenes.restored_anew, {"doubled"}),
    Row("R4", bugs.no_lease, scenes.frozen, {"lease"}),
    Row("R4", bugs.lease_from_receipt, scenes.frozen, {"lease"}),
    Row("R4", bugs.lease_revives, scenes.frozen, {"lease"}),
    Row("R4", bugs.old_orders_count, scenes.straggler, {"doubled"}),
    Row("R4", bugs.always_valid, scenes.cut_off, {"valid"}),
    Row("R4", bugs.no_wait, scenes.deaf, {"claim", "ghost", "doubled"}),
    Row("R4", bugs.short_wait, scenes.outlast, {"claim"}),
    Row("R4", bugs.endless_wait, scenes.vanish, {"unfinished"}),
    Row("R5", bugs.closed_is_dead, scenes.dropped, {"claim", "ghost", "doubled"}),
    Row("R5", bugs.any_journal, scenes.twins, {"claim", "ghost", "doubled"}),
    Row("R6", bugs.any_incarnation, scenes.twins, {"incarnation", "doubled"}),
    Row("R6", bugs.arms_in_memory, scenes.unplugged, {"doubled"}),
    Row("R6", bugs.arms_unsynced, scenes.unplugged, {"doubled"}),
    Row("R6", bugs.no_start_entry, scenes.killed, {"doubled"}),
    Row("R7", bugs.never_lost, scenes.deaf, {"ghost", "doubled"}),
    Row("R8", bugs.late_results_count, scenes.deaf, {"final", "legal-status"}),
    Row("R8", bugs.counts_twice, scenes.edited, {"counted-once"}),
    Row("R9", bugs.sends_first, scenes.storm, {"claim"}),
    Row("R9", bugs.never_asks, scenes.orphans, {"unfinished", "missed", "late"}),
    Row("R9", bugs.asks_when_elected, scenes.undelivered, {"unfinished", "missed", "late"}),
    Row("R9", bugs.starts_again, scenes.preempt, {"doubled"}),
    Row("R9", bugs.no_tombstone, scenes.overtake, {"claim", "doubled"}),
    Row("R10", bugs.edits_forget, scenes.edited, {"taken-back"}),
    Row("R10", bugs.cancels_once, scenes.undelivered, {"unfinished", "missed"}),
    Row("R10", bugs.demands_repeat, scenes.asked_twice, {"unexpected"}),
    Row("R11", bugs.no_slot, scenes.given_up, {"overlap", "one-slot"}),
    Row("R11", bugs.lost_is_free, scenes.given_up, {"overlap", "one-slot"}),
    Row("R11", bugs.free_after_a_while, scenes.given_up, {"overlap"}),
    Row("R11", bugs.forgets_the_lost, scenes.never_ordered, {"missed", "unfinished"}),
    Row("R11", bugs.no_self_kill, scenes.alone, {"overlap"}),
    Row("R11", bugs.alone_without_frames, scenes.belated, {"overlap"}),
    Row("R12", bugs.trusts_its_clock, scenes.wrong_clocks, {"early"}),
    Row("takeover", bugs.acts_on_the_past, scenes.hindsight, {"claim", "doubled"}),
    Row("retries", bugs.never_enough, scenes.edited, {"doubled"}),
    Row("punctual", bugs.too_soon, scenes.edited, {"early"}),
    # other designs
    Row("cron in memory", bugs.cron_in_memory, scenes.gaps, {"missed", "steady-cursor"}),
    Row("cron in memory", bugs.cron_in_memory, scenes.wrong_clocks, {"doubled", "unique-claim"}),
    Row("cron without a fence", bugs.cron_without_fence, scenes.gaps, {"missed", "steady-cursor"}),
    Row("cron without a fence", bugs.cron_without_fence, scenes.wrong_clocks, {"doubled", "unique-claim"}),
    Row("next from now", bugs.from_now, scenes.gaps, {"missed", "steady-cursor"}),
    Row("two writes", bugs.two_writes, scenes.orphans, {"atomic-advance"}),
    Row("no compare", bugs.no_compare, scenes.preempt, {"fenced", "unique-claim", "doubled", "legal-status"}),
    Row("polls", bugs.polls, scenes.seldom, {"late"}),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.rule}-{row.bug.__name__}-{row.scene.__name__}")
def test_a_planted_bug_is_found(row: Row) -> None:
    seen: set[str] = set()
    for seed in range(1, 1 + row.seeds):
        seen |= _signs(row, seed)
        if row.signs & seen:
            return
    pytest.fail(f"{row.bug.__name__} was not found in {row.seeds} seeds of {row.scene.__name__}; there was {seen or 'nothing'}")


def _signs(row: Row, seed: int) -> set[str]:
    with pytest.MonkeyPatch.context() as patch:
        row.bug(patch)
        try:
            return hold(row.scene, seed).kinds()
        except TimeoutError:
            return {"what had to come did not"}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_nothing_is_wrong_where_no_bug_is_planted(scene: Scenes) -> None:
    trial = hold(scene, 1)
    assert trial.good, trial.report()


def test_each_rule_is_broken_once_at_least() -> None:
    assert {row.rule for row in ROWS} >= {f"R{number}" for number in range(1, 13)}
    assert {row.scene for row in ROWS} == set(SCENES)
