-- wrk -s post.lua URL -- BODIES: POST the lines of a file in turn, or the whole of an .arrow file again and again;
-- print one JSON line of figures at the end.
local requests, turn = {}, 0

local function post(media_type, body)
  requests[#requests + 1] = wrk.format("POST", nil, { ["Content-Type"] = media_type, ["Accept"] = media_type }, body)
end

function init(arguments)
  if arguments[1]:match("%.arrow$") then
    post("application/vnd.apache.arrow.stream", io.open(arguments[1], "rb"):read("*a"))
    return
  end
  for line in io.lines(arguments[1]) do
    post("application/json", line)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local figures = '{"requests": %d, "seconds": %.3f, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, '
    .. '"not_2xx": %d, "socket_errors": %d}\n'
  io.write(figures:format(
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout
  ))
end
