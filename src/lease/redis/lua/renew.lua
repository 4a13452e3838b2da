-- renew: renews a node's lease in the bucket, drops a bounded number of what dead nodes left behind (rule 13), and tells
-- the node what it compares with its own memory (rule 12).
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {owner}
-- Outcome: {generation, second (ms), opens (ms): the halves of the recovery, past ones when it is over, since (ms),
--   count, marked: [[account, session]], purged, dropped: facts that the stream lost to its bound so far}

local wrong = enter()
if wrong then
    return wrong
end
local owner = ask.owner
call('HSET', MARKER, 'beat', digits(now))
local lease = lease_of(owner) or { ends = 0, since = 0 }
if lease.ends <= now then
    lease.since = now
end
lease.ends, lease.renewed = now + step.lease, now
leases[owner] = lease
write_lease(owner, lease)

-- Members of the index begin with <generation>/<owner>/ or line/<owner>/, then <session>/<account>.
local OWNER, SESSION = 16 + 1, 22 + 1
local found, keys = {}, {}

local function upkeep(member, prefix)
    local key = string.sub(member, prefix + SESSION + 1)
    if not found[key] then
        found[key] = true
        keys[#keys + 1] = key
    end
end

-- Visits each prefix of the index once, not its members; '0' comes after '/'.
local function each_prefix(visit)
    local from = '-'
    for _ = 1, 10000 do
        local member = call('ZRANGE', INDEX, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
        if not member then
            return
        end
        local life = string.match(member, '^(%w+)/')
        local prefix = #life + 1 + OWNER
        visit(life, string.sub(member, #life + 2, prefix - 1), '[' .. string.sub(member, 1, prefix),
            '(' .. string.sub(member, 1, prefix - 1) .. '0', prefix)
        from = '[' .. string.sub(member, 1, prefix - 1) .. '0'
    end
end

if not recovering then
    each_prefix(function(life, holder, from, to, prefix)
        local lost = holder ~= NOBODY and not live(holder)
        if #keys < step.max_purged and (life ~= 'line' and life ~= generation or lost) then
            for _, member in ipairs(call('ZRANGE', INDEX, from, to, 'BYLEX', 'LIMIT', 0, step.max_purged)) do
                upkeep(member, prefix)
            end
        end
    end)
end
local silent = call('ZRANGE', WAITING, '-inf', digits(now - step.stale), 'BYSCORE', 'LIMIT', 0, step.max_purged)
for _, member in ipairs(silent) do
    upkeep(member, 0)
end
local over = NONE
if not recovering then
    over = call('ZRANGE', EXPIRIES, '-inf', digits(now), 'BYSCORE', 'LIMIT', 0, step.max_purged)
end
for _, member in ipairs(over) do
    upkeep(member, 0)
end
local purged = 0
for _, key in ipairs(keys) do
    if purged >= step.max_purged then
        break
    end
    local account = account_of(key)
    expire(account)
    purged = purged + purge_others(account)
end
for _, account in ipairs(touched) do
    save(account)
    tell(account)
end
touched = {}
for _, member in ipairs(over) do
    -- A version without these sessions takes the entry alone.
    local account = accounts[string.sub(member, SESSION + 1)]
    if account and not place_of(account.entries, string.sub(member, 1, SESSION - 1)) then
        call('ZREM', EXPIRIES, member)
    end
end
forget_ends(step.max_purged)
local past_values = call('ZRANGE', REMEMBERED_TIMES, '-inf', digits(now), 'BYSCORE', 'LIMIT', 0, step.max_purged)
if #past_values > 0 then
    call('HDEL', REMEMBERED, unpack(past_values))
    call('ZREM', REMEMBERED_TIMES, unpack(past_values))
end

if not recovering then
    local past, all = {}, call('HGETALL', OWNERS)
    for at = 1, #all, 2 do
        if read_lease(all[at + 1]).ends <= now then
            past[#past + 1] = all[at]
        end
    end
    local holders = {}
    if #past > 0 then
        each_prefix(function(life, holder)
            holders[holder] = holders[holder] or life ~= 'line'
        end)
    end
    for _, holder in ipairs(past) do
        if not holders[holder] then
            call('HDEL', OWNERS, holder)
        end
    end
end

local dropped = call('XTRIM', EVENTS, 'MAXLEN', '~', step.events)
if dropped > 0 then
    dropped = call('HINCRBY', MARKER, 'dropped', dropped)
else
    dropped = tonumber(call('HGET', MARKER, 'dropped') or 0)
end

local marked
local range = { '[' .. owner .. '/', '(' .. owner .. '0' }
for at, member in ipairs(call('ZRANGE', MARKED, range[1], range[2], 'BYLEX', 'LIMIT', 0, step.max_marked)) do
    marked = marked or {}
    marked[at] = { string.sub(member, OWNER + SESSION + 1), string.sub(member, OWNER + 1, OWNER + SESSION - 1) }
end
return answer({
    generation = generation, second = second, opens = opens, since = lease.since,
    count = call('ZLEXCOUNT', INDEX, '[' .. generation .. '/' .. owner .. '/', '(' .. generation .. '/' .. owner .. '0'),
    marked = marked, purged = purged, dropped = dropped,
})
