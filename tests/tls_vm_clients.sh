# What guests serve and ask with; before what tests/tls_vm.sh and tests/rekey_vm.sh do with it.
trap '' PIPE # a client may have ended before it is spoken to
site=/tmp/www state=/tmp/state
mkdir $site
head -c 3000017 /dev/urandom >/tmp/part
flags='' records=kernel

serve() { # FLAG ...
    : >/tmp/out # which may be a server's before
    "$@" pagewire serve $site --listen 127.0.0.1:443 --tls-self-signed --state-dir $state \
        --tls-records $records $flags >/tmp/out 2>/tmp/log &
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
# Waits until the client has changed its keys so often, or ended.
keys_changed() { # COUNT
    until [ "$(grep -c KEYUPDATE /tmp/said)" -ge "$1" ]; do
        kill -0 $talking || return
        usleep 10000
    done
}
