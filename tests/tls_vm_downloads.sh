# Downloads by every version and cipher in the guest of tests/tls_vm.rs: it tells, the test judges.
parts=''
for _ in $(seq 90); do parts="$parts /tmp/part"; done
cat $parts 2>/dev/null | head -c 268435456 >$site/large
head -c 4000001 $site/large >$site/file

echo '= clients'
serve
grep ^sandbox: /tmp/out
grep '^TLS records:' /tmp/out
while read -r version kind suite name; do
    curl -sS --cacert $state/self-signed.pem --http1.1 --tlsv$version --tls-max $version $kind \
        "$suite" "https://localhost/$name?curl" | same "$site/$name"
done <<SUITES
1.3 --tls13-ciphers TLS_AES_128_GCM_SHA256 large
1.3 --tls13-ciphers TLS_AES_256_GCM_SHA384 ${each:-file}
1.3 --tls13-ciphers TLS_CHACHA20_POLY1305_SHA256 ${each:-file}
1.2 --ciphers ECDHE-ECDSA-AES128-GCM-SHA256 ${each:-file}
1.2 --ciphers ECDHE-ECDSA-AES256-GCM-SHA384 ${each:-file}
1.2 --ciphers ECDHE-ECDSA-CHACHA20-POLY1305 ${each:-file}
SUITES
while read -r version kind suite; do
    talk $version $kind $suite
    ask "/${each:-file}?openssl" close
    head_of <&4
    same "$site/${each:-file}" <&4
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
