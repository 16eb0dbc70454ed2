-- CONNECTIONS=N wrk -t1 -cN -s load.lua URL -- BODIES PATH: posts a random line of the file BODIES to PATH, and prints
-- what was seen as JSON.
local ffi = require("ffi")
ffi.cdef("typedef struct { uint64_t count, limit, min, max, data[1]; } stats;")

local requests = {}

function init(arguments)
  math.randomseed(11)
  for line in io.lines(arguments[1]) do
    local headers = {["content-type"] = "application/json"}
    requests[#requests + 1] = wrk.format("POST", arguments[2], headers, line)
  end
end

function request()
  return requests[math.random(#requests)]
end

-- For each slow reply wrk 4 adds latencies of requests that would have been sent meanwhile. A closed loop sends none, so
-- they are taken out again, from the slowest down, as wrk's `stats_correct` put them in.
local function take_out_unseen(stats, summary)
  local rounds = math.floor(summary.requests / tonumber(os.getenv("CONNECTIONS")))
  if rounds == 0 then
    return
  end
  local interval = math.floor(summary.duration / rounds)
  for slow = tonumber(stats.max), interval * 2, -1 do
    local count = stats.data[slow]
    if count > 0 then
      for unseen = slow - interval, interval + 1, -interval do
        stats.data[unseen] = stats.data[unseen] - count
      end
    end
  end
end

-- The latencies below which these parts of all requests are, of what is left.
local function percentiles(stats, parts, all)
  local found, sum = {}, 0
  for value = tonumber(stats.min), tonumber(stats.max) do
    sum = sum + tonumber(stats.data[value])
    while #found < #parts and sum >= math.max(1, math.ceil(parts[#found + 1] * all)) do
      found[#found + 1] = value
    end
  end
  return found, sum
end

function done(summary, latency)
  local failed = summary.errors
  local stats = ffi.cast("stats **", latency)[0]
  take_out_unseen(stats, summary)
  local found, sum = percentiles(stats, {0.5, 0.99}, summary.requests)
  if sum ~= summary.requests then
    error(string.format("this wrk counts in another way: %d latencies of %d requests", sum, summary.requests))
  end
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d, "late": %d}\n',
    summary.requests, summary.duration / 1e6, found[1] or 0, found[2] or 0,
    failed.status, failed.connect + failed.read + failed.write, failed.timeout))
end
