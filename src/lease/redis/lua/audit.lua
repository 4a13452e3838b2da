-- audit: compares sessions of a node with the tables, checkpoints them, and writes again what the store lost.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {sessions: [{account, holding}]}, a hundred at most; a holding as release has it, and with limit (slots), terms and
--   doubtful (somebody else may have its slot)
-- Outcome: {generation, verdicts}, a verdict for each session in the order of the question:
--   {yours: {mark, repaired}}   "later" ask again in the second half   "moved"   {gone: {code}} the code when known
--   renew_first: see head.lua

local wrong = enter()
if wrong then
    return wrong
end

-- Brings an entry up to date with what its node holds. One that a lowered limit leaves no place is to end.
local function confirm(account, entry, holding, repaired)
    refresh(account, entry, holding)
    local changed = set_terms(account, entry, holding.terms)
    if not (entry.mark and entry.mark.kick) and is_surplus(account, entry, holding) then
        entry.mark = { kick = 'stream_limit_reached' }
    end
    if changed then
        hand_over(account)
        -- Its device may have waited for another one, which took this one's place.
        if not place_of(account.entries, holding.session) then
            return { gone = { code = 'moved' } }
        end
    end
    return yours(entry, repaired)
end

local function verdict(account, holding)
    expire(account)
    local at = place_of(account.entries, holding.session)
    if at then
        local entry = account.entries[at]
        if not old(entry) then
            if entry.owner == holding.owner and entry.epoch == holding.epoch then
                return confirm(account, entry, holding, false)
            elseif entry.epoch < holding.epoch then
                -- A failover may have lost the move that made our epoch.
                return confirm(account, entry, holding, true)
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
