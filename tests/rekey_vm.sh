# What the guest of tests/rekey_vm.rs does: it tells, the test judges.
cat /tmp/part /tmp/part | head -c 4000001 >$site/file

counters() {
    grep -E '^Tls(TxSw|RxSw|DecryptError|TxRekeyOk|TxRekeyError)' /proc/net/tls_stat
}

echo '= clients'
serve
grep ^sandbox: /tmp/out
while read -r version kind suite; do
    curl -sS --cacert $state/self-signed.pem --http1.1 --tlsv$version --tls-max $version $kind \
        "$suite" "https://localhost/file?curl" | same $site/file
done <<'SUITES'
1.3 --tls13-ciphers TLS_AES_128_GCM_SHA256
1.3 --tls13-ciphers TLS_AES_256_GCM_SHA384
1.3 --tls13-ciphers TLS_CHACHA20_POLY1305_SHA256
1.2 --ciphers ECDHE-ECDSA-AES128-GCM-SHA256
1.2 --ciphers ECDHE-ECDSA-AES256-GCM-SHA384
1.2 --ciphers ECDHE-ECDSA-CHACHA20-POLY1305
SUITES
stop

# Slowly, so that commands are read while there is more to come. The capital asks for new keys of
# the server, too.
flags='--limit-rate 4M'
serve
for suite in TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256; do
    echo "= $suite"
    talk -tls1_3 -ciphersuites $suite
    changed=0
    for command in K k K; do
        ask "/file?$command"
        head_of <&4
        dd bs=1 count=1000 <&4 >/tmp/got 2>/dev/null
        echo $command >&3
        changed=$((changed + 1))
        head -c 3999001 <&4 >>/tmp/got
        same $site/file </tmp/got
        keys_changed $changed
    done
    ask '/file?end' close
    head_of <&4
    same $site/file <&4
    hang_up
done
echo '= log'
stop
echo '= counters'
counters

echo '= engine'
engine_tests --test-threads=1 --nocapture full |
    grep -E '^test |^kernel: |^ok$|panicked'
library_tests --test-threads=1 --nocapture keys_in_the_kernel | grep -E '^test |^keys |panicked'
echo '= example'
tls_file $site/file kernel --rekey
echo '= counters afterwards'
counters
