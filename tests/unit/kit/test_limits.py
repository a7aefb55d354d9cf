"""The token bucket: how long must one wait. Time is the bucket's own; waits are computed, not slept."""

from darner.kit.limits import TokenBucket
from darner.kit.retry import backoff


def test_without_a_rate_nobody_waits() -> None:
    assert TokenBucket(0).reserve(10**12) == 0.0


def test_one_second_of_tokens_is_free_and_debt_is_waited_for() -> None:
    bucket = TokenBucket(1000.0)
    assert bucket.reserve(1000) == 0.0
    assert 1.9 < bucket.reserve(2000) <= 2.0


def test_waits_grow_to_the_cap_and_never_beyond() -> None:
    waits = backoff(first_s=0.1, cap_s=1.0)
    steps = [next(waits) for _ in range(20)]
    assert all(0.05 <= wait <= 1.0 for wait in steps)
    assert min(steps[-5:]) >= 0.5
