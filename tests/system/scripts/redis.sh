# Fills Redis, changes a part, and reads every key back; says what it found.
#
# $1: keys. Each value is 4090 bytes made of the key and the round in which it
# was written. The first SETs are those of a script in the server, as values are
# made faster there; the others go to it in Redis' own protocol, many at a time
# (https://redis.io/docs/reference/protocol-spec: bulk strings), GETs one by one.
keys=$1
port=6379

fail() {
    echo "$*" >&2
    tail -n 5 /tmp/redis.log >&2
    exit 1
}

# awk functions that all the steps share.
common='
function key(i) { return sprintf("key:%08d", i) }
function value(i, round,    v, n) {
    v = sprintf("%06d:%d", i, round)
    for (n = 0; n < 9; n++) v = v v
    return substr(v, 1, 4090)
}
function bulk(s) { printf "$%d\r\n%s\r\n", length(s), s }
function written(i) { return i % 3 == 1 ? 2 : 1 }
'

fill_keys() {
    redis-cli -p $port EVAL '
    local keys = tonumber(ARGV[1])
    for i = 0, keys - 1 do
        local value = string.rep(string.format("%06d:%d", i, 1), 512)
        redis.call("SET", string.format("key:%08d", i), string.sub(value, 1, 4090))
    end
    return keys' 0 "$keys"
}

change_keys() {
    awk -v keys="$keys" "$common"'
    BEGIN {
        for (i = 1; i < keys; i += 3) {
            printf "*3\r\n"; bulk("SET"); bulk(key(i)); bulk(value(i, 2))
        }
    }' | redis-cli -p $port --pipe
}

get_keys() {
    awk -v keys="$keys" "$common"'
    BEGIN { for (i = 0; i < keys; i++) print "GET " key(i) }' | redis-cli -p $port
}

redis-server --port $port --save "" --appendonly no --daemonize yes --logfile /tmp/redis.log \
    >/dev/null || fail "redis-server does not start"
tries=0
until [ "$(redis-cli -p $port ping 2>/dev/null)" = PONG ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "redis-server does not answer"
    sleep 0.1
done

echo "fill: $(fill_keys)"
echo "change: $(change_keys | tail -n 1)"
# A key that is lost is an empty line.
get_keys | awk -v keys="$keys" "$common"'
    $0 == value(NR - 1, written(NR - 1)) { right++; next }
    $0 == "" { lost++; next }
    { wrong++; if (wrong < 5) print "wrong: " key(NR - 1) " is " substr($0, 1, 40) }
    END { printf "read: %d right, %d wrong, %d lost\n", right, wrong, lost }'
echo "keys: $(redis-cli -p $port dbsize)"
redis-cli -p $port info | tr -d '\r' |
    grep -E '^(used_memory|used_memory_dataset|evicted_keys|total_error_replies|rejected_connections):'
redis-cli -p $port shutdown nosave
