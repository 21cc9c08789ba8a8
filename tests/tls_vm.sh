# What the guest of tests/tls_vm.rs does with the real program: it tells, the test judges.
trap '' PIPE # a client may have ended before it is spoken to
site=/tmp/www state=/tmp/state
mkdir $site
head -c 3000017 /dev/urandom >/tmp/part
parts=''
for _ in $(seq 90); do parts="$parts /tmp/part"; done
cat $parts 2>/dev/null | head -c 268435456 >$site/large
head -c 4000001 $site/large >$site/file

serve() { # FLAG ...
    "$@" pagewire serve $site --listen 127.0.0.1:443 --tls-self-signed --state-dir $state \
        --tls-records kernel $flags >/tmp/out 2>/tmp/log &
    server=$!
    until grep -q ^route: /tmp/out; do usleep 50000; done
}
stop() {
    kill -INT "$server"
    wait "$server"
    grep -E 'complete|aborted' /tmp/log
}
client() { # OPTION ...
    openssl s_client -connect 127.0.0.1:443 -servername localhost -verify_return_error \
        -CAfile $state/self-signed.pem -brief "$@"
}
# `client` in the background, spoken to through 3 and heard through 4.
talk() { # OPTION ...
    rm -f /tmp/to /tmp/from
    mkfifo /tmp/to /tmp/from
    client "$@" -msg -msgfile /tmp/messages </tmp/to >/tmp/from 2>/tmp/said &
    talking=$!
    exec 3>/tmp/to 4</tmp/from
}
ask() { # TARGET [CONNECTION]
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\n\r\n' \
        "$1" "${2:-keep-alive}" >&3
}
# Reads to the end of the response's head, and no further.
head_of() {
    cr=$(printf '\r')
    while IFS= read -r line; do [ "$line" != "$cr" ] || break; done
}
hang_up() {
    exec 3>&- 4<&-
    wait $talking
    echo "status $?"
    cat /tmp/said
    grep -E '^(<<<|>>>).*(Alert|KeyUpdate|HelloRequest)' /tmp/messages
}
same() { # FILE, of what comes by stdin
    cmp - "$1" && echo same || echo other
}

echo '= clients'
flags=''
serve
grep ^sandbox: /tmp/out
while read -r version kind suite name; do
    curl -sS --cacert $state/self-signed.pem --http1.1 --tlsv$version --tls-max $version $kind \
        "$suite" "https://localhost/$name?curl" | same "$site/$name"
done <<'SUITES'
1.3 --tls13-ciphers TLS_AES_128_GCM_SHA256 large
1.3 --tls13-ciphers TLS_AES_256_GCM_SHA384 file
1.3 --tls13-ciphers TLS_CHACHA20_POLY1305_SHA256 file
1.2 --ciphers ECDHE-ECDSA-AES128-GCM-SHA256 file
1.2 --ciphers ECDHE-ECDSA-AES256-GCM-SHA384 file
1.2 --ciphers ECDHE-ECDSA-CHACHA20-POLY1305 file
SUITES
while read -r version kind suite; do
    talk $version $kind $suite
    ask '/file?openssl' close
    head_of <&4
    same $site/file <&4
    hang_up
done <<'SUITES'
-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256
-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384
-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256
-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256
-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384
-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305
SUITES
stop
echo '= counters'
grep -E '^Tls(TxSw|RxSw|DecryptError)' /proc/net/tls_stat

# Slowly, so that commands are read while there is more to come. The capital asks for new keys of
# the server, too.
flags='--limit-rate 2M'
serve
for command in k K; do
    echo "= $command"
    talk -tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256
    ask "/file?$command"
    head_of <&4
    dd bs=1 count=1000 <&4 >/tmp/got 2>/dev/null
    echo $command >&3
    head -c 3999001 <&4 >>/tmp/got
    same $site/file </tmp/got
    until grep -q KEYUPDATE /tmp/said; do usleep 10000; done
    ask "/file?$command-again" close 2>/dev/null
    head_of <&4
    cat <&4 | wc -c
    hang_up
done
echo '= renegotiation'
talk -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256
ask '/file?R'
head_of <&4
head -c 4000001 <&4 | same $site/file
echo R >&3
cat <&4 | wc -c
hang_up
echo '= log'
stop

echo '= strace'
flags=''
serve strace -f -o /tmp/trace -e trace=sendfile,pread64,preadv,sendto,sendmsg,write,setsockopt
curl -sS --cacert $state/self-signed.pem --http1.1 'https://localhost/file?strace' | same $site/file
kill -INT "$(busybox pidof pagewire)"
wait "$server"
grep -E 'sendfile|SOL_TCP|SOL_TLS|preadv?(64)?\(' /tmp/trace

echo '= engine'
before=$(awk '/^TlsTxSw/ { print $2 }' /proc/net/tls_stat)
engine_tests --test-threads=1 garbage half resumed shrinks without_close_notify |
    grep -E '^test |panicked'
after=$(awk '/^TlsTxSw/ { print $2 }' /proc/net/tls_stat)
echo "sealed by the kernel: $((after - before))"

echo '= doctor'
pagewire doctor $site --json | tr -d '\n'
