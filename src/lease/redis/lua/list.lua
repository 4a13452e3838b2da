-- list: reads, and changes nothing: not the life of the data either.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2] and outcome:
--   {account}                 {entries, standing: {blocked, limit}} of an account, the living ones in the order of their grant
--   {account, session}        {lives} whether the session holds its slot and no order takes it away; recovering, see
--                             head.lua, when it is not there because the data were lost, or may be
--   {owner, after, most}      {owned: [[account, session, epoch]]} at most so many that an owner has in the present life
--                             of the data, in the order of `<session>/<account>`, after this one when it is given
--   {cursor, most}            {accounts, cursor} about so many tables of the bucket from this cursor of HSCAN on, those
--                             with entries; a cursor of "0" begins, and again says that it was the end
--   {leases}                  {leases: [[owner, end, last renewal]]} of the nodes in the bucket, also those that are over

local marker = call('HMGET', MARKER, 'generation', 'buckets', 'server', 'opens')
local wrong = wrong_buckets(marker[2])
if wrong then
    return wrong
end
-- The entries of a table but those without a socket whose time is over.
local function living(data)
    local entries = {}
    for _, entry in ipairs(data.entries or {}) do
        if entry.owner == NOBODY then
            entry.expires = tonumber(call('ZSCORE', EXPIRIES, entry.session .. '/' .. ask.account) or 0)
        end
        if not entry.expires or entry.expires > now then
            entries[#entries + 1] = entry
        end
    end
    return entries
end

if ask.session then
    local text = call('HGET', ACCOUNTS, ask.account)
    local entries = living(text and cjson.decode(text) or {})
    local at = place_of(entries, ask.session)
    if not at and not tombstone_of(ask.session) then
        opens = tonumber(marker[4] or nil)
        if not (marker[1] and opens and marker[3] == server_life()) then
            opens = now + step.first + step.second
        end
        if now < opens then
            return not_yet()
        end
    end
    return answer({ lives = at and not (entries[at].mark and entries[at].mark.kick) or false })
elseif ask.account then
    local text = call('HGET', ACCOUNTS, ask.account)
    local data = text and cjson.decode(text) or {}
    local entries = living(data)
    entries = #entries > 0 and entries or nil
    return answer({ entries = entries, standing = { blocked = data.blocked or false, limit = data.limit } })
elseif ask.owner then
    local owned
    local prefix = (marker[1] or '') .. '/' .. ask.owner
    local from = ask.after and '(' .. prefix .. '/' .. ask.after or '[' .. prefix .. '/'
    for at, member in ipairs(call('ZRANGE', INDEX, from, '(' .. prefix .. '0', 'BYLEX', 'LIMIT', 0, ask.most)) do
        local session, key = string.match(member, '^([^/]*)/(.*)$', #prefix + 2)
        local account = account_of(key)
        local place = place_of(account.entries, session)
        owned = owned or {}
        owned[at] = { key, session, place and account.entries[place].epoch or 0 }
    end
    touched = {}
    return answer({ owned = owned })
elseif ask.leases then
    local leases
    local all = call('HGETALL', OWNERS)
    for at = 1, #all, 2 do
        local lease = read_lease(all[at + 1])
        leases = leases or {}
        leases[#leases + 1] = { all[at], lease.ends, lease.renewed }
    end
    return answer({ leases = leases })
end
local accounts_found
local scan = call('HSCAN', ACCOUNTS, ask.cursor, 'COUNT', ask.most)
for at = 1, #scan[2], 2 do
    -- Quotes inside a JSON string are escaped, so that no name reads like this.
    if string.find(scan[2][at + 1], '"entries":[', 1, true) then
        accounts_found = accounts_found or {}
        accounts_found[#accounts_found + 1] = scan[2][at]
    end
end
return answer({ accounts = accounts_found, cursor = scan[1] })
