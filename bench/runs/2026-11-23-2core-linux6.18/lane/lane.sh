# CPU of a request for a hot file, by the fast lane and through hyper (an unknown field).
# usage: lane.sh PAGEWIRE DIR ROUNDS > lane.csv ; server on processor 0, wrk on processor 1
P=$1; D=$2; R=$3
timeout 300 taskset -c 0 $P serve $D --listen 127.0.0.1:8090 --quiet --threads 1 >/dev/null 2>&1 &
sleep 2; PID=$(pgrep -f 'serve .* --listen 127.0.0.1:8090' | tail -1)
once() { t0=$(awk '{print $14,$15}' /proc/$PID/stat); n=$(timeout 20 taskset -c 1 wrk -t1 -c32 -d4 "${@:2}" http://127.0.0.1:8090/$1 2>/dev/null | awk '/requests in/{print $1}'); t1=$(awk '{print $14,$15}' /proc/$PID/stat); echo $t0 $t1 $n | awk '{printf "%d,%.3f,%.3f\n",$5,($3-$1)*1e4/$5,($4-$2)*1e4/$5}'; }
echo "file,way,round,requests,user us,system us"
for r in $(seq $R); do for f in s4k s64k; do echo "$f,fast lane,$r,$(once $f)"; echo "$f,hyper,$r,$(once $f -H 'X-Other: 1')"; done; done
kill $PID
