"""Results in order, ahead of their consumer, and nothing left running."""

import threading
import time

import pytest

from musc_jax.storage.prefetch import map_ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("musc-data")]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_order_is_kept_when_later_items_end_first(workers, ahead):
    def slow_at_first(item):
        time.sleep(0.004 if item % 5 == 0 else 0)
        return item * item

    assert list(map_ahead(slow_at_first, range(20), workers=workers, ahead=ahead)) == [i * i for i in range(20)]
    assert not threads()


def test_it_runs_ahead_but_not_farther():
    begun = []
    results = map_ahead(begun.append, iter(range(100)), workers=2, ahead=4)
    next(results)
    deadline = time.monotonic() + 5
    while len(begun) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(begun) == 5  # the one taken and four more
    results.close()
    assert len(begun) == 5


def test_an_exception_comes_in_its_items_place():
    def fail_at_three(item):
        if item == 3:
            raise KeyError("three")
        return item

    results = map_ahead(fail_at_three, range(10), workers=3, ahead=6)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)
    assert not threads()


def test_closing_ends_the_threads():
    results = map_ahead(lambda item: item, range(1000), workers=2, ahead=8)
    next(results)
    assert threads()
    results.close()
    assert not threads()


def test_it_really_works_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)
    assert list(map_ahead(lambda item: meeting.wait() >= 0, range(2), workers=2, ahead=2)) == [True, True]


def test_nothing_to_do():
    assert list(map_ahead(str, [])) == []


@pytest.mark.parametrize("options", [{"workers": 0}, {"ahead": 0}])
def test_options_are_checked_at_once(options):
    with pytest.raises(ValueError, match="at least 1"):
        map_ahead(str, [1], **options)
