-- acquire: starts a session, or repeats the question of a waiter.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {account, session, owner, device: {id, name, class, plan}, content, limit (slots), terms, wish: "slot" | "wait" | "oldest"
--   | "take_over", victim (of a take-over), consent (whether the victim is asked), line (most waiters),
--   period (ms without a heartbeat, for a session without a socket, whose owner is nobody's; absent: its owner's lease holds it)}
-- Outcomes: {granted: {used, replaced, generation, started_at (ms), shadowed: [rule], limit}}
--   {denied: {refused, refusal: {rule, used, limit, slots, may_take_over}, line_open, holders, limit}}
--   {waiting: {position, taking_over}}   {ended: <code>}
--   limit beside them is the operators', absent when they set none; ended is also the answer of a blocked account
--   recovering, renew_first, late: see head.lua

local wrong = enter()
if wrong then
    return wrong
end
local account, session = account_of(ask.account), ask.session
account.asker = ask

local function granted(replaced, shadowed)
    local entry = account.entries[place_of(account.entries, session)]
    return answer({
        granted = {
            used = used(account), replaced = replaced, shadowed = shadowed,
            generation = entry.generation, started_at = entry.started, limit = account.data.limit,
        },
    })
end

local function denied(refused, refusing)
    local refusal, holders = refusal_of(account, ask, refusing)
    local line_open = #account.line < ask.line and may_free(refusing)
    return answer({
        denied = {
            refused = refused, refusal = refusal, line_open = line_open, holders = holders, limit = account.data.limit,
        },
    })
end

local function waiting()
    local position, taking_over = 1, false
    for _, waiter in ipairs(account.line) do
        if waiter.session == session then
            taking_over = waiter.victim ~= nil
            break
        elseif not waiter.refused then
            position = position + 1
        end
    end
    return answer({ waiting = { position = position, taking_over = taking_over } })
end

-- Puts the asking player into the line; takers stand before all others.
local function enqueue(victim)
    local at = #account.line + 1
    if victim then
        at = 1
        while account.line[at] and account.line[at].victim do
            at = at + 1
        end
    end
    account.changed = true
    table.insert(account.line, at, {
        session = session, owner = ask.owner, device = ask.device, content = ask.content, limit = ask.limit,
        terms = ask.terms, refreshed = now, victim = victim, period = ask.period,
    })
    return waiting()
end

local function take_over(victim, refusing)
    -- A taker that fell out of the line has its victim still (rule 19).
    for _, entry in ipairs(account.entries) do
        if entry.mark and entry.mark.by == session then
            return enqueue(entry.session)
        end
    end
    local at = place_of(account.entries, victim)
    local entry = at and account.entries[at]
    -- The end of a session that does not make place would be for nothing; and who has no socket cannot wait for an answer.
    local answers = entry and ask.consent and ask.period and not entry.expires
    if not entry or entry.mark or answers or not would_help(account, entry, ask, refusing) then
        return denied(false, refusing)
    end
    -- A viewer without a socket cannot be asked, and its slot is free at once.
    if entry.expires then
        table.remove(account.entries, at)
        if not has_place(account, ask) then
            -- The limit was lowered: one end is not enough.
            table.insert(account.entries, at, entry)
            return denied(false, refusing_of(account, ask))
        end
        credit(entry)
        entry.mark = { by = session, device = ask.device, asked = false }
        finish(account, entry, 'displaced', now)
        local shadowed = shadowed_of(account, ask)
        admit(account, ask)
        return granted(false, shadowed)
    end
    entry.mark = { by = session, device = ask.device, asked = ask.consent }
    look(account, entry)
    return enqueue(victim)
end

