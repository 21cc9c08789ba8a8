"""CPU and memory of HTTPS servers, side by side.

usage: bench.py PAGEWIRE DIR ROUNDS OUT.csv [MEASURE]

DIR holds `big` (1 GiB), `s4k` (4 KiB) and `s1k` (1 KiB). nginx, static-web-server, curl, wrk and openssl are on the
PATH. Servers run on processor 0, downloads on processor 1; handshakes run on processor 0 as well, because two virtual
processors that pass one socket to and fro measure each other's wake-ups. What is compared is measured in turns.
"""
import csv, os, socket, ssl, statistics, subprocess, sys, tempfile, time

program, directory, rounds, out = sys.argv[1], os.path.abspath(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
only = sys.argv[5] if len(sys.argv) > 5 else ''
here = tempfile.mkdtemp()
cert, key = here + '/cert.pem', here + '/key.pem'
subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
                '-subj', '/CN=localhost', '-out', cert, '-keyout', key], check=True, capture_output=True)
places = ''.join(f'{kind}_temp_path {here}; ' for kind in ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'])
with open(here + '/nginx.conf', 'w') as file:
    file.write(f'''worker_processes 1; daemon off; pid {here}/pid; error_log /dev/null; user root;
events {{ worker_connections 4096; }}
http {{ access_log off; sendfile on; tcp_nopush on; open_file_cache max=1000; keepalive_requests 100000000; {places}
server {{ listen 127.0.0.1:8443 ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:S:10m; root {directory}; }} }}''')
commands = {
    'pagewire': ([program, 'serve', directory, '--listen', '127.0.0.1:8444', '--quiet', '--threads', '1',
                  '--tls-cert', cert, '--tls-key', key], 8444),
    'nginx': (['nginx', '-p', here, '-c', here + '/nginx.conf'], 8443),
    'static-web-server': (['static-web-server', '--root', directory, '--host', '127.0.0.1', '--port', '8445',
                           '--http2', 'true', '--http2-tls-cert', cert, '--http2-tls-key', key,
                           '--threads-multiplier', '1', '--log-level', 'error'], 8445),
}


def tree(pid):
    """A process and all below it."""
    pids = [pid]
    for pid in pids:
        with open(f'/proc/{pid}/task/{pid}/children') as file:
            pids += map(int, file.read().split())
    return pids


def cpu(pid):
    """Seconds on a processor, as the scheduler counts them (/proc/PID/stat counts in ticks)."""
    tasks = [f'/proc/{pid}/task/{task}/schedstat' for pid in tree(pid) for task in os.listdir(f'/proc/{pid}/task')]
    return sum(int(open(task).read().split()[0]) for task in tasks) / 1e9


def resident(pid):
    return sum(int(line.split()[1]) for pid in tree(pid) for line in open(f'/proc/{pid}/status') if line.startswith('VmRSS'))


def client():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def download(suite, version='--http1.1'):
    def run(port):
        command = ['taskset', '-c', '1', 'curl', '-sk', '-o', '/dev/null', '--tlsv1.3', '--tls13-ciphers', suite,
                   version, '-w', '%{size_download} %{http_code}', f'https://127.0.0.1:{port}/big']
        size, status = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout.split()
        assert status == '200'
        return int(size) / 1e9
    return run


def small(port):
    command = ['taskset', '-c', '1', 'wrk', '-t1', '-c32', '-d4', f'https://127.0.0.1:{port}/s4k']
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert not any('Non-2xx' in line for line in lines)
    return int(next(line for line in lines if 'requests in' in line).split()[0])


def full(port):
    context, count, end = client(), 0, time.time() + 4
    while time.time() < end:
        context.wrap_socket(socket.create_connection(('127.0.0.1', port))).close()
        count += 1
    return count


def resumed(port):
    context, count, reused, session, end = client(), 0, 0, None, time.time() + 4
    while time.time() < end:
        stream = context.wrap_socket(socket.create_connection(('127.0.0.1', port)), session=session)
        stream.sendall(b'GET /s1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        while stream.recv(65536):
            pass
        reused += stream.session_reused
        session = stream.session
        stream.close()
        count += 1
    assert reused > 0.95 * count, (reused, count)
    return count


def idle(port, count):
    """Connections that have had an answer each."""
    context, streams = client(), []
    for _ in range(count):
        stream = context.wrap_socket(socket.create_connection(('127.0.0.1', port)))
        stream.sendall(b'GET /s1k HTTP/1.1\r\nHost: localhost\r\n\r\n')
        got = b''
        while len(got.partition(b'\r\n\r\n')[2]) < 1024:
            got += stream.recv(65536)
        streams.append(stream)
    return streams


measures = [
    ('1 GiB, AES-256-GCM', 'cpu s/GB', 1, download('TLS_AES_256_GCM_SHA384')),
    ('1 GiB, AES-128-GCM', 'cpu s/GB', 1, download('TLS_AES_128_GCM_SHA256')),
    ('1 GiB by HTTP/2, AES-128-GCM', 'cpu s/GB', 1, download('TLS_AES_128_GCM_SHA256', '--http2')),
    ('4 KiB, 32 connections', 'cpu s/request', 1, small),
    ('full handshakes', 'cpu s/handshake', 0, full),
    ('resumed handshakes, a request each', 'cpu s/handshake', 0, resumed),
]
for name in ['big', 's4k', 's1k']:
    # Who comes first does not pay for the disk.
    subprocess.run(['cp', f'{directory}/{name}', '/dev/null'], check=True)
rows, servers = [], {}
try:
    for name, (command, port) in commands.items():
        servers[name] = subprocess.Popen(['taskset', '-c', '0', *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.time() + 10
        while time.time() < end:
            try:
                socket.create_connection(('127.0.0.1', port)).close()
                break
            except OSError:
                time.sleep(0.05)
    names = list(commands)
    if only in 'idle connection':
        # First, of fresh servers: what a busy one has to spare would hide it.
        for name in names:
            before = resident(servers[name].pid)
            streams = idle(commands[name][1], 2000)
            time.sleep(13)
            after = resident(servers[name].pid)
            rows.append(('idle connection', name, 0, len(streams), after - before, (after - before) / len(streams), 'KiB', ''))
            print(rows[-1], flush=True)
            for stream in streams:
                stream.close()
    for measure, unit, processor, run in measures:
        if only not in measure:
            continue
        os.sched_setaffinity(0, {processor})
        for turn in range(rounds):
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                began, spent = time.time(), cpu(servers[name].pid)
                count = run(commands[name][1])
                spent = cpu(servers[name].pid) - spent
                rows.append((measure, name, turn, count, spent, spent / count, unit, time.time() - began))
                print(rows[-1], flush=True)
finally:
    for server in servers.values():
        server.terminate()
with open(out, 'w') as file:
    csv.writer(file).writerows([('measure', 'server', 'round', 'count', 'spent', 'each', 'unit', 'seconds'), *rows])
for measure in dict.fromkeys(row[0] for row in rows):
    each = {name: [row[5] for row in rows if row[0] == measure and row[1] == name] for name in commands}
    ours = statistics.median(each['pagewire'])
    for name, values in each.items():
        middle = statistics.median(values)
        print(f'{measure}: {name} {middle:.3g} (of ours {middle / ours:.2f}; {min(values):.3g} to {max(values):.3g})')
