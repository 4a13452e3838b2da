-- resume: moves a session to another socket.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {account, session, expected (epoch; 0 only asks for it), above (the
--   highest epoch that the asking node knows), owner, device (id; absent: not named), content, limit (slots), terms,
--   attempt}
-- Outcomes: {moved: {used, entry, limit: the operators'}}   {at: {epoch, device}} it is held under another epoch
--   "absent" an ordinary start: also where a rule leaves no place for what the session would count in now
--   recovering, renew_first, late: see head.lua

local wrong = enter()
if wrong then
    return wrong
end
local account = account_of(ask.account)
account.asker = ask
expire(account)
local at = place_of(account.entries, ask.session)
if not at then
    if recovering and not tombstone_of(ask.session) then
        return not_yet()
    end
    return answer('absent')
end
local entry = account.entries[at]
if recovering and old(entry) then
    return not_yet()
elseif ask.device and ask.device ~= entry.device.id then
    return answer('absent')
elseif not live(ask.owner) then
    return renew_first()
elseif not recovering and (old(entry) or entry.expires and lapsed(entry)) then
    -- Nobody re-asserted it in time, or its own time is over.
    drop_dead(account, at)
    hand_over(account)
    return answer('absent')
elseif entry.attempt == ask.attempt and entry.owner == ask.owner then
    return answer({ moved = { used = used(account), entry = entry, limit = account.data.limit } })
elseif entry.epoch ~= ask.expected then
    return answer({ at = { epoch = entry.epoch, device = entry.device } })
end
look(account, entry)
if code_of(entry.mark) then
    -- Rule 16: what is about to end does not come back. Its owner ends it, as any other that is marked: it must know, or
    -- it writes the session again when the store loses its data.
    return answer('absent')
end
local asker = { session = ask.session, device = entry.device, limit = ask.limit, terms = ask.terms }
if #refusing_change(account, entry, asker) > 0 then
    return answer('absent')
end
credit(entry)
entry.state = 'playing'
entry.owner, entry.epoch, entry.generation = ask.owner, math.max(entry.epoch, ask.above) + 1, generation
entry.attempt, entry.content, entry.expires = ask.attempt, ask.content, nil
account.changed = true
if set_terms(account, entry, ask.terms) then
    hand_over(account)
    -- Its device may have waited for another one, which took this one's place.
    if not place_of(account.entries, ask.session) then
        return answer('absent')
    end
end
return answer({ moved = { used = used(account), entry = entry, limit = account.data.limit } })
