-- webhooks: one reader's turn (a receiver of webhooks, or the ledger) at what a bucket recorded: takes or renews its lease, moves its cursor, keeps dead
-- letters, and hands out what comes next. Also writes refusals, and reports. It needs none of the bucket's tables, and no
-- head: what it changes is its own.
--
-- KEYS, all of one bucket: 1 events   2 refusals (stream)   3 webhooks (hash)   4 dead_letters (stream)
-- Fields of the hash, by receiver:
--   <name>/lease      "<owner> <fence> <until, ms>"; the fence rises each time that the lease goes to another owner
--   <name>/events, <name>/refusals   the last entry of each stream that is done with
--   <name>/error      "<ms> <what went wrong last>"; absent while deliveries succeed
--   <name>/dead       dead letters so far
--   <name>/seen       when it last had or asked for its turn, ms
-- ARGV[1], JSON, one of:
--   {refused: [[field, value, ..]], most}   appends refusals; the stream keeps about `most`
--   {report: [name], most}                  reads, and changes nothing
--   {receiver, owner, lease (ms), from_start, events, refusals (booleans: what it reads), most, leave, trim, forgotten (ms),
--    done: {fence, events, refusals (cursors), dead: [[field, value, ..]]}, kept (dead letters), error}
--      from_start: a receiver without a cursor begins with what the streams hold, else at their ends
--      done: only under the lease's own fence, so that a node that lost it moves nothing; may be repeated
--      leave: gives the lease up
--      trim: drops events that every reader is done with; one that was not seen for so long (forgotten) is none any more
-- Outcomes, JSON, with now (ms):
--   {}                                       after refused
--   {elsewhere: true, dead}                  another owner holds the lease
--   {fence, stale, missed, lag (ms), dead, length (events in the stream), cursor: {events, refusals}, events: [[id, [field, value, ..]]], refusals}
--      stale: `done` was of another fence and changed nothing
--      missed: the stream was cut off behind the cursor: what was lost is not known
--      lag: since the oldest entry that is not done with; 0 when there is none
--   {receivers: [{name, lag, error, dead, owner}], letters: [[id, [field, value, ..]]]}    after report

local call = redis.call
local EVENTS, REFUSALS, STATE, DEAD = unpack(KEYS)
local ask = cjson.decode(ARGV[1])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- An empty list would be written as {}.
local function some(list)
    return #list > 0 and list or nil
end

local function age(id)
    return math.max(now - tonumber(string.match(id, '^(%d+)')), 0)
end

local function last(stream)
    local newest = call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    return newest and newest[1] or '0-0'
end

local function after(stream, cursor, most)
    return call('XRANGE', stream, '(' .. cursor, '+', 'COUNT', most)
end

if ask.refused then
    for _, refusal in ipairs(ask.refused) do
        call('XADD', REFUSALS, 'MAXLEN', '~', ask.most, '*', unpack(refusal))
    end
    return cjson.encode({ now = now })
end

if ask.report then
    local receivers = {}
    for at, name in ipairs(ask.report) do
        local state = call('HMGET', STATE, name .. '/events', name .. '/refusals', name .. '/error', name .. '/dead',
            name .. '/lease')
        local lag = 0
        for place, stream in ipairs({ EVENTS, REFUSALS }) do
            local oldest = state[place] and after(stream, state[place], 1)[1]
            lag = math.max(lag, oldest and age(oldest[1]) or 0)
        end
        receivers[at] = {
            name = name, lag = lag, error = state[3] or nil, dead = tonumber(state[4] or 0),
            owner = state[5] and string.match(state[5], '^(%x+)') or nil,
        }
    end
    local letters = call('XREVRANGE', DEAD, '+', '-', 'COUNT', ask.most)
    return cjson.encode({ now = now, receivers = some(receivers), letters = some(letters) })
end

-- Whether one entry of a stream came before another.
local function before(one, other)
    local ms, number = string.match(one, '^(%d+)-(%d+)$')
    local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
    ms, other_ms = tonumber(ms), tonumber(other_ms)
    return ms < other_ms or ms == other_ms and tonumber(number) < tonumber(other_number)
end

-- Drops what all readers are done with, but for the last such entry: whoever finds it knows that nothing was lost.
local function trim(forgotten)
    local state, fields, least = {}, call('HGETALL', STATE), nil
    for at = 1, #fields, 2 do
        state[fields[at]] = fields[at + 1]
    end
    for field, cursor in pairs(state) do
        local name = string.match(field, '^(.*)/events$')
        local seen = name and tonumber(state[name .. '/seen'] or now)
        if name and seen > now - forgotten and (not least or before(cursor, least)) then
            least = cursor
        end
    end
    if least and least ~= '0-0' then
        call('XTRIM', EVENTS, 'MINID', least)
    end
end

local own = ask.receiver .. '/'
local state = call('HMGET', STATE, own .. 'lease', own .. 'events', own .. 'refusals', own .. 'dead')
local owner, fence, ends = string.match(state[1] or '', '^(%x+) (%d+) (%d+)$')
local dead = tonumber(state[4] or 0)
fence, ends = tonumber(fence or 0), tonumber(ends or 0)
if owner ~= ask.owner then
    if ends > now then
        call('HSET', STATE, own .. 'seen', string.format('%.0f', now))
        return cjson.encode({ now = now, elsewhere = true, dead = dead })
    end
    fence = fence + 1
end
ends = ask.leave and 0 or now + ask.lease
call('HSET', STATE, own .. 'lease', string.format('%s %.0f %.0f', ask.owner, fence, ends),
    own .. 'seen', string.format('%.0f', now))

local cursors = { events = state[2], refusals = state[3] }
local streams = { events = EVENTS, refusals = REFUSALS }
for name, stream in pairs(streams) do
    if not cursors[name] then
        cursors[name] = ask.from_start and '0-0' or last(stream)
        call('HSET', STATE, own .. name, cursors[name])
    end
end
local done, stale = ask.done, false
if done and done.fence ~= fence then
    done, stale = nil, true
end
-- Asked again after an answer that was lost: the cursors are there already.
if done and (done.events ~= cursors.events or done.refusals ~= cursors.refusals) then
    cursors.events, cursors.refusals = done.events, done.refusals
    call('HSET', STATE, own .. 'events', done.events, own .. 'refusals', done.refusals)
    for _, letter in ipairs(done.dead or {}) do
        call('XADD', DEAD, 'MAXLEN', '~', ask.kept, '*', unpack(letter))
        dead = call('HINCRBY', STATE, own .. 'dead', 1)
    end
    if ask.trim then
        trim(ask.forgotten)
    end
end
if ask.error then
    call('HSET', STATE, own .. 'error', string.format('%.0f %s', now, ask.error))
else
    call('HDEL', STATE, own .. 'error')
end

local answer = {
    now = now, fence = fence, stale = stale, missed = false, lag = 0, dead = dead, length = call('XLEN', EVENTS),
}
for name, stream in pairs(streams) do
    if ask[name] then
        local cursor = cursors[name]
        local entries = after(stream, cursor, math.max(ask.most, 1))
        if entries[1] then
            answer.lag = math.max(answer.lag, age(entries[1][1]))
            answer.missed = answer.missed or cursor ~= '0-0' and #call('XRANGE', stream, cursor, cursor) == 0
        end
        answer[name] = ask.most > 0 and some(entries) or nil
    end
end
answer.cursor = { events = cursors.events, refusals = cursors.refusals }
return cjson.encode(answer)
