"""What Redis runs: each script is one indivisible question, timed by the server's clock in microseconds.

Microseconds since the epoch are below 2**53, so Lua's numbers and Redis' scores hold them exactly; they are
written with `%.0f`, since Lua would shorten them.
"""

from __future__ import annotations

from typing import Final

_BEGIN: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function text(number) return string.format('%.0f', number) end
local function score(key, rank)
  local found = redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')
  return found[2] and tonumber(found[2])
end
"""

TAKE: Final = (
    _BEGIN
    + """
-- KEYS: the grants of each level, as a sorted set of their times.
-- ARGV: how long grants are kept, then for each key its number of windows, and their lengths and limits.
-- Answers: 1 or 0, the deciding key and window (from 1; 0 without one), what remains, the wait.
local keep = tonumber(ARGV[1])
-- No grant gets the time of an older one or an earlier time, though clocks be put back a little. One put
-- back by more than a minute would keep everybody waiting until it has caught up: what lies that far ahead
-- was counted by a wrong clock, and goes.
local at = now
for _, key in ipairs(KEYS) do
  local newest = score(key, -1)
  if newest and newest > now + 60000000 then
    redis.call('ZREMRANGEBYSCORE', key, '(' .. text(now + 60000000), '+inf')
    newest = score(key, -1)
  end
  if newest and newest >= at then at = newest + 1 end
end
local least, least_key, least_window = 0, 0, 0
local latest, full_key, full_window = -1, 0, 0
local place = 2
for i, key in ipairs(KEYS) do
  local windows = tonumber(ARGV[place])
  place = place + 1
  for j = 1, windows do
    local length, limit = tonumber(ARGV[place]), tonumber(ARGV[place + 1])
    place = place + 2
    local left = limit - redis.call('ZCOUNT', key, '(' .. text(at - length), '+inf')
    if left <= 0 then
      local free = score(key, -limit) + length
      if free > latest then latest, full_key, full_window = free, i, j end
    elseif least_key == 0 or left < least then
      least, least_key, least_window = left, i, j
    end
  end
end
if full_key > 0 then return {0, full_key, full_window, 0, math.max(0, latest - now)} end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, text(at), text(at))
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(at - keep))
  redis.call('PEXPIRE', key, math.ceil(keep / 1000) + 1000)
end
return {1, least_key, least_window, least - 1, 0}
"""
)

BUDGETS: Final = (
    _BEGIN
    + """
-- KEYS and ARGV as for taking, without how long grants are kept. Answers: used and the wait, per window.
local answer = {}
local place = 1
for _, key in ipairs(KEYS) do
  local windows = tonumber(ARGV[place])
  place = place + 1
  for _ = 1, windows do
    local length, limit = tonumber(ARGV[place]), tonumber(ARGV[place + 1])
    place = place + 2
    local used = redis.call('ZCOUNT', key, '(' .. text(now - length), '+inf')
    table.insert(answer, used)
    table.insert(answer, used >= limit and math.max(0, score(key, -limit) + length - now) or 0)
  end
end
return answer
"""
)

BREAKER: Final = (
    _BEGIN
    + """
-- KEYS: the breaker as a hash, and who is trying while it is half open, as a sorted set of their begin.
-- ARGV: what to do, the permit's generation and place, then the options. The algorithm is that of
-- `services.resilience.breaker.Machine`.
-- Answers: `yes`, `no` or `trying` with the wait; then the breaker as it is now, and the time.
local op, generation, place = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local failure_threshold, open_for = tonumber(ARGV[4]), tonumber(ARGV[5])
local success_threshold, concurrency = tonumber(ARGV[6]), tonumber(ARGV[7])
local probe_for, keep = tonumber(ARGV[8]), ARGV[9]
local stored = redis.call('HMGET', KEYS[1], 'state', 'failures', 'successes', 'generation', 'opened')
local state = stored[1] or 'closed'
local failures, successes = tonumber(stored[2] or 0), tonumber(stored[3] or 0)
local current, opened = tonumber(stored[4] or 0), tonumber(stored[5] or 0)
local changed = false
local answer, wait = '', 0

local function become(to)
  state, current, failures, successes, changed = to, current + 1, 0, 0, true
  redis.call('DEL', KEYS[2])
end
local function trip()
  local kept = failures
  become('open')
  failures, opened = kept, now
end

local function succeed()
  successes, changed = successes + 1, true
  if successes >= success_threshold then become('closed') end
end

if opened > now then opened, changed = now, true end -- the clock was put back

if op == 'admit' then
  if state == 'open' and opened + open_for <= now then become('half_open') end
  if state == 'closed' then
    answer = 'yes'
  elseif state == 'open' then
    answer, wait = 'no', opened + open_for - now
  else
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - probe_for))
    if redis.call('ZCARD', KEYS[2]) < concurrency then
      redis.call('ZADD', KEYS[2], text(now), place)
      redis.call('PEXPIRE', KEYS[2], keep)
      answer = 'yes'
    else
      answer, wait = 'trying', math.max(0, math.min(1000000, score(KEYS[2], 0) + probe_for - now))
    end
  end
elseif op == 'prove' then
  if state == 'open' then become('half_open') end
  if state == 'half_open' then succeed() end
elseif op == 'reset' then
  become('closed')
elseif op == 'trip' then
  trip()
elseif op ~= 'view' and generation == current then
  if place ~= '' then redis.call('ZREM', KEYS[2], place) end
  if op == 'succeeded' then
    if failures > 0 then failures, changed = 0, true end
    if state == 'half_open' then succeed() end
  elseif op == 'failed' then
    failures, changed = failures + 1, true
    if state == 'half_open' or failures >= failure_threshold then trip() end
  end
end

if changed then
  redis.call('HSET', KEYS[1], 'state', state, 'failures', failures, 'successes', successes,
    'generation', text(current), 'opened', text(opened))
  redis.call('PEXPIRE', KEYS[1], keep)
end
local trying = 0
if state == 'half_open' then trying = redis.call('ZCARD', KEYS[2]) end
local left = 0
if state == 'open' then left = math.max(0, opened + open_for - now) end
return {answer, wait, state, failures, successes, current, trying, left, now}
"""
)

PROBE: Final = "return redis.call('SET', KEYS[1], '1', 'PX', '1000')"
"""Whether scripts may write here."""
