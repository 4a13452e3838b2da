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
