"""A conversation socket in a process of its own that notes the moment of every frame: `python socket_peer.py
FORMAT SECONDS`. Prints its port, talks to one client, then prints the moments as JSON.

Plain sockets, so that nothing of a library's is measured. Moments are the machine's monotonic seconds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import select
import socket
import struct
import sys
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BYTES = {"pcm_16000": 640, "pcm_48000": 1920, "ulaw_8000": 160}


def frame(data: bytes) -> bytes:
    """One text message of a server."""
    size = len(data)
    head = bytes([0x81, size]) if size < 126 else struct.pack(">BBH", 0x81, 126, size)
    return head + data


def shake_hands(line: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += line.recv(4096)
    key = next(row for row in head.split(b"\r\n") if row.lower().startswith(b"sec-websocket-key:"))
    token = base64.b64encode(hashlib.sha1(key.partition(b":")[2].strip() + GUID).digest())
    line.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + token + b"\r\n\r\n"
    )


def messages(buffer: bytearray) -> list[int]:
    """Takes whole messages of the client off the buffer; their lengths."""
    found = []
    while len(buffer) >= 2:
        size, head = buffer[1] & 0x7F, 2
        if size == 126:
            if len(buffer) < 4:
                break
            size, head = struct.unpack(">H", buffer[2:4])[0], 4
        whole = head + 4 + size
        if len(buffer) < whole:
            break
        found.append(size)
        del buffer[:whole]
    return found


def main(fmt: str, seconds: float) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    line, _ = server.accept()
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    shake_hands(line)
    event = {"conversation_id": "c", "agent_output_audio_format": fmt, "user_input_audio_format": fmt}
    first = {
        "type": "conversation_initiation_metadata",
        "conversation_initiation_metadata_event": event,
    }
    line.sendall(frame(json.dumps(first).encode()))
    sound = base64.b64encode(bytes(range(1, 161)) * (BYTES[fmt] // 160)).decode()
    sent: list[float] = []
    arrived: list[float] = []
    buffer = bytearray()
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        due = began + 0.2 + len(sent) * 0.02 - time.monotonic()
        if due <= 0:
            audio = {"audio_base_64": sound, "event_id": 7}
            data = frame(json.dumps({"type": "audio", "audio_event": audio}).encode())
            sent.append(time.monotonic())
            line.sendall(data)
            continue
        readable, _, _ = select.select([line], [], [], min(due, left))
        if readable:
            now = time.monotonic()
            piece = line.recv(65536)
            if not piece:
                break
            buffer += piece
            # Audio frames are the long ones: the first frame of the client comes before any.
            arrived += [now for size in messages(buffer) if size > BYTES[fmt]]
    print(json.dumps({"sent": sent, "arrived": arrived}), flush=True)
    line.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
