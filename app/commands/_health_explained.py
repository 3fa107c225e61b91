"""`callboard health explain`: how states, breakers, limits and alerts come about, for who wants to know."""

from __future__ import annotations

from typing import Final

EXPLAINED: Final = """\
WHO PROBES
  One of the processes that have a database open probes, all show what it
  finds, its breakers and its budgets. When it ends, another takes over within
  half a minute. What is true of a machine (network, disk, audio, clock) or of
  a process (whether its secret store is open) each measures for itself; on
  PostgreSQL it carries the machine's name, and only what is wrong at the one
  that probes is told. A process whose secret store is locked probes only
  while no other can.

STATES
  up, degraded, down; pending: it failed, and is looked at again before it is
  called down; waits: what it hangs on is down, so nothing is said of itself;
  maintenance: it may fail, and nobody is told.
  What fails is down within two intervals (health_interval, 30 s), also where
  nothing answers: a check takes two fifths of its interval at most, and half
  an interval after a first failure it is made again. With --failures N it is
  down within N intervals. Single probes are kept 25 hours, hourly figures 8
  days, daily ones 90.

CONNECTIONS AND INTEGRATIONS
  A call that costs nothing, with the key, timed. Used-up credits and rate
  limits are degraded: it answers.

AGENTS
  Degraded: the mirror is old or in conflict, or work on one side alone (local
  or remote ahead) is older than a day; a number goes on with an older version
  than the published one, or leads to one that does not exist or was never
  published; something it refers to is gone (tools, documents, voices,
  secrets, other agents); a host of its webhooks or tools cannot be reached.
  Such hosts are connected to, nothing is asked of them.
  No trouble: a draft ahead of what is published, and an agent that nothing
  leads to.

BREAKERS
  One for each connection and integration. It opens after breaker_failures
  failed calls in a row (5), or as soon as the check is down and nobody was
  answered meanwhile. breaker_open seconds later (30) breaker_trials calls at
  a time (1) try it, and breaker_successes answers (2), those of checks
  included, close it.

LIMITS
  limit_minute, limit_hour, limit_day and limit_burst hold for each company,
  agent and user at once. They count what people and agents begin:
  conversations and typed turns, messages, bookings, the CRM, knowledge,
  routing. What is read for the mirror and by checks is not counted: there the
  vendor's own word governs (concurrency bounds the requests in flight, each
  429 halves them, Retry-After holds them). Without Redis each process, so
  each command too, counts for itself; with CALLBOARD_REDIS_URL they count
  together, and each for itself again, marked as degraded, while Redis is
  lost.

STAND-INS
  Rules for the language model, words for meaning, this machine's documents
  for a remote knowledge base, and for up to a quarter of an hour what a
  search or a vendor said before. In --json: degraded, age_seconds.

ALERTS
  One cause, one alert, and one when it is over; again only after a quarter of
  an hour. Each goes out at least once, and twice, with the same key, only
  after a crash. Who cannot take it now is told again, ever later, for a day.
  A command gets it in CALLBOARD_ALERT_…, may run callboard itself, and ends
  with 75 to be run again."""
