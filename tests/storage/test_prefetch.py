"""Results in order, ahead of their consumer, and nothing left running."""

import threading

import pytest
from waiting import PATIENCE_SECONDS

from musc_jax.storage.prefetch import map_ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("musc-data")]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_order_is_kept_when_later_items_end_first(workers, ahead):
    """Every other one waits for the one behind it, where two are at work at once."""
    ended = [threading.Event() for _ in range(20)]

    def late(item):
        if item % 2 == 0 and min(workers, ahead) > 1:
            assert ended[item + 1].wait(PATIENCE_SECONDS)
        ended[item].set()
        return item * item

    assert list(map_ahead(late, range(20), workers=workers, ahead=ahead)) == [i * i for i in range(20)]
    assert not threads()


def test_it_runs_ahead_but_not_farther():
    begun, items = threading.Semaphore(0), iter(range(100))
    results = map_ahead(lambda item: begun.release(), items, workers=2, ahead=4)
    next(results)
    for _ in range(5):  # the one taken and four more
        assert begun.acquire(timeout=PATIENCE_SECONDS)
    results.close()
    assert not begun.acquire(blocking=False)
    assert next(items) == 5, "what is not taken from its source is not begun"


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
    meeting = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    assert list(map_ahead(lambda item: meeting.wait() >= 0, range(2), workers=2, ahead=2)) == [True, True]


def test_nothing_to_do():
    assert list(map_ahead(str, [])) == []


@pytest.mark.parametrize("options", [{"workers": 0}, {"ahead": 0}])
def test_options_are_checked_at_once(options):
    with pytest.raises(ValueError, match="at least 1"):
        map_ahead(str, [1], **options)
