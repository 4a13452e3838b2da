-- audit: compares sessions of a node with the tables, checkpoints them, and writes again what the store lost.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {sessions: [{account, holding}]}, a hundred at most; a holding as release has it, and with limit (slots) and
--   doubtful (somebody else may have its slot)
-- Outcome: {generation, verdicts}, a verdict for each session in the order of the question:
--   {yours: {mark, repaired}}   "later" ask again in the second half   "moved"   {gone: {code}} the code when known
--   renew_first: see head.lua

local wrong = enter()
if wrong then
    return wrong
end

-- Brings an entry up to date: it is confirmed, under this owner and epoch, with its present progress.
local function refresh(account, entry, holding)
    entry.owner, entry.epoch, entry.generation = holding.owner, holding.epoch, generation
    entry.content, entry.state = holding.content, holding.state
    entry.position, entry.watched, entry.checkpoint = holding.position, holding.watched, now
    account.changed = true
end

local function yours(entry, repaired)
    return { yours = { mark = entry.mark, repaired = repaired } }
end

local function entry_of(holding)
    return {
        session = holding.session, owner = holding.owner, epoch = holding.epoch, generation = generation,
        device = holding.device, content = holding.content, state = holding.state, started = holding.started,
        position = holding.position, watched = holding.watched, checkpoint = now,
    }
end

-- Of those that were not certain of their slots the oldest keep them, whichever node tells of them first (rule 5): the
-- youngest makes place for an older one. Whether one did.
local function displace_younger(account, holding)
    local at, started
    for place, entry in ipairs(account.entries) do
        local unsettled = entry.settles and entry.settles > now and not old(entry)
        local younger = entry.session ~= holding.session and entry.started > holding.started
        if unsettled and younger and not entry.mark and entry.started >= (started or 0) then
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
        else
            look(account, entry)
            local code = code_of(entry.mark)
            if code then
                -- Its slot is promised to somebody already.
                remove(account, at, code)
            else
                local taker = entry.mark and place_of(account.line, entry.mark.by)
                if taker then
                    look(account, account.line[taker])
                end
                finish(account, table.remove(account.entries, at), 'moved', now)
            end
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
    if not outlasts_own(account, holding) then
        return refuse(account, holding, 'moved')
    end
    local others = 0
    for _, entry in ipairs(account.entries) do
        if entry.session ~= session and not (recovering and old(entry)) then
            others = others + 1
        end
    end
    local certain = phase == 'first'
    if certain or others < holding.limit or others == holding.limit and displace_younger(account, holding) then
        local settles = not certain and now + step.settle or nil
        local at = place_of(account.entries, session)
        if at then
            refresh(account, account.entries[at], holding)
            account.entries[at].settles = settles
            local mark = account.entries[at].mark
            hand_over(account)
            return yours({ mark = mark }, true)
        end
        leave_line(account, session)
        local entry = entry_of(holding)
        entry.settles = settles
        if holding.generation == '' then
            insert(account, entry)
        else
            put(account, entry)
        end
        -- Its device may have held more than one.
        hand_over(account)
        return yours({}, true)
    end
    -- Somebody else has its slot by now. What was granted without the store was never certain.
    local code = holding.generation == '' and 'stream_limit_reached' or 'lease_lost'
    return refuse(account, holding, code)
end

local function verdict(account, holding)
    expire(account)
    local at = place_of(account.entries, holding.session)
    if at then
        local entry = account.entries[at]
        if not old(entry) then
            if entry.owner == holding.owner and entry.epoch == holding.epoch then
                refresh(account, entry, holding)
                return yours(entry, false)
            elseif entry.epoch < holding.epoch then
                -- A failover may have lost the move that made our epoch.
                refresh(account, entry, holding)
                return yours(entry, true)
            end
            return 'moved'
        elseif entry.epoch > holding.epoch then
            return 'moved'
        end
    end
    local tombstone = tombstone_of(holding.session)
    if tombstone and tombstone.epoch >= holding.epoch then
        return { gone = { code = tombstone.code } }
    elseif not at and holding.generation == generation then
        return { gone = {} }
    end
    return reassert(account, holding)
end

local verdicts
for at, session in ipairs(ask.sessions or {}) do
    if not live(session.holding.owner) then
        return renew_first()
    end
    local account = account_of(session.account)
    verdicts = verdicts or {}
    verdicts[at] = verdict(account, session.holding)
end
return answer({ generation = generation, verdicts = verdicts })
