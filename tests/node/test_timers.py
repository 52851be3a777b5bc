"""The clock and the timers: time reaches the engine only through these."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from node.timers import Timers, read_clock


class TrioClock:
    """The node's clock over trio's simulated one."""

    def now_ms(self) -> int:
        """Milliseconds of simulated time, rounded up so that a timer that trio woke is due."""
        return round(trio.current_time() * 1000)


def run(main: Callable[[], object]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_timers_fire_in_the_order_of_their_times_and_not_before() -> None:
    async def main() -> None:
        timers = Timers[str](TrioClock())
        start = timers._clock.now_ms()
        timers.set("late", start + 300)
        timers.set("soon", start + 100)
        fired = [(await timers.wait_due(), timers._clock.now_ms() - start) for _ in range(2)]
        assert fired == [("soon", 100), ("late", 300)]

    run(main)


def test_setting_a_timer_again_replaces_its_time() -> None:
    async def main() -> None:
        timers = Timers[str](TrioClock())
        start = timers._clock.now_ms()
        timers.set("a", start + 100)
        timers.set("a", start + 500)
        timers.set("b", start + 200)
        assert [await timers.wait_due(), await timers.wait_due()] == ["b", "a"]
        assert timers._clock.now_ms() - start == 500

    run(main)


def test_a_timer_set_while_waiting_for_a_later_one_fires_first() -> None:
    async def main() -> None:
        timers = Timers[str](TrioClock())
        start = timers._clock.now_ms()
        timers.set("late", start + 1_000)
        fired: list[str] = []

        async def wait() -> None:
            fired.append(await timers.wait_due())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            timers.set("soon", start + 50)
        assert (fired, timers._clock.now_ms() - start) == (["soon"], 50)

    run(main)


def test_a_cancelled_timer_never_fires_and_repeated_settings_cost_nothing() -> None:
    async def main() -> None:
        timers = Timers[str](TrioClock())
        start = timers._clock.now_ms()
        timers.set("gone", start + 10)
        timers.cancel("gone")
        for _ in range(1_000):
            timers.set("kept", start + 20)
        assert len(timers._heap) == 2
        assert await timers.wait_due() == "kept"

    run(main)


class JumpingClock:
    """A clock that goes on by a second with every look at it."""

    def __init__(self) -> None:
        self.at_ms = 0

    def now_ms(self) -> int:
        self.at_ms += 1_000
        return self.at_ms


@pytest.mark.parametrize("at_ms", [1_500, 2_500, 3_500])
def test_a_timer_that_becomes_due_between_two_looks_at_the_clock_fires(at_ms: int) -> None:
    async def main() -> None:
        timers = Timers[str](JumpingClock())
        timers.set("due in between", at_ms)
        with trio.fail_after(10):
            assert await timers.wait_due() == "due in between"

    run(main)


def test_a_skewed_clock_is_wrong_by_that_much_and_still_runs() -> None:
    right, ahead, behind = read_clock(), read_clock(3_000), read_clock(-3_000)
    assert abs(ahead.offset_ms - right.offset_ms - 3_000) < 1_000
    assert abs(behind.offset_ms - right.offset_ms + 3_000) < 1_000
    assert ahead.now_ms() > right.now_ms() > behind.now_ms()
    assert abs(ahead.now_us() - behind.now_us()) < 1_000_000, "durations are measured by the same clock"
