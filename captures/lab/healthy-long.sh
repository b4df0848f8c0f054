#!/bin/bash
# Connections that live long and are well: many requests on one kept-alive connection through HAProxy, more than are remembered of a flow;
# a Redis replica that acknowledges what nobody answers. Every capture here must stay without a finding above notice. About 50 s.
#                                                                                                              healthy-long.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need haproxy redis-server redis-cli curl
R=${1:-$CAPTURES/healthy}
S=10.224.26.2
mkdir -p "$R"
lab_begin

# --- one connection, 60 requests, each answered in 60 ms -------------------------------------------------------------
cat >"$TMP/app.py" <<'X'
import http.server, time
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        time.sleep(0.06)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), App).serve_forever()
X
spawn "$B" python3 "$TMP/app.py"
wait_port "$B" 8000
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
listen shop
  bind :80
  http-reuse always
  server a $S:8000"
wait_port "$P" 80
on "$P" curl -s -o /dev/null http://203.0.113.1/
long() { get "$C" "http://203.0.113.1/item/[1-60]"; }
record "$P" any "$R/102-haproxy-one-long-connection.pcap" "tcp port 80 or tcp port 8000" long

# --- a replica of Redis: REPLCONF ACK each second, a PING each ten --------------------------------------------------------
spawn "$B" redis-server --port 6379 --bind $S --save '' --protected-mode no --dir "$TMP"
wait_port "$B" 6379
replicated() {
    local replica
    spawn "$P" redis-server --port 6379 --bind 10.224.26.1 --save '' --protected-mode no --dir "$TMP" --replicaof $S 6379
    replica=$LAST
    sleep 12
    on "$C" redis-cli -h $S set a 1 >>"$TMP/load.log"
    sleep 22
    stop "$replica"
}
record "$B" eth0 "$R/103-redis-replica.pcap" "tcp port 6379" replicated
