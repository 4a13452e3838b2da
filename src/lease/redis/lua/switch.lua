-- switch: moves a session to another content, and to the groups of it.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {account, session, owner, epoch, content, limit (slots), terms}
-- Outcomes: "done"   {refused: {refusal: {rule, used, limit, slots, may_take_over}, holders}} it plays on as before
--   "not_yours" it plays elsewhere under a higher epoch   "gone" there is no such session (any more)
--   recovering, renew_first, late: see head.lua

local wrong = enter()
if wrong then
    return wrong
end
local account = account_of(ask.account)
expire(account)
local at = place_of(account.entries, ask.session)
local proven = at and not old(account.entries[at])
if recovering and not proven and not tombstone_of(ask.session) then
    return not_yet()
elseif not proven then
    return answer('gone')
elseif not live(ask.owner) then
    return renew_first()
end
-- Every check of a limit first purges the account's dead entries (rule 13).
purge_others(account, ask.session)
at = place_of(account.entries, ask.session)
if not at then
    -- A slot that the purge freed went to its device, which waited.
    return answer('gone')
end
local entry = account.entries[at]
if entry.owner ~= ask.owner or entry.epoch ~= ask.epoch then
    return answer('not_yours')
end
local asker = { session = ask.session, device = entry.device, limit = ask.limit, terms = ask.terms }
local refusing = refusing_change(account, entry, asker)
if #refusing > 0 then
    local refusal, holders = refusal_of(account, asker, refusing)
    return answer({ refused = { refusal = refusal, holders = holders } })
end
entry.content = ask.content
account.changed = true
if set_terms(account, entry, ask.terms) then
    hand_over(account)
    -- Its device may have waited for another one, which took this one's place.
    if not place_of(account.entries, ask.session) then
        return answer('gone')
    end
end
return answer('done')
