-- mark: gives an order about a session that another node may hold. Its owner's socket ends it and releases.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {account, session, code} end it with this code, or
--   {account, session, owner, epoch} its viewer's no to the take-over that asked
-- Outcomes: "done"   "not_yours" the no is not of its present owner and epoch   "gone" no such session or question
--   recovering: see head.lua

local wrong = enter()
if wrong then
    return wrong
end
local account = account_of(ask.account)
expire(account)
local at = place_of(account.entries, ask.session)
if not at then
    if recovering and not tombstone_of(ask.session) then
        return not_yet()
    end
    return answer('gone')
end
local entry = account.entries[at]
if ask.code then
    kick(account, entry, ask.code)
    carry_out(account)
    return answer('done')
end
if entry.owner ~= ask.owner or entry.epoch ~= ask.epoch then
    return answer('not_yours')
elseif not (entry.mark and entry.mark.asked) then
    return answer('gone')
end
local taker = place_of(account.line, entry.mark.by)
entry.mark = nil
account.changed = true
if taker then
    account.line[taker].refused = true
    look(account, account.line[taker])
end
return answer('done')
