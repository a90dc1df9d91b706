-- For wrk: requests with the cookies of the file args[1], one after the other; the result as JSON.
local requests, at = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    local headers = {}
    if line ~= '' then headers['Cookie'] = line end
    requests[#requests + 1] = wrk.format('GET', nil, headers)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('JSON{"requests":%d,"us":%d,"p50Us":%d,"p99Us":%d,"failed":%d}\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
