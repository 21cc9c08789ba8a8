"""CPU of servers that send one large file to several clients at once, exactly (schedstat), in turns.

usage: drive.py ROUNDS FILE NAME=PORT:PID...; CONNS connections (4), REPS downloads each (1). FILE is what the servers
have as /big. Bodies are dropped in the kernel."""
import sys,socket,select,os,time,statistics
def tree(pid):
    pids=[pid]
    for p in pids:
        try: pids+=[int(x) for x in open(f'/proc/{p}/task/{p}/children').read().split()]
        except OSError: pass
    return pids
def cpu(pid):
    return sum(int(open(f'/proc/{p}/task/{t}/schedstat').read().split()[0]) for p in tree(pid) for t in os.listdir(f'/proc/{p}/task'))
os.sched_setaffinity(0,{1})
conns=int(os.environ.get('CONNS','4')); reps=int(os.environ.get('REPS','1'))
buf=bytearray(1<<20)
def get(port):
    ep=select.epoll(); left={}; socks={}
    req='GET /big HTTP/1.1\r\nHost: x\r\n\r\n'.encode()
    size=os.path.getsize(sys.argv[2])
    for i in range(conns):
        s=socket.create_connection(('127.0.0.1',port)); s.sendall(req); s.setblocking(False)
        socks[s.fileno()]=s; left[s.fileno()]=[None,reps]; ep.register(s,select.EPOLLIN)
    total=0
    while socks:
        for fd,_ in ep.poll(5):
            s=socks[fd]
            if left[fd][0] is None:
                head=s.recv(65536); h,_,rest=head.partition(b'\r\n\r\n'); assert b'200 OK' in h,h
                left[fd][0]=size-len(rest); total+=len(rest)
            else:
                n=s.recv_into(buf,min(left[fd][0],1<<20),socket.MSG_TRUNC); assert n>0
                left[fd][0]-=n; total+=n
            if left[fd][0]==0:
                left[fd][1]-=1
                if left[fd][1]: s.sendall(req); left[fd][0]=None
                else: ep.unregister(fd); s.close(); del socks[fd]
    return total
res={}
servers=[(n,*map(int,v.split(':'))) for n,v in (a.split('=') for a in sys.argv[3:])]
for r in range(int(sys.argv[1])):
    for n,port,pid in servers[r%len(servers):]+servers[:r%len(servers)]:
        c=cpu(pid); t=time.time(); b=get(port); res.setdefault(n,[]).append(((cpu(pid)-c)/1e7/(b/1e9), b/1e9/(time.time()-t)))
for n,v in res.items(): print(n,'cs/GB',[round(x,1) for x,_ in v],'median',round(statistics.median(x for x,_ in v),2),'GB/s',round(statistics.median(y for _,y in v),2))
