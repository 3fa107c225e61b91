"""How every dependency is called: error rules, retry, breaker, rate limits, and the policy of all four."""

from __future__ import annotations

from services.resilience.breaker import Breaker, BreakerOptions, BreakerState, BreakerView, Outcome
from services.resilience.deadline import limit_time, time_left
from services.resilience.fallback import Fallback, Result, Source, because
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
from services.resilience.policy import OnWait, Policies, Policy, PolicyStats, PolicyView
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
    "OnWait",
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
    "because",
    "duration",
    "is_retried",
    "limit_time",
    "rule_of",
    "time_left",
    "trips",
]
