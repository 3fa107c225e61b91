"""How every dependency is called: error rules, retry, breaker, rate limits, and the policy of all four."""

from __future__ import annotations

from services.resilience.breaker import Breaker, BreakerOptions, BreakerState, BreakerView, Outcome
from services.resilience.deadline import limit_time, time_left
from services.resilience.limits import (
    Budget,
    Decision,
    Level,
    Limits,
    MemoryWindows,
    RateLimiter,
    Subject,
    Windows,
)
from services.resilience.policy import Fallback, Policies, Policy, PolicyStats, PolicyView, Result, Source
from services.resilience.retry import Attempt, RetryOptions
from services.resilience.rules import RULES, Rule, advice_of, duration, is_retried, rule_of, trips

__all__ = [
    "RULES",
    "Attempt",
    "Breaker",
    "BreakerOptions",
    "BreakerState",
    "BreakerView",
    "Budget",
    "Decision",
    "Fallback",
    "Level",
    "Limits",
    "MemoryWindows",
    "Outcome",
    "Policies",
    "Policy",
    "PolicyStats",
    "PolicyView",
    "RateLimiter",
    "Result",
    "RetryOptions",
    "Rule",
    "Source",
    "Subject",
    "Windows",
    "advice_of",
    "duration",
    "is_retried",
    "limit_time",
    "rule_of",
    "time_left",
    "trips",
]
