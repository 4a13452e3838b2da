-- The head of every script: the clock, the life of the bucket's data, the leases, the tables of accounts, the ends
-- that are remembered, facts and word. It stands before each script's own text and is no script of its own.
--
-- These are the steps of `Bucket` and `Account` (src/lease/bucket.rs, src/lease/account), name by name; a change there
-- is made here too. The test `store_twins` runs both over the same histories.
--
-- KEYS, all of one bucket, in the order of `keys.rs`:
--   1 marker   2 owners   3 accounts   4 index   5 marked   6 tombstones   7 tombstone_times   8 events   9 waiting
--   10 remembered   11 remembered_times   12 expiries   13 displacers
-- ARGV[1], the step, JSON; every time is in milliseconds:
--   fresh       a fresh generation, 16 hex digits, in case that one is needed
--   first, second   the two halves of a recovery
--   buckets     buckets of the installation
--   not_after   do nothing when Redis's clock is past this; absent: do it at any time
--   events      facts kept in the stream
--   lease, gap, stale, tombstone, settle, forever, max_purged, max_marked, watching   constants of the rules
--   now, offset, server   tests set the clock, move it, and set the server's mark of its life
-- ARGV[2]: the script's own request, JSON. Where it has `terms`, they are what a session counts in beside its account's
--   total, absent when that is all:
--   {exempt, shadow, enforce, most (sessions, where the total refuses nobody), groups: [{key: "<rule>/<value>", limit,
--   away (ms the home is remembered), known (ms a value is remembered), shadow, enforce}]}
-- Answer, JSON: {now, done} with the script's own outcome, or
--   {now, not_now: "renew_first" | {recovering: <until, ms>}}   the rules cannot decide yet
--   {now, late: true}                                         past not_after: nothing was done
-- Error: USHERBUCKETS configured <n> found <n>                  the data were written for another number of buckets
--
-- cjson writes 14 significant digits, enough for times; an epoch may have 16 and is never written by it. It writes an
-- empty list as {}, so that empty lists are left out. It is asked for no nulls. Strings are compared for equality only:
-- their order depends on the server's locale.

local call = redis.call
local step, ask = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local MARKER, OWNERS, ACCOUNTS, INDEX, MARKED, TOMBSTONES, TOMBSTONE_TIMES, EVENTS, WAITING,
    REMEMBERED, REMEMBERED_TIMES, EXPIRIES, DISPLACERS = unpack(KEYS)
-- The owner of entries without a socket, which live by an expiry of their own.
local NOBODY = '0000000000000000'
local MAIL, NOTICES = string.sub(MARKER, 1, -7) .. 'mail:', string.sub(MARKER, 1, -7) .. 'notices'

local now = step.now
if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000) + (step.offset or 0)
end
if step.not_after and now > step.not_after then
    return cjson.encode({ now = now, late = true })
end

-- All digits of an integer.
local function digits(number)
    return string.format('%d', number)
end

-- The bucket ---------------------------------------------------------------------------------------------------------

local generation, phase, second, opens
local recovering

-- An error when the data are those of another number of buckets; nil when they may be used.
local function wrong_buckets(found)
    if found and tonumber(found) ~= step.buckets then
        return redis.error_reply('USHERBUCKETS configured ' .. step.buckets .. ' found ' .. found)
    end
end

local function write_lease(owner, lease)
    call('HSET', OWNERS, owner, digits(lease.ends) .. ' ' .. digits(lease.since) .. ' ' .. digits(lease.renewed))
end

local function read_lease(text)
    local ends, since, renewed = string.match(text, '^(%d+) (%d+) (%d+)$')
    return { ends = tonumber(ends), since = tonumber(since), renewed = tonumber(renewed) }
end

-- Changes the end of every lease; with `once`, of those whose end is still the one of their node's renewal.
local function each_lease(bound, once)
    local all = call('HGETALL', OWNERS)
    for at = 1, #all, 2 do
        local lease = read_lease(all[at + 1])
        local changes = not once or lease.ends <= lease.renewed + step.lease
        local ends = changes and bound(lease.ends, now + step.lease) or lease.ends
        if ends ~= lease.ends then
            lease.ends = ends
            write_lease(all[at], lease)
        end
    end
end

