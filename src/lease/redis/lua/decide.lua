-- decide: an operator's decision about an account, which stands above tokens and plans. It is kept in the account's table.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {account, blocked: true | false}, or
--   {account, limit (slots; absent: as tokens and plans say), enforce (whether sessions beyond it end, the newest first)}
-- Outcome: {standing: {blocked, limit}, ended: sessions that it ends}. Every node is told when an account is blocked.

local wrong = enter()
if wrong then
    return wrong
end
local account, ended = account_of(ask.account), 0
local data = account.data
expire(account)
account.changed = true
if ask.blocked then
    data.blocked = true
    while account.line[1] do
        look(account, account.line[1])
        leave_line(account, account.line[1].session)
    end
    for _, entry in ipairs(account.entries) do
        kick(account, entry, 'account_blocked')
        ended = ended + 1
    end
    carry_out(account)
    call('SPUBLISH', NOTICES, '{"blocked":' .. account.key .. '}')
elseif ask.blocked == false then
    data.blocked = nil
else
    data.limit = ask.limit
    while ask.enforce and ask.limit do
        local newest, staying
        for _, entry in ipairs(account.entries) do
            if not entry.exempt and not code_of(entry.mark) then
                staying = (staying or 0) + 1
                -- Of several in one millisecond the last in the table, on every store.
                if not newest or entry.started >= newest.started then
                    newest = entry
                end
            end
        end
        if (staying or 0) <= ask.limit then
            break
        end
        kick(account, newest, 'stream_limit_reached')
        ended = ended + 1
    end
    carry_out(account)
    -- A raised limit too (rule 20).
    hand_over(account)
end
return answer({ standing = { blocked = data.blocked or false, limit = data.limit }, ended = ended })
