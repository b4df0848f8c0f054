"""Switch transmit offloads off on the named interfaces (what `ethtool -K DEV tx off tso off gso off gro off` does).

Without this a capture on a veth pair shows unfinished checksums and segments larger than the MSS."""
import fcntl
import socket
import struct
import sys
import array

SIOCETHTOOL = 0x8946
SET_TX_CHECKSUM, SET_SG, SET_TSO, SET_GSO, SET_GRO = 0x17, 0x19, 0x1F, 0x24, 0x2C
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for name in sys.argv[1:]:
    for command in (SET_TSO, SET_GSO, SET_GRO, SET_TX_CHECKSUM):
        value = array.array("B", struct.pack("II", command, 0))
        request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
        try:
            fcntl.ioctl(sock, SIOCETHTOOL, request)
        except OSError as error:
            print(f"{name}: offload {command:#x}: {error}", file=sys.stderr)