-- Changes the end of every entry without a socket.
local function each_expiry(change)
    local all = call('ZRANGE', EXPIRIES, 0, -1, 'WITHSCORES')
    for at = 1, #all, 2 do
        local ends = tonumber(all[at + 1])
        local changed = change(ends)
        if changed ~= ends then
            call('ZADD', EXPIRIES, digits(changed), all[at])
        end
    end
end

-- The server's mark of its life.
local function server_life()
    return step.server or string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- Notices lost data, a store that was away and a clock that stepped back.
local function enter()
    local marker = call('HMGET', MARKER, 'generation', 'server', 'second', 'opens', 'beat', 'buckets')
    local wrong = wrong_buckets(marker[6])
    if wrong then
        return wrong
    end
    local server = server_life()
    local beat = tonumber(marker[5] or nil)
    generation, second, opens = marker[1], tonumber(marker[3] or nil), tonumber(marker[4] or nil)
    local changed = true
    if not (generation and marker[2] == server and second and opens and beat) then
        each_lease(math.max)
        each_expiry(function(ends)
            return math.max(ends, now + step.lease)
        end)
        generation = step.fresh
        second = now + step.first
        opens = second + step.second
        call('SPUBLISH', NOTICES, generation)
    elseif beat > now then
        -- The clock stepped back: nothing may last longer than it was to.
        second = math.min(second, now + step.first)
        opens = math.min(opens, now + step.first + step.second)
        each_lease(math.min)
        each_expiry(function(ends)
            return math.max(ends - (beat - now), 0)
        end)
    elseif now - beat > step.gap then
        -- Nobody is declared dead for a time in which nobody could renew, once until it renews; no waiter is silent.
        each_lease(math.max, true)
        -- The time of sessions without a socket stood still.
        each_expiry(function(ends)
            return ends > beat and ends + (now - beat) or ends
        end)
        for _, waiter in ipairs(call('ZRANGE', WAITING, 0, -1)) do
            call('ZADD', WAITING, now, waiter)
        end
    else
        changed = false
    end
    if changed then
        call('HSET', MARKER, 'generation', generation, 'server', server, 'second', digits(second),
            'opens', digits(opens), 'beat', digits(now), 'buckets', step.buckets)
    end
    recovering = now < opens
    phase = now < second and 'first' or recovering and 'second' or 'open'
end

local leases = {}

local function lease_of(owner)
    local lease = leases[owner]
    if lease == nil then
        local text = call('HGET', OWNERS, owner)
        lease = text and read_lease(text)
        leases[owner] = lease
    end
    return lease
end

local function live(owner)
    local lease = lease_of(owner)
    return lease and lease.ends > now
end

-- The tables of accounts ----------------------------------------------------------------------------------------------

local accounts, touched = {}, {}
local NONE = {}

-- The slots taken: exempt sessions take none.
local function used(account)
    local number = 0
    for _, entry in ipairs(account.entries) do
        if not entry.exempt then
            number = number + 1
        end
    end
    return number
end

-- What the account adds to the bucket's sorted sets.
local function members(account)
    local index, marked, waiting, expiries = {}, {}, {}, {}
    for _, entry in ipairs(account.entries) do
        if entry.expires then
            expiries[entry.session .. '/' .. account.key] = entry.expires
        end
        local own = entry.owner .. '/' .. entry.session .. '/' .. account.key
        index[entry.generation .. '/' .. own] = 0
        if entry.mark then
            marked[own] = 0
        end
    end
    for _, waiter in ipairs(account.line) do
        index['line/' .. waiter.owner .. '/' .. waiter.session .. '/' .. account.key] = 0
        waiting[waiter.session .. '/' .. account.key] = waiter.refreshed
    end
    return { [INDEX] = index, [MARKED] = marked, [WAITING] = waiting, [EXPIRIES] = expiries }
end

