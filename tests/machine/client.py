"""A TFTP client for tests: client.py HOST PORT FILE [NAME=VALUE ...] [at=BLOCK run=COMMAND]

Prints what it got as JSON. With `at` and `run` a shell command is run when that block has arrived.
With `ask=ADDRESS` the request goes to another address than HOST, and is a broadcast if need be.
"""

import hashlib
import json
import socket
import subprocess
import sys

host, port, name, *rest = sys.argv[1:]
options = dict(argument.split("=", 1) for argument in rest)
at, command = int(options.pop("at", 0)), options.pop("run", None)
ask = options.pop("ask", host)
silence = float(options.pop("silence", 2))

address = socket.getaddrinfo(ask, int(port), type=socket.SOCK_DGRAM)[0]
sock = socket.socket(address[0], socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
sock.settimeout(silence)
request = b"\0\1" + name.encode() + b"\0octet\0"
for option, value in options.items():
    request += option.encode() + b"\0" + value.encode() + b"\0"

result = {"granted": {}, "tid": None, "error": None, "length": 0, "largest": 0, "silent": False}
digest = hashlib.sha256()
tid, last, acknowledged, quiet, reported = None, 0, 0, 0, False
sock.sendto(request, address[4])
while True:
    try:
        datagram, sender = sock.recvfrom(65536)
    except TimeoutError:
        quiet += 1
        if tid is None and quiet >= 3 or quiet >= 10:
            result["silent"] = True
            break
        answer = request if tid is None else b"\0\4" + (last % 65536).to_bytes(2, "big")
        sock.sendto(answer, tid or address[4])
        continue
    tid = tid or sender
    if sender != tid:
        continue
    quiet = 0
    result["tid"] = sender[0]
    opcode, number = datagram[1], int.from_bytes(datagram[2:4], "big")
    if opcode == 5:
        result["error"] = number
        break
    if opcode == 6 and last == 0:
        words = datagram[2:-1].decode().split("\0")
        result["granted"] = dict(zip(words[::2], words[1::2]))
        sock.sendto(b"\0\4\0\0", tid)
    if opcode != 3:
        continue
    blksize = int(result["granted"].get("blksize", 512))
    window = int(result["granted"].get("windowsize", 1))
    if number != (last + 1) % 65536:
        if window > 1 and not reported:
            reported = True
            sock.sendto(b"\0\4" + (last % 65536).to_bytes(2, "big"), tid)
        continue
    reported = False
    last += 1
    payload = datagram[4:]
    digest.update(payload)
    result["length"] += len(payload)
    result["largest"] = max(result["largest"], len(payload))
    if last == at:
        subprocess.run(command, shell=True, check=True)
    if last - acknowledged == window or len(payload) < blksize:
        acknowledged = last
        sock.sendto(b"\0\4" + (last % 65536).to_bytes(2, "big"), tid)
    if len(payload) < blksize:
        break
result["sha256"] = digest.hexdigest()
print(json.dumps(result))
