-- beat: heartbeats of sessions without a socket, which no node holds, and their ends. These are the steps of
-- src/lease/account/beat.rs.
--
-- KEYS, ARGV[1]: see head.lua.
-- ARGV[2]: {beats: [{account, session, device (id; absent: not named), period (ms it lives from now on), word: "alive" | "silent"
--   | "stop", position (ms), state, known}]}, a hundred at most; known is a holding as audit has it, absent when the node
--   knows nothing of the session
-- Outcome: {verdicts}, a verdict for each in the order of the question:
--   {lives: {entry, used, limit: the operators'}}   "stopped"   "later" the bucket recovers   "moved" it plays on a socket
--   "foreign" it is another device's   {gone: {code, by}} the code and the device that took its slot over, when known

local wrong = enter()
if wrong then
    return wrong
end

local function ended(session)
    local tombstone = tombstone_of(session)
    if tombstone then
        local by = call('HGET', DISPLACERS, session)
        return { gone = { code = tombstone.code, by = by and cjson.decode(by) or nil } }
    end
end

local function lives(account, session)
    local at = place_of(account.entries, session)
    if not at then
        return ended(session) or { gone = {} }
    end
    -- As it is now: another heartbeat of the same batch may change it.
    local entry = {}
    for field, value in pairs(account.entries[at]) do
        entry[field] = value
    end
    return { lives = { entry = entry, used = used(account), limit = account.data.limit } }
end

-- Only a node that knows the session writes again what the store lost.
local function beat_lost(account, beat)
    local known = beat.known
    if not known then
        return recovering and 'later' or { gone = {} }
    elseif known.generation == generation and not place_of(account.entries, beat.session) then
        -- Absent in the life of the data in which it was confirmed is ended (rule 7).
        return { gone = {} }
    end
    local verdict = reassert(account, known)
    return verdict.yours and lives(account, beat.session) or verdict
end

local function beat_absent(account, beat)
    local gone = ended(beat.session)
    if gone then
        return gone
    end
    local known = beat.known and beat.known.generation ~= generation and beat.known
    if beat.word == 'stop' then
        if known then
            known.generation = generation
            record(account, known, now, 'stopped')
        end
        if known or recovering and not beat.known then
            -- Another node may know it, and must not write it again.
            bury(beat.session, 1, 'stopped')
            return 'stopped'
        end
    end
    return beat_lost(account, beat)
end

local function verdict(account, beat)
    expire(account)
    -- Every step that could find the slot free sees it so (rule 13); also what an older version only marked.
    purge_others(account)
    carry_out(account)
    local at = place_of(account.entries, beat.session)
    if not at then
        return beat_absent(account, beat)
    end
    local entry = account.entries[at]
    if not entry.expires then
        return 'moved'
    elseif beat.device and beat.device ~= entry.device.id then
        return 'foreign'
    elseif old(entry) and beat.word ~= 'stop' then
        return beat_lost(account, beat)
    elseif beat.word == 'silent' then
        return lives(account, beat.session)
    end
    credit(entry)
    account.changed = true
    if beat.word == 'stop' then
        remove(account, at, 'stopped')
        return 'stopped'
    end
    entry.position = beat.position or entry.position
    entry.state = beat.state or entry.state
    entry.expires = now + beat.period
    if beat.known then
        if is_surplus(account, entry, beat.known) then
            remove(account, at, 'stream_limit_reached')
        elseif set_terms(account, entry, beat.known.terms) then
            hand_over(account)
        end
    end
    return lives(account, beat.session)
end

local verdicts
for at, beat in ipairs(ask.beats) do
    verdicts = verdicts or {}
    verdicts[at] = verdict(account_of(beat.account), beat)
end
return answer({ verdicts = verdicts })