-- The device's earlier session or wait makes place for the new one. True when the slot went over, and the rules in shadow
-- that would have refused. A group that has no room for the new one leaves the earlier session as it is.
local function replace_own()
    for _, waiter in ipairs(account.line) do
        if waiter.device.id == ask.device.id and waiter.session ~= session then
            look(account, waiter)
            leave_line(account, waiter.session)
            -- It had not played: what another life of the data says of its play is not stopped.
            bury(waiter.session, 0, 'moved')
            break
        end
    end
    -- The purge just gave it a slot: it needs no other.
    if place_of(account.entries, session) then
        return false
    end
    local at = own_place(account, ask.device)
    if not at then
        return false
    end
    -- What took no slot has none to give.
    if account.entries[at].exempt and not has_slot(account, ask) or not has_groups(account, ask) then
        return false
    end
    local shadowed = shadowed_of(account, ask)
    if not make_way(account, at) then
        hand_over(account)
        return false
    end
    local own = place_of(account.line, session)
    if own then
        table.remove(account.line, own)
    end
    admit(account, ask)
    return true, shadowed
end

local function at_the_limit()
    local refusing = refusing_of(account, ask)
    local at = place_of(account.line, session)
    if at then
        local victim = account.line[at].victim
        if not victim then
            return waiting()
        end
        local place = place_of(account.entries, victim)
        if place then
            look(account, account.entries[place])
            return waiting()
        end
        -- The victim went and the account is still full. Never a second victim (rule 19).
        leave_line(account, session)
        return denied(false, refusing_of(account, ask))
    end
    if ask.wish == 'take_over' then
        return take_over(ask.victim, refusing)
    elseif ask.wish == 'oldest' then
        local oldest
        for _, entry in ipairs(account.entries) do
            local older = not oldest or entry.started < oldest.started
            if not entry.mark and older and would_help(account, entry, ask, refusing) then
                oldest = entry
            end
        end
        if oldest then
            return take_over(oldest.session, refusing)
        end
    elseif ask.wish == 'wait' and #account.line < ask.line and may_free(refusing) then
        if limit_of(account, ask.limit) > 0 or ask.terms and ask.terms.exempt then
            return enqueue()
        end
    end
    return denied(false, refusing)
end

expire(account)
local ended = tombstone_of(session)
if ended then
    leave_line(account, session)
    return answer({ ended = ended.code })
end
local at = place_of(account.entries, session)
if at then
    local entry = account.entries[at]
    local elsewhere = entry.owner ~= ask.owner
    if recovering and (elsewhere or old(entry)) then
        return not_yet()
    elseif elsewhere then
        return answer({ ended = 'moved' })
    elseif not ask.period and not live(ask.owner) then
        return renew_first()
    elseif not dead(entry) then
        return granted(false)
    end
    -- Handed over just before the data were lost: nobody but this node could tell of it, and it did not know.
    local verdict = reassert(account, {
        session = session, owner = entry.owner, epoch = entry.epoch, generation = entry.generation, device = entry.device,
        content = entry.content, state = entry.state, started = entry.started, position = entry.position,
        watched = entry.watched, limit = ask.limit, terms = ask.terms, doubtful = true, period = ask.period,
    })
    if verdict.gone then
        return answer({ ended = verdict.gone.code })
    end
    return granted(false)
end
if account.data.blocked then
    leave_line(account, session)
    return answer({ ended = 'account_blocked' })
elseif recovering then
    return not_yet()
elseif not ask.period and not live(ask.owner) then
    return renew_first()
end
purge_others(account)
local refused = false
at = place_of(account.line, session)
if at then
    local waiter = account.line[at]
    account.changed = account.changed or waiter.owner ~= ask.owner or waiter.limit ~= ask.limit
        or waiter.period ~= ask.period
    waiter.refreshed, waiter.owner, waiter.limit, waiter.period = now, ask.owner, ask.limit, ask.period
    if waiter.terms or ask.terms then
        waiter.terms, account.changed = ask.terms, true
    end
    if waiter.refused then
        refused, account.changed = true, true
        table.remove(account.line, at)
    end
end
local replaced, shadowed = replace_own()
-- A fresh start never passes a waiter who could have the slot (rule 20).
hand_over(account)
if not place_of(account.entries, session) and has_place(account, ask) then
    shadowed = shadowed_of(account, ask)
    -- Its limit may have risen while it waited: the victim that it asked may keep its slot.
    leave_line(account, session)
    admit(account, ask)
end
if place_of(account.entries, session) then
    return granted(replaced, shadowed)
end
if refused then
    return denied(true, refusing_of(account, ask))
end
return at_the_limit()
