-- publish: hands words on to every node that listens, in their order.
--
-- KEYS: 1 the channel, which has its bucket's hash tag
-- ARGV: the words, at least one
-- Outcome: 'ok', whoever heard it
for _, word in ipairs(ARGV) do
    redis.call('SPUBLISH', KEYS[1], word)
end
return 'ok'
