-- Repair: what a node holds is written again. It stands between head.lua and the text of the scripts that need it, and is
-- no script of its own. These are the steps of src/lease/account/audit.rs.
--
-- A holding is as release has it, and with limit (slots), terms, doubtful (somebody else may have its slot) and period (ms without a
-- heartbeat, of a session without a socket).

-- Brings an entry up to date: it is confirmed, under this owner and epoch, with its present progress.
local function refresh(account, entry, holding)
    if entry.epoch < holding.epoch then
        -- The entry is of a later start in a life of the data that lost this play.
        entry.started = math.min(entry.started, holding.started)
    end
    entry.owner, entry.epoch, entry.generation = holding.owner, holding.epoch, generation
    entry.content, entry.state = holding.content, holding.state
    entry.position, entry.watched, entry.checkpoint = holding.position, holding.watched, now
    entry.expires = holding.period and now + holding.period or nil
    account.changed = true
end

local function yours(entry, repaired)
    return { yours = { mark = entry.mark, repaired = repaired } }
end

local function entry_of(holding)
    return {
        session = holding.session, owner = holding.owner, epoch = holding.epoch, generation = generation,
        device = holding.device, content = holding.content, state = holding.state, started = holding.started,
        position = holding.position, watched = holding.watched, checkpoint = now, groups = keys_of(holding.terms),
        exempt = holding.terms and holding.terms.exempt or nil,
        expires = holding.period and now + holding.period or nil,
    }
end

-- Of those that were not certain of their slots the oldest keep them, whichever node tells of them first (rule 5): the
-- youngest makes place for an older one. Whether one did.
local function displace_younger(account, holding, refusing)
    local at, started
    for place, entry in ipairs(account.entries) do
        local unsettled = entry.settles and entry.settles > now and not old(entry)
        local younger = entry.session ~= holding.session and entry.started > holding.started
        local first = not entry.mark and entry.started >= (started or 0)
        if unsettled and younger and first and would_help(account, entry, holding, refusing) then
            at, started = place, entry.started
        end
    end
    if not at then
        return false
    end
    local entry = table.remove(account.entries, at)
    look(account, entry)
    finish(account, entry, 'stream_limit_reached', now)
    return true
end

-- The session does not come back.
local function refuse(account, holding, code)
    -- A slot that this step freed went to its device, which ended it.
    local tombstone = tombstone_of(holding.session)
    if tombstone and tombstone.epoch >= holding.epoch then
        return { gone = { code = tombstone.code } }
    end
    local at = place_of(account.entries, holding.session)
    if at then
        local entry = account.entries[at]
        entry.position, entry.watched, entry.epoch = holding.position, holding.watched, holding.epoch
        remove(account, at, code)
    else
        bury(holding.session, holding.epoch, code)
        record(account, entry_of(holding), now, code)
        hand_over(account)
    end
    return { gone = { code = code } }
end

-- A device plays once: what it started later has replaced the other, whichever its node tells of first, and also when
-- the store lost the end of the other (rule 21). False when there is a later one.
local function outlasts_own(account, holding)
    local at = 1
    while account.entries[at] do
        local entry = account.entries[at]
        if entry.device.id ~= holding.device.id or entry.session == holding.session or old(entry) then
            at = at + 1
        elseif entry.started >= holding.started then
            return false
        elseif not make_way(account, at) then
            hand_over(account)
        end
    end
    return true
end

-- Writes a session again where its place may not have been given away.
local function reassert(account, holding)
    local session = holding.session
    if phase == 'first' and holding.doubtful then
        return 'later'
    end
    -- Every check of the limit first purges the account's dead entries (rule 13).
    purge_others(account, session)
    if account.data.blocked then
        return refuse(account, holding, 'account_blocked')
    end
    if not outlasts_own(account, holding) then
        return refuse(account, holding, 'moved')
    end
    local others, terms = 0, holding.terms
    for _, entry in ipairs(account.entries) do
        if entry.session ~= session and not entry.exempt and not (recovering and old(entry)) then
            others = others + 1
        end
    end
    local certain, limit = phase == 'first', limit_of(account, holding.limit)
    -- One end makes place where nothing is beyond its limit. What outlives the plays admitted it once.
    local uncounted = terms and (terms.exempt or terms.shadow)
    local refusing, makes_place = {}, uncounted or others <= limit
    for _, group in ipairs(groups_of(terms)) do
        if not group.shadow and not group.known and not has_room(account, group, holding) then
            refusing[#refusing + 1] = { group = group, enough = true }
            makes_place = makes_place and taken(account, group, holding) == group.limit
        end
    end
    if not uncounted and others >= limit then
        refusing[#refusing + 1] = false
    end
    if certain or #refusing == 0 or makes_place and displace_younger(account, holding, refusing) then
        local settles = not certain and now + step.settle or nil
        local at = place_of(account.entries, session)
        if at then
            refresh(account, account.entries[at], holding)
            account.entries[at].settles = settles
            set_terms(account, account.entries[at], terms)
        else
            leave_line(account, session)
            local entry = entry_of(holding)
            entry.settles = settles
            remember(account, terms)
            if holding.generation == '' then
                insert(account, entry)
            else
                put(account, entry)
            end
        end
        -- Its device may have held more than one slot; or it waits for another one, which takes this one's.
        hand_over(account)
        at = place_of(account.entries, session)
        return at and yours(account.entries[at], true) or refuse(account, holding, 'moved')
    end
    -- Somebody else has its slot by now. What was granted without the store was never certain.
    local code = holding.generation == '' and 'stream_limit_reached' or 'lease_lost'
    return refuse(account, holding, code)
end

