# What the guest of tests/tls_vm.rs does with the real program after tests/tls_vm_downloads.sh.

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
    keys_changed 1
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
flags='' records=kernel-immutable
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