local function account_of(key)
    local account = accounts[key]
    if account then
        return account
    end
    local text = call('HGET', ACCOUNTS, key)
    local data = text and cjson.decode(text) or {}
    account = { key = key, data = data, entries = data.entries or {}, line = data.line or {}, looks = {} }
    for _, waiter in ipairs(account.line) do
        waiter.refreshed = tonumber(call('ZSCORE', WAITING, waiter.session .. '/' .. key) or 0)
    end
    for _, entry in ipairs(account.entries) do
        if entry.owner == NOBODY then
            entry.expires = tonumber(call('ZSCORE', EXPIRIES, entry.session .. '/' .. key) or 0)
        end
    end
    account.before, account.used = members(account), used(account)
    accounts[key] = account
    touched[#touched + 1] = account
    return account
end

-- What of the account outlives its plays: the keys of groups, each with its end.
local function remembered(account)
    if not account.remembered then
        local text = call('HGET', REMEMBERED, account.key)
        account.remembered = {}
        for key, till in pairs(text and cjson.decode(text) or NONE) do
            if till > now then
                account.remembered[key] = till
            end
        end
    end
    return account.remembered
end

local function save_remembered(account)
    local last = 0
    for _, till in pairs(account.remembered) do
        last = math.max(last, till)
    end
    call('HSET', REMEMBERED, account.key, cjson.encode(account.remembered))
    call('ZADD', REMEMBERED_TIMES, last, account.key)
end

local function save(account)
    if account.learnt then
        save_remembered(account)
    end
    local after = members(account)
    for set, added in pairs(after) do
        local before = account.before[set]
        for member in pairs(before) do
            if added[member] == nil then
                call('ZREM', set, member)
            end
        end
        for member, score in pairs(added) do
            if before[member] ~= score then
                call('ZADD', set, score, member)
            end
        end
    end
    if not account.changed then
        return
    end
    local data = account.data
    data.entries = #account.entries > 0 and account.entries or nil
    data.line = #account.line > 0 and account.line or nil
    for _, waiter in ipairs(account.line) do
        waiter.refreshed = nil
    end
    local expiries
    for _, entry in ipairs(account.entries) do
        if entry.expires then
            expiries = expiries or {}
            expiries[entry], entry.expires = entry.expires, nil
        end
    end
    if data.entries or data.line or data.blocked or data.limit then
        call('HSET', ACCOUNTS, account.key, cjson.encode(data))
    else
        call('HDEL', ACCOUNTS, account.key)
    end
    for entry, expires in pairs(expiries or NONE) do
        entry.expires = expires
    end
end

-- Where a session stands in a list of entries or waiters; nil when it does not.
local function place_of(list, session)
    for at, item in ipairs(list) do
        if item.session == session then
            return at
        end
    end
end

-- Facts, ends and word ------------------------------------------------------------------------------------------------

local function look(account, item)
    account.looks[#account.looks + 1] = { owner = item.owner, session = item.session }
end

-- Appends a fact about a play; `code` is nil for a start.
local function record(account, entry, at, code)
    account.names = account.names or cjson.decode(account.key)
    local fact = {
        'kind', code and 'ended' or 'started', 'v', '1', 'tenant', account.names[1], 'account', account.names[2],
        'session', entry.session, 'epoch', digits(entry.epoch), 'owner', entry.owner,
        'device', entry.device.id, 'content', entry.content, 'state', entry.state,
        'started', digits(entry.started), 'at', digits(at), 'watched', digits(entry.watched),
        'position', digits(entry.position), 'generation', entry.generation,
    }
    local more = { name = entry.device.name, class = entry.device.class, plan = entry.device.plan, code = code }
    for field, value in pairs(more) do
        fact[#fact + 1] = field
        fact[#fact + 1] = value
    end
    call('XADD', EVENTS, '*', unpack(fact))
end

local function forget_ends(most)
    local past = call('ZRANGE', TOMBSTONE_TIMES, '-inf', digits(now), 'BYSCORE', 'LIMIT', 0, most)
    if #past > 0 then
        call('HDEL', TOMBSTONES, unpack(past))
        call('ZREM', TOMBSTONE_TIMES, unpack(past))
        call('HDEL', DISPLACERS, unpack(past))
    end
end

-- The remembered end of a session; nil when there is none (any more).
local function tombstone_of(session)
    local text = call('HGET', TOMBSTONES, session)
    if text then
        local epoch, code, ends = string.match(text, '^(%d+) (%S+) (%d+)$')
        if tonumber(ends) > now then
            return { epoch = tonumber(epoch), code = code, ends = tonumber(ends) }
        end
    end
end

-- Remembers an end; the highest epoch stays (rule 8).
local function bury(session, epoch, code)
    local tombstone = tombstone_of(session)
    if tombstone and tombstone.epoch >= epoch then
        return
    end
    if not tombstone then
        forget_ends(2)
    end
    local first, ends = tombstone and tombstone.code or code, now + step.tombstone
    call('ZADD', TOMBSTONE_TIMES, ends, session)
    call('HSET', TOMBSTONES, session, digits(epoch) .. ' ' .. first .. ' ' .. digits(ends))
end

-- Sends word about an account, once to each owner that it concerns. An asker that is alone has its number in the answer.
local function tell(account)
    local words, order = {}, {}
    local function word_to(owner)
        if owner == NOBODY then
            return {}
        elseif not words[owner] then
            words[owner] = {}
            order[#order + 1] = owner
        end
        return words[owner]
    end
    for _, about in ipairs(account.looks) do
        local word = word_to(about.owner)
        word[#word + 1] = '"' .. about.session .. '"'
    end
    local number, taken = '', used(account)
    if taken ~= account.used then
        number = ',"used":' .. taken
        local all = {}
        for _, entry in ipairs(account.entries) do
            all[#all + 1] = entry
        end
        for _, waiter in ipairs(account.line) do
            all[#all + 1] = waiter
        end
        local asker = account.asker
        local alone = #all == 1 and asker and all[1].session == asker.session and all[1].owner == asker.owner
        if not alone then
            for _, item in ipairs(all) do
                word_to(item.owner)
            end
        end
    end
    for _, owner in ipairs(order) do
        local looks = words[owner]
        looks = #looks > 0 and ',"looks":[' .. table.concat(looks, ',') .. ']' or ''
        call('SPUBLISH', MAIL .. owner, '{"account":' .. account.key .. looks .. number .. '}')
    end
end

-- Writes what was touched, sends word, and makes the answer. Every script ends here.
local function answer(done, not_now)
    for _, account in ipairs(touched) do
        save(account)
        tell(account)
    end
    return cjson.encode({ now = now, done = done, not_now = not_now })
end

local function not_yet()
    return answer(nil, { recovering = opens })
end

local function renew_first()
    return answer(nil, 'renew_first')
end

-- The rules that every change of a table needs ------------------------------------------------------------------------

-- Whether an entry proves nothing because it is of an older life of the data (rule 3).
local function old(entry)
    return entry.generation ~= generation
end

-- Whether nothing holds an entry any more: neither its owner's lease nor a time of its own.
local function lapsed(entry)
    if entry.expires then
        return entry.expires <= now
    end
    return not live(entry.owner)
end

-- Whether whoever comes across the entry may drop it. Nothing may be dropped while the bucket recovers.
local function dead(entry)
    return not recovering and (old(entry) or lapsed(entry))
end

-- Whether a waiter stopped asking, or its node is gone.
local function gone(waiter)
    local lost = not waiter.period and not live(waiter.owner)
    return waiter.refreshed + step.stale <= now or (not recovering and lost)
end

-- A waiter that is gone asks no victim any more.
local function withdraw(account, waiter)
    for _, entry in ipairs(account.entries) do
        local mark = entry.mark
        if mark and mark.asked and mark.by == waiter.session then
            entry.mark = nil
            account.changed = true
            look(account, entry)
            return
        end
    end
end

-- Takes a waiter out of the line; true when it stood there.
local function leave_line(account, session)
    local at = place_of(account.line, session)
    if not at then
        return false
    end
    account.changed = true
    withdraw(account, table.remove(account.line, at))
    return true
end

-- Drops waiters that time has ended. Ends are forgotten by their own times.
local function expire(account)
    local at = 1
    while account.line[at] do
        if gone(account.line[at]) then
            leave_line(account, account.line[at].session)
        else
            at = at + 1
        end
    end
end

-- Groups ---------------------------------------------------------------------------------------------------------------

local function groups_of(terms)
    return terms and terms.groups or NONE
end

-- The names of the groups, as an entry keeps them; nil when there are none.
local function keys_of(terms)
    local keys
    for at, group in ipairs(groups_of(terms)) do
        keys = keys or {}
        keys[at] = group.key
    end
    return keys
end

local function rule_of(key)
    return string.match(key, '^[^/]*')
end

-- How many values of the group's rule are remembered, and whether its own is.
local function known(account, group)
    local rule, number = rule_of(group.key), 0
    for key in pairs(remembered(account)) do
        if rule_of(key) == rule then
            number = number + 1
        end
    end
    return number, remembered(account)[group.key] ~= nil
end

-- Whether a session counts in the group.
local function counts_in(account, entry, group)
    for _, key in ipairs(entry.groups or NONE) do
        if group.known or group.away then
            local away = not group.away or not remembered(account)[key]
            if rule_of(key) == rule_of(group.key) and away then
                return true
            end
        elseif key == group.key then
            return true
        end
    end
    return false
end

-- Whether a session is another than the asking one, and of another device: who asks is {session, device, limit, terms}.
local function is_other(entry, asker)
    return entry.session ~= asker.session and entry.device.id ~= asker.device.id
end

-- Others that count in the group.
local function taken(account, group, asker)
    local number = 0
    for _, entry in ipairs(account.entries) do
        local proven = not (recovering and old(entry))
        if is_other(entry, asker) and proven and counts_in(account, entry, group) then
            number = number + 1
        end
    end
    return number
end

-- Whether a group has room for one more.
local function has_room(account, group, asker)
    if group.known or group.away then
        local number, own = known(account, group)
        if group.known then
            return own or number < group.limit
        elseif own or number == 0 then
            return true
        end
    end
    return taken(account, group, asker) < group.limit
end

-- The slots that count, of those that a token and its plan state: operators' word stands above them.
local function limit_of(account, stated)
    return account.data.limit or stated
end

-- Whether the account's total has room.
local function has_slot(account, asker)
    local terms = asker.terms
    if terms and (terms.exempt or terms.shadow) then
        return #account.entries < math.max(limit_of(account, asker.limit), terms.most)
    end
    return used(account) < limit_of(account, asker.limit)
end

-- Whether every group has room.
local function has_groups(account, asker)
    for _, group in ipairs(groups_of(asker.terms)) do
        if not group.shadow and not has_room(account, group, asker) then
            return false
        end
    end
    return true
end

-- Whether every rule has room.
local function has_place(account, asker)
    return has_slot(account, asker) and has_groups(account, asker)
end

-- The rules that leave no place, the narrow ones first: {group, enough: whether one end makes place in it: not when it is
-- beyond its limit}, and false for the account's total.
local function refusing_of(account, asker)
    local refusing = {}
    for _, group in ipairs(groups_of(asker.terms)) do
        if not group.shadow and not has_room(account, group, asker) then
            local enough = taken(account, group, asker) <= group.limit
            refusing[#refusing + 1] = { group = group, enough = enough }
        end
    end
    if not has_slot(account, asker) then
        refusing[#refusing + 1] = false
    end
    return refusing
end

-- The rules that leave no place for what a session that plays does not count in already.
local function refusing_change(account, entry, asker)
    local refusing, terms = {}, asker.terms
    for _, rule in ipairs(refusing_of(account, asker)) do
        local counts
        if rule then
            counts = counts_in(account, entry, rule.group)
        else
            counts = not entry.exempt or terms and (terms.exempt or terms.shadow)
        end
        if not counts then
            refusing[#refusing + 1] = rule
        end
    end
    return refusing
end

-- The rules in shadow that would leave no place; nil when there are none.
local function shadowed_of(account, asker)
    local terms, shadowed = asker.terms, nil
    local function add(rule)
        shadowed = shadowed or {}
        if shadowed[#shadowed] ~= rule then
            shadowed[#shadowed + 1] = rule
        end
    end
    for _, group in ipairs(groups_of(terms)) do
        if group.shadow and not has_room(account, group, asker) then
            add(rule_of(group.key))
        end
    end
    if terms and terms.shadow and not terms.exempt then
        local others = 0
        for _, entry in ipairs(account.entries) do
            if is_other(entry, asker) and not entry.exempt then
                others = others + 1
            end
        end
        if others >= limit_of(account, asker.limit) then
            add('account')
        end
    end
    return shadowed
end

-- Whether the end of this session makes place in every one of these rules.
local function would_help(account, entry, asker, refusing)
    if not is_other(entry, asker) then
        return false
    end
    for _, rule in ipairs(refusing) do
        if not rule then
            if entry.exempt then
                return false
            end
        elseif not rule.enough or rule.group.known or not counts_in(account, entry, rule.group) then
            return false
        end
    end
    return true
end

-- Whether what refuses can become free by the end of a session.
local function may_free(refusing)
    for _, rule in ipairs(refusing) do
        if rule and (rule.group.known or rule.group.limit == 0) then
            return false
        end
    end
    return true
end

-- The first of the rules that leave no place, and who counts in it: {rule, used, limit, slots, may_take_over}, holders
-- or nil.
local function refusal_of(account, asker, refusing)
    local rule, holders, help = refusing[1] and refusing[1].group or nil, nil, false
    for _, entry in ipairs(account.entries) do
        help = help or would_help(account, entry, asker, refusing)
        local counts
        if rule then
            counts = counts_in(account, entry, rule)
        else
            counts = not entry.exempt
        end
        if counts then
            holders = holders or {}
            holders[#holders + 1] = entry
        end
    end
    local slots = used(account)
    local number = slots
    if rule and rule.known then
        number = known(account, rule)
    elseif rule then
        number = taken(account, rule, asker)
    end
    return {
        rule = rule and rule_of(rule.key) or 'account', used = number,
        limit = rule and rule.limit or limit_of(account, asker.limit), slots = slots, may_take_over = help,
    }, holders
end

-- Remembers the values that outlive the play; never more of a rule than its limit.
local function remember(account, terms)
    for _, group in ipairs(groups_of(terms)) do
        local within = group.known or group.away
        if within then
            local number, own = known(account, group)
            if own or number < (group.known and group.limit or 1) then
                account.remembered[group.key] = now + within
                account.learnt = true
            end
        end
    end
end

-- Gives an entry its present terms; true when it counts in others than before.
local function set_terms(account, entry, terms)
    local keys = keys_of(terms)
    local before, after = entry.groups or NONE, keys or NONE
    local exempt = terms and terms.exempt or nil
    local same = entry.exempt == exempt and #before == #after
    for at = 1, #after do
        same = same and before[at] == after[at]
    end
    if not same then
        entry.groups, entry.exempt = keys, exempt
        account.changed = true
        remember(account, terms)
    end
    return not same
end

-- Whether a session is beyond a limit that was lowered, or that it came past: so many older ones count.
local function is_surplus(account, entry, asker)
    local terms = asker.terms
    if recovering or not terms then
        return false
    end
    local function beyond(counts, limit)
        local older, before = 0, true
        for _, other in ipairs(account.entries) do
            if other == entry then
                before = false
            else
                local earlier = other.started < entry.started or other.started == entry.started and before
                local kicked = other.mark and other.mark.kick
                if earlier and counts(other) and not kicked and not dead(other) then
                    older = older + 1
                end
            end
        end
        return older >= limit
    end
    local function in_total(other)
        return not other.exempt
    end
    -- Operators say with their limit whether it ends who plays: a lower one that should not is none here.
    local limit = math.max(asker.limit, limit_of(account, asker.limit))
    if terms.enforce and not terms.shadow and not terms.exempt and beyond(in_total, limit) then
        return true
    end
    for _, group in ipairs(groups_of(terms)) do
        local function in_group(other)
            return counts_in(account, other, group)
        end
        local ends = group.enforce and not group.shadow and not group.known
        if ends and in_group(entry) and beyond(in_group, group.limit) then
            return true
        end
    end
    return false
end

-- Entries and the line -------------------------------------------------------------------------------------------------

local function put(account, entry)
    account.changed = true
    account.entries[#account.entries + 1] = entry
end

-- Takes a slot and records it.
local function insert(account, entry)
    put(account, entry)
    record(account, entry, entry.started)
end

-- The entry of a granted start or waiter.
local function fresh_entry(start)
    return {
        session = start.session, owner = start.owner, epoch = 1, generation = generation,
        device = start.device, content = start.content, state = 'playing', started = now,
        position = 0, watched = 0, checkpoint = now, groups = keys_of(start.terms),
        exempt = start.terms and start.terms.exempt or nil,
        expires = start.period and now + start.period or nil,
    }
end

-- Takes a place for a start or a waiter.
local function admit(account, start)
    remember(account, start.terms)
    insert(account, fresh_entry(start))
end

-- Remembers and records the end of an entry that was taken out.
local function finish(account, entry, code, at)
    account.changed = true
    bury(entry.session, entry.mark and entry.mark.kick and step.forever or entry.epoch, code)
    if entry.expires and code == 'displaced' and entry.mark and entry.mark.device then
        call('HSET', DISPLACERS, entry.session, cjson.encode(entry.mark.device))
    end
    record(account, entry, at, code)
end

-- An operator's word stands above a take-over, whose newcomer is granted by the same release.
local function kick(account, entry, code)
    if not (entry.mark and entry.mark.kick) then
        entry.mark = { kick = code }
        account.changed = true
    end
    look(account, entry)
end

-- The code with which a marked entry ends; nil when it is not to end.
local function code_of(mark)
    if mark and mark.kick then
        return mark.kick
    elseif mark and not mark.asked then
        return 'displaced'
    end
end

-- Counts as watched what its node would have told: until its last renewal; in another life of the data, of which it
-- told nothing, until the checkpoint. Answers until when, which is the new checkpoint.
-- A session without a socket is told of by itself: until now while it lives, otherwise until it was last heard.
local function credit(entry)
    local told
    if entry.expires then
        told = entry.expires > now and now
    else
        local lease = lease_of(entry.owner)
        told = lease and lease.renewed
    end
    local till = math.min(math.max(not old(entry) and told or 0, entry.checkpoint), now)
    for _, state in ipairs(step.watching) do
        if entry.state == state then
            entry.watched = entry.watched + math.max(till - entry.checkpoint, 0)
        end
    end
    entry.checkpoint = math.max(entry.checkpoint, till)
    return till
end

-- Ends a session whose device plays another one now (rule 21). False when its slot was promised to somebody already.
local function make_way(account, at)
    local entry = table.remove(account.entries, at)
    if entry.expires then
        credit(entry)
    end
    look(account, entry)
    local code = code_of(entry.mark)
    local taker = not code and entry.mark and place_of(account.line, entry.mark.by)
    if taker then
        look(account, account.line[taker])
    end
    finish(account, entry, code or 'moved', now)
    return not code
end

-- Where the device of a start or a session plays another session than this one; nil when it does not.
local function own_place(account, device, session)
    for at, entry in ipairs(account.entries) do
        if entry.device.id == device.id and entry.session ~= session then
            return at
        end
    end
end

-- Grants free slots to the first waiters, each by its own limit and groups (rules 18 and 20). Who has no place in one of
-- its groups keeps its turn and holds up nobody.
local function hand_over(account)
    if recovering then
        return
    end
    local at = 1
    while account.line[at] do
        local waiter = account.line[at]
        if waiter.refused or not has_place(account, waiter) then
            at = at + 1
        else
            account.changed = true
            table.remove(account.line, at)
            at = 1
            withdraw(account, waiter)
            local served = place_of(account.entries, waiter.session) or tombstone_of(waiter.session)
            if not served and (waiter.period or live(waiter.owner)) then
                -- What its device played may have come back meanwhile.
                local own = own_place(account, waiter.device)
                while own do
                    make_way(account, own)
                    own = own_place(account, waiter.device)
                end
                look(account, waiter)
                admit(account, waiter)
            end
        end
    end
end

-- Takes an entry out and hands its slot over: every removal does (rule 20).
local function remove(account, at, code)
    finish(account, table.remove(account.entries, at), code, now)
    hand_over(account)
end

-- Takes out an entry whose node is gone.
local function drop_dead(account, place)
    local entry = table.remove(account.entries, place)
    local at, code = credit(entry), 'lease_lost'
    if entry.expires and not old(entry) then
        at, code = math.min(entry.expires, now), 'heartbeat_missed'
    end
    finish(account, entry, code_of(entry.mark) or code, at)
end

-- Ends the sessions without a socket that are to end: nobody else carries it out (rule 22). Every step that marks ends
-- with this.
local function carry_out(account)
    local at, ended = 1, false
    while account.entries[at] do
        local entry = account.entries[at]
        local code = entry.expires and code_of(entry.mark)
        if code then
            table.remove(account.entries, at)
            credit(entry)
            finish(account, entry, code, now)
            ended = true
        else
            at = at + 1
        end
    end
    if ended then
        hand_over(account)
    end
end

-- Drops the entries of dead owners and those that nobody re-asserted, but for one session, and gives their slots on
-- (rule 13). Answers how many went.
local function purge_others(account, spared)
    local purged, at = 0, 1
    while account.entries[at] do
        local entry = account.entries[at]
        if entry.session ~= spared and dead(entry) then
            drop_dead(account, at)
            purged = purged + 1
        else
            at = at + 1
        end
    end
    if purged > 0 then
        hand_over(account)
    end
    return purged
end

