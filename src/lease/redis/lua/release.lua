-- release: ends a session or a wait.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {account, code, holding: {session, owner, epoch, generation ("" when never confirmed), device, content,
--   state, started (ms; 0 when never granted), position (ms), watched (ms)}}: the play's facts, so that also a session that the store lost
--   leaves its record (rule 9)
-- Outcomes: "done"   "not_yours" it plays elsewhere under a higher epoch   "gone" there is no such session (any more)

local wrong = enter()
if wrong then
    return wrong
end
local account, holding = account_of(ask.account), ask.holding
account.asker = holding
expire(account)
local at = place_of(account.entries, holding.session)
if at then
    local entry = account.entries[at]
    local same = entry.owner == holding.owner and entry.epoch == holding.epoch
    -- A failover may have lost the move that made this epoch: the higher one wins.
    if not same and entry.epoch >= holding.epoch then
        return answer('not_yours')
    end
    -- A node that does not know the session knows nothing of its play.
    if holding.started > 0 then
        if entry.epoch < holding.epoch then
            entry.started = math.min(entry.started, holding.started)
        end
        entry.position, entry.watched, entry.checkpoint = holding.position, holding.watched, now
    end
    entry.epoch = math.max(entry.epoch, holding.epoch)
    remove(account, at, ask.code)
    return answer('done')
end
at = place_of(account.line, holding.session)
local waited = at and account.line[at].owner == holding.owner
if waited then
    leave_line(account, holding.session)
end
local tombstone = tombstone_of(holding.session)
if not tombstone or tombstone.epoch < holding.epoch then
    -- Lost by the store, not ended by it: only another life of the data can have lost it (rule 7). What was granted
    -- without the store was never there, and was a play all the same.
    if holding.started > 0 and holding.generation ~= generation then
        if holding.generation == '' then
            holding.generation = generation
        end
        record(account, holding, now, ask.code)
    end
    -- Also for an absent session: its acquire may still be under way (rule 11).
    bury(holding.session, holding.epoch, ask.code)
end
hand_over(account)
return answer(waited and 'done' or 'gone')
