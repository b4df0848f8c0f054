"""Writes the README.md of every directory below captures/rules, and of healthy/ and broken/, from the texts here.

readme.py CAPTURES-DIRECTORY          fails on a capture without a text, and on a text without a capture"""
import os
import sys

root = sys.argv[1]
SCRIPT = {
    **dict.fromkeys(("http-server", "http-bad", "http-response", "http-header", "service-greeting"), "http-faults.sh"),
    "http-gateway": "proxy-faults.sh",
    "http-keepalive": "proxy-faults.sh",
    "http-upstream": "proxy-faults.sh",
    "proxy-upstream": "proxy-faults.sh",
    "proxy-no": "proxy-faults.sh",
    "proxy-wrong": "proxy-faults.sh",
    "proxy-protocol": "proxy-faults.sh",
    "capture-lacks": "proxy-faults.sh",
    **dict.fromkeys(
        ("http-request-incomplete", "http-framing", "http-invalid", "http-rate", "http-expect", "http-redirect", "http-wrong", "websocket", "proxy-adds", "proxy-retries"),
        "http-more.sh",
    ),
    **dict.fromkeys(("dns-truncated", "dns-broken", "dns-search", "dns-serve"), "dns-more.sh"),
    "proxy-header": "proxy-protocol.sh",
    "connect": "connect.sh",
    "accept": "connect.sh",
    "capture": "capture-quality.sh",
    "tls-cert": "certificates.sh",
    "tls-chain": "certificates.sh",
    "tls-client": "certificates.sh",
    "cert-outage": "certificates.sh",
    **dict.fromkeys(("tls-version", "tls-no", "tls-sni", "tls-alpn", "tls-handshake"), "tls-offers.sh"),
    "tls": "wrong-protocol.sh",
    "http": "wrong-protocol.sh",
    "unexpected": "wrong-protocol.sh",
    "dns": "dns-faults.sh",
    "icmp": "link-faults.sh",
    "neighbor": "link-faults.sh",
    "duplicate": "link-faults.sh",
    "gateway": "link-faults.sh",
    "link": "link-faults.sh",
    "asymmetric": "path.sh",
    "reply-from": "path.sh",
    "return-path": "path.sh",
    "stateful": "path.sh",
    "pmtu": "path.sh",
    "reordering": "two-ends.sh",
    "corrupt": "corruption.sh",
    "ip-fragments": "fragments.sh",
    "idle-flow": "path.sh",
    "middlebox": "path.sh",
    **dict.fromkeys(("port-scan", "service-down", "syn-flood", "network-blackout", "link-flapping"), "wide.sh"),
    **dict.fromkeys(("health-check", "loss-storm", "mass-connect", "service-restart"), "fleet.sh"),
    **dict.fromkeys(("starttls", "both-sides", "tls-sni-missing", "tls-clienthello", "banner", "tls-slow"), "first-words.sh"),
    **dict.fromkeys(("upstream-hang", "response-stalled", "slow-response", "connection-pileup"), "transfer.sh"),
    **dict.fromkeys(("routing-loop", "pmtu-discovered", "port-reuse", "handshake-reset", "icmp-redirect", "ephemeral", "spurious"), "holdups.sh"),
    **dict.fromkeys(("window-limited", "rtt-high", "delayed-ack"), "holdups.sh"),
    **dict.fromkeys(("zero-window", "packet-loss", "loss-burst", "rto-unrecovered", "keepalive-probes"), "transfer.sh"),
}
SCRIPT["http-upload"] = "nginx-limits.sh"
SCRIPT.update(dict.fromkeys(("h2", "grpc"), "h2.sh"))
SCRIPT.update(dict.fromkeys(("login-refused", "server-error"), "database-errors.sh"))
SCRIPT["queries-held-up"] = "services.sh"
SCRIPT.update(dict.fromkeys(("tls-truncated", "connection-churn", "h2-concurrency"), "load-faults.sh"))
SOFTWARE = "HAProxy 2.6.12, nginx 1.22.1, Apache 2.4.71, OpenSSL 3.0.19, GnuTLS 3.7.9, Go 1.19.8, Node 20.20.2, Python 3.11.7, curl 7.88.1, Redis 7.0, OpenSSH 9.2, tcpdump 4.99, Linux 6.18"
SOFTWARE_OF = {
    "wide.sh": "nginx 1.22.1, Python 3.11.7, curl 7.88.1, tcpdump 4.99, Linux 6.18",
    "fleet.sh": "HAProxy 2.6.12, nginx 1.22.1, Python 3.11.7, curl 7.88.1, iptables, tcpdump 4.99, Linux 6.18",
    "first-words.sh": "vsftpd 3.0.3, Dovecot 2.3.19, Postfix 3.7.11, Mosquitto 2.0.11, RabbitMQ 3.10.8, PostgreSQL 15.18, MariaDB 10.11, HAProxy 2.6.12, nginx 1.22.1, OpenSSL 3.0.19, Python 3.11.7, curl 7.88.1, tcpdump 4.99, Linux 6.18",
}
# captures of a second script, by the rule
ALSO = {
    "http-gateway-error": "those about a queue, a certificate and the DNS by `gateway-reasons.sh`",
    "dns-servfail": "`a-proxy-cannot-resolve` by `gateway-reasons.sh`",
    "dns-slow": "`a-proxy-waits-for-an-address` by `gateway-reasons.sh`",
    "proxy-adds-latency": "those about an absent or silent backend by `absent-backend.sh`",
    "connect-timeout": "`a-proxy-waits-and-asks-another` by `absent-backend.sh`",
    "unexpected-protocol-on-port": "those with vsftpd, Dovecot, Mosquitto and RabbitMQ, and `amqp-to-nginx`, by `first-words.sh`",
    "service-greeting-error": "those with vsftpd, Mosquitto, RabbitMQ and IMAP by `first-words.sh`",
    "http-more.sh": "nginx 1.22.1, Apache 2.4.71, HAProxy 2.6.12, Node 20.20.2, Python 3.11.7, curl 7.88.1, tcpdump 4.99, Linux 6.18",
    "dns-more.sh": "dnsmasq 2.90, Unbound 1.17.1, dig 9.18, glibc 2.36, Python 3.11.7, curl 7.88.1, nginx 1.22.1, tcpdump 4.99, Linux 6.18",
}
SOFTWARE_OF = {"h2.sh": "HAProxy 2.6.12, nginx 1.22.1, Apache 2.4.71, nghttp2 1.52.0, gRPC 1.51.1 for Python, Go 1.19.8, Node 20.20.2, curl 7.88.1, tcpdump 4.99, Linux 6.18", "wide.sh": "nginx 1.22.1, Python 3.11.7, curl 7.88.1, tcpdump 4.99, Linux 6.18"}
SOFTWARE_OF["database-errors.sh"] = "PostgreSQL 15.18, MariaDB 10.11, Redis 7.0, Python 3.11.7, tcpdump 4.99, Linux 6.18"
SOFTWARE_OF["services.sh"] = "PostgreSQL 15.18, PgBouncer 1.18, Redis 7.0, Postfix 3.7.11, Python 3.11.7, tcpdump 4.99, Linux 6.18"
SOFTWARE_OF["load-faults.sh"] = "nginx 1.22.1, OpenSSL 3.0.19, curl 7.88.1, ab 2.3, Node 20.20.2, Python 3.11.7, tcpdump 4.99, Linux 6.18"
RULES = {}
# what stands below a table
NOTES = {"network-blackout": "A blackout of everything at once, one of an uplink, and their look-alikes: `captures/incidents/blackout`."}


def rule(name, text):
    RULES[name] = dict(line.strip().split(" | ", 1) for line in text.strip().splitlines())


rule("h2-preface-failed", """
nginx-400 | curl with prior knowledge, twice, to nginx without http2: 400
apache-400 | the same, Apache
go-400 | the same, Go
node-400 | the same, Node
grpc-to-go-http1 | a gRPC client, and a server of HTTP/1
silence | a server takes the preface and says nothing for 12 s
goaway-at-the-preface | PING instead of SETTINGS behind the preface: nghttpd answers GOAWAY
settings-never-confirmed | the client never confirms nghttpd's SETTINGS: GOAWAY after 10 s
http1-to-nghttpd | curl asks in HTTP/1, nghttpd speaks HTTP/2 only
not-accepted | HAProxy takes prior knowledge
not-http1 | HTTP/1 to Apache, 404
""")
rule("h2-goaway-error", """
too-many-pings | a scripted client pings every 0.3 s, as keepalive that is set too low does: gRPC's server answers ENHANCE_YOUR_CALM, too_many_pings
data-on-a-stream-that-is-none | DATA on stream 9, which was never opened: nghttpd answers PROTOCOL_ERROR
header-index-of-nothing | a header block refers to an entry that does not exist: HAProxy answers COMPRESSION_ERROR
not-graceful | nginx ends connections after four requests with NO_ERROR
""")
rule("h2-goaway-race", """
nginx-after-four-requests | h2load sends eight requests at once; nginx names the fourth as its last one and closes
not-one-by-one | the same server, one request at a time: nothing is under way
not-announced-in-two-steps | gRPC's server ends connections after 1.5 s in two steps
""")
rule("h2-flow-control-stalled", """
client-does-not-read | a scripted client asks nghttpd for 300,000 octets and never opens the window
not-a-slow-reader | a scripted client that opens it every few seconds
""")
rule("h2-concurrency-limited", """
nginx-four-at-once | Node has 24 requests for nginx, which permits four streams at once and answers each after 0.3 s
not-24-of-128 | the same where nginx permits 128
""")
rule("connection-churn", """
nginx-without-keepalive | ab sends 60 requests on two connections to nginx, which opens a connection to its backend for each
not-nginx-with-keepalive | the same with keepalive in nginx's upstream
""")
rule("tls-truncated-close", """
nginx-killed-while-sending | Python reads slowly; nginx is killed while a record waits half sent in its kernel: "EOF occurred in violation of protocol"
not-the-client-leaves | the same client leaves after 0.3 s, in the middle of a record
not-without-close-notify | a Python server closes twice without close_notify, between two records; curl has all it wants
""")
rule("h2-stream-reset", """
refused-above-the-limit | four requests before nginx could say that it takes two: two are refused
answer-cut-by-the-upstream | nginx's backend closes in the middle of its answer
call-given-up-at-its-deadline | gRPC calls with 2 s of patience, and a scripted server that says no more than SETTINGS
flood-of-resets | 300 requests, each reset at once, to nghttpd
not-a-watch-that-was-cancelled | a gRPC client cancels a stream of messages
not-a-download-that-was-cancelled | a client cancels a download while it flows
""")
rule("grpc-error-status", """
unavailable | a service in Python answers UNAVAILABLE once
six-of-ten | six of ten calls of one connection: critical
resource-exhausted-and-crash | RESOURCE_EXHAUSTED, then an exception that nobody caught (UNKNOWN)
no-such-method | UNIMPLEMENTED
nginx-502-to-a-call | nginx without its backend answers a call with a page: told as http-gateway-error, this rule is explained by it
through-nginx | nginx passes UNAVAILABLE on
not-the-applications-own | NOT_FOUND; UNAUTHENTICATED is a notice
not-a-health-check-nobody-implements | UNIMPLEMENTED for grpc.health.v1: a notice
""")
rule("http-server-error", """
backend-then-proxy | one of three backends behind a busy HAProxy answers 500, and when it is well again HAProxy itself does: two causes (made by `one-of-three.sh`)
behind-it-a-port-that-refuses | an application says 500 because its database refuses connections: told at the database (made by `one-of-three.sh`)
application-500 | an application in Python raises; the requests before and after it are answered
http2-behind-nginx | both legs, the client's in HTTP/2 and the backend's in HTTP/1 (made by `h2.sh`): told at the application's leg
one-in-three | six of 18 answers are 500: critical
behind-nginx | both legs, nginx passes the 500 on: told at the application's leg only
on-a-kept-connection | the second of three requests of one connection
not-404-401-and-400 | the application's own 404, 401 and 400
not-maintenance | 503 with Retry-After
not-a-check-that-fails | three answers to kube-probe are 500: a notice
""")
rule("http-bad-request", """
nginx-no-host | HTTP/1.1 without Host
apache-no-host | the same, Apache
haproxy-space-in-target | a space in the target
nginx-space-in-name | a space in a field's name
apache-space-in-name | a space between a field's name and the colon
haproxy-length-twice | two Content-Length fields that differ
nginx-no-request | a line that is no request: a notice
not-the-applications-own | the application's own 400 to a well-formed request
not-accepted | two requests, 200 and 404
""")
rule("http-upload-refused", """
nginx-client-max-body-size | client_max_body_size 16k: three uploads of 20,000 octets are answered 413, two of 1,000 pass
a-single-one | one of 20,000 octets: a notice
not-below-the-limit | uploads of 1,000 octets; one is answered 415 by the application
""")
rule("http-header-too-large", """
nginx-cookie | a cookie of 9,000 octets: nginx answers 400
apache-cookie | the same: Apache answers 400
haproxy-cookie | a cookie of 17,000 octets: HAProxy answers 400
python-cookie-431 | a cookie of 66,000 octets: 431
nginx-target-414 | a target of 9,000 octets: 414
answer-too-large-for-nginx | both legs: 12 kB of fields in the answer, nginx says 502
not-large-but-taken | a cookie of 7,000 octets is taken
not-large-answer-taken | 12 kB of fields in an answer, no proxy in front
""")
rule("http-response-truncated", """
length | an application closes after 9,000 of 50,000 octets
chunked | the same with chunks
nginx-file-shrank | nginx sends a file that is emptied meanwhile
behind-nginx | both legs: nginx passes on what it has, and closes
not-ended-by-close-head-304 | an answer whose end is the close, an answer to HEAD, 304
not-the-client-left | the client gives up in the middle of a download
""")
rule("service-greeting-error", """
postgresql-too-many-clients | max_connections is reached: 53300
postgresql-no-hba-entry | a user whom pg_hba.conf does not name, then one whom it names: a warning
postgresql-asked-for-tls-first | the refusal comes behind the answer to the request for TLS
redis-protected-mode | protected mode, no password
redis-max-clients | maxclients 1, the second client
sshd-max-startups | MaxStartups 1, the second client
mysql-too-many-connections | MySQL's error 1040 (a scripted server)
smtp-554 | an SMTP server that greets with 554 (scripted)
not-postgresql-answers | a login and a query
not-redis-refuses-a-command | NOAUTH and "unknown command": answers to commands
vsftpd-too-many-users | vsftpd with `max_clients=1`: 421
mosquitto-not-authorized | Mosquitto lets nobody in without a name, MQTT 3.1.1 and 5: a warning
rabbitmq-has-no-amqp-1.0 | a client of AMQP 1.0 at RabbitMQ without its plugin
imap-bye | BYE instead of a greeting (a scripted server)
not-imap-password-refused | a password that Dovecot refuses is an answer
""")
rule("login-refused", """
postgresql-wrong-password | three logins with a wrong password (SCRAM): 28P01
postgresql-unknown-database | three logins to a database that does not exist, behind a right password: 3D000
postgresql-role-limit | CONNECTION LIMIT 1, the second and third login of the user: 53300
mariadb-wrong-password | three logins with a wrong password: 1045
mariadb-unknown-database | three logins to a database that the user may not see: 1044
mariadb-user-limit | MAX_USER_CONNECTIONS 1, the second login of the user: 1226
mariadb-ping-without-password | `mariadb-admin ping` as a user who does not exist, three times: a warning
redis-no-password | GET and SET without the password that Redis wants: NOAUTH (made by `services.sh`)
redis-wrong-password | `redis-cli -a` with a wrong password: WRONGPASS (made by `services.sh`)
not-redis-ping-without-password | PING and INFO without a password, and libraries that say who they are before they log in: notices (made by `services.sh`)
not-haproxy-pgsql-check | HAProxy's `option pgsql-check` with a user to whose name there is no database: the check takes the server's first message for a sign of life
not-pg-isready-as-nobody | `pg_isready` as a user who does not exist, where a password is wanted and where none is
""")
rule("server-error-in-protocol", """
postgresql-statement-timeout | three statements that take longer than statement_timeout: 57014
postgresql-temporary-files-full | a sort that may not write more to the disk: 53400
postgresql-read-only | an update in a read-only transaction: 25006
mariadb-lock-wait | three connections wait in vain for a row that another one holds: 1205
redis-out-of-memory | SET beyond maxmemory with noeviction: OOM
redis-read-only-replica | SET at a replica: READONLY
not-postgresql-unique-violation | a row that exists already, a syntax error, a table that does not exist
not-mariadb-duplicate-key | the same in MariaDB
pgbouncer-pool-exhausted | two slow queries hold PgBouncer's pool of 2, four more are turned down after query_wait_timeout: 08P01 (made by `services.sh`)
postfix-relay-denied | a host sends four mails to a domain that Postfix does not relay to for it: 554 5.7.1 (made by `services.sh`)
not-pgbouncer-pool-busy-for-a-second | the same pool, busy for 1 s: everybody is served in the end (made by `services.sh`)
not-postfix-unknown-recipients | an address that does not exist, one recipient of two that is not relayed to, one such mail, and one that is taken: a notice (made by `services.sh`)
not-postfix-strangers-who-try | three public addresses whose mails are not relayed, seen at the server: notices (made by `services.sh`)
not-redis-wrong-type | a command for another type, a script that is not loaded, an unknown command
""")
rule("queries-held-up", """
postgresql-locked-table | a transaction keeps a table locked for 6 s while seven connections ask for it, one after the other: a notice, for nobody waited for 10 s
not-long-queries | six queries that take 2 to 5 s each, and end each for itself
not-jobs-that-begin-together | six queries of 3 s that begin, and end, together
not-ended-by-the-server | six long queries whose connections the server ends at one moment: errors, no answers
""")
rule("dns-no-answer", """
both-stopped-on-a-host-that-lives | two dnsmasq are stopped (SIGSTOP); the machine that both are on answers ARP (made by `dns-more.sh`)
glibc-retries | DROP in front of dnsmasq: glibc's stub asks twice, 2 s apart, and gives up; before and after it answers
dig | dig asks twice from two ports, 3 s apart
not-one-of-two-lost | A and AAAA from one port, one of both is lost; the repeat after 2 s is answered: `dns-slow`
not-two-servers-at-once | two servers are asked at once, one of them is dead
""")
rule("dns-resolver-failover", """
first-server-dead | resolv.conf with a dead first server: curl waits 1 s for each of four names
not-first-server-alive | the same resolv.conf, both servers alive
""")
rule("dns-outage", """
both-servers-dead | both dnsmasq behind DROP for six names; before and after they answer
not-one-zone | one zone has a dead upstream, names of others are answered in between: `dns-no-answer`
""")
rule("dns-servfail", """
a-proxy-cannot-resolve | nginx asks the DNS for the backend, gets SERVFAIL and answers 502
unbound-forwarder-refuses | Unbound, whose forwarder (dnsmasq) refuses, answers SERVFAIL; other names of it work
not-second-server-knows | the second server of resolv.conf has the answer: a notice
""")
rule("dns-refused", """
unbound-access-control | access-control refuses 203.0.113.8 and allows 203.0.113.9
not-allowed | the same question from the allowed address
""")
rule("dns-nxdomain", """
misspelt | curl and getent ask for bakcend.example.com
not-search-list | `search corp.example example.com`: the first candidate does not exist, the second one does
not-block-list | a block list's name and a reverse name that do not exist
""")
rule("dns-port-unreachable", """
no-server | dig and a small client ask a host on which no DNS server runs
not-late-answer | dig gave up after 1 s; the answer after 1.3 s draws port unreachable
""")
rule("http-request-incomplete", """
nginx-half-a-head | a head without its end: nginx closes after 3 s without a word
apache-half-a-head | the same: Apache answers 408
haproxy-half-a-head | the same: HAProxy answers 408
haproxy-half-a-head-on-the-second | the second request of a connection stops in its Host field: 408
half-a-body-and-nobody-moves | 21 of 5000 octets, then 11 s of silence on both sides (scripted server)
slowloris | 25 connections of one client with half a head each
not-slow-but-whole | a head in three pieces over 1.8 s, answered
not-the-client-left | the client closes after half a head
not-an-idle-connection | nothing was ever asked: HAProxy closes
not-refused-before-its-end | nginx answers 413 to an upload before its end
""")
rule("http-framing-conflict", """
apache-takes-both-lengths | Content-Length and Transfer-Encoding in one request: Apache answers 200
haproxy-takes-both-lengths | the same: HAProxy answers 200
answer-behind-nginx | an answer with both (scripted), which nginx passes on as 200
longer-than-its-length | 33 octets behind a Content-Length of 5 (scripted)
an-answer-nobody-asked-for | two answers to one request (scripted)
not-nginx-refuses-both-lengths | both in one request: nginx answers 400
not-pipelined | two requests at once, two answers
""")
rule("http-invalid-response", """
another-service | curl reaches a line protocol (scripted)
behind-nginx | nginx passes the octets on as HTTP/0.9: told at the backend's leg
behind-haproxy | HAProxy answers 502
node-http2-behind-nginx | Node speaks HTTP/2 without TLS, nginx asks in HTTP/1
a-head-that-breaks | a status line, then a field with NUL octets (scripted)
not-early-hints | 103, then 200 (scripted)
""")
rule("pool-saturated", """
haproxy-maxconn | 24 requests at once, three connections allowed (`maxconn 3`), 0.3 s each
apache-max | eight at once, two connections allowed (`max=2`), 0.6 s each
go-max-conns-per-host | 24 at once through Go's ReverseProxy with MaxConnsPerHost 3
an-application | a Go program that asks for a price by a path of its own for each page, through a pool of three
all-ask-the-same | as haproxy-maxconn, and all ask for one path: which request waited for which nobody can tell
not-all-are-with-the-backend | connections to spare: the backend takes 1.3 s for each of 24
not-a-rate-limit | nginx lets three requests a second pass (limit_req): they leave by the clock
not-as-many-clients | three connections, and three clients that ask again as soon as they are answered: nobody waits
not-what-it-was-asked-for | an application is slow by itself; its host asks another server all the while
""")
rule("proxy-adds-latency", """
nginx-waits-for-a-silent-backend | the second backend's firewall swallows the SYN: 2 s later the first one is asked
nginx-waits-for-an-absent-backend | nobody answers ARP for the second backend: 2 s later the first one is asked
haproxy-waits-for-an-absent-backend | the same at HAProxy, every second request
haproxy-queue-beside-an-absent-backend | the requests wait in a queue (maxconn 1); only the health check asks for the backend that is not there
haproxy-queue | four clients, one connection allowed (maxconn 1), 0.8 s each
nginx-asks-for-leave-first | auth_request to a server that takes 1.6 s
haproxy-script-keeps-the-answer | a Lua action sleeps 1.5 s before the answer goes out
not-the-backend-is-slow | the backend takes 2.1 s
not-a-slow-upload | nginx collects an upload of 2.5 s before it asks
not-a-slow-body | the backend's body takes 2 s, nginx collects it
""")
rule("proxy-retries-hide-failure", """
refused | the first backend refuses, the backup answers: below `connect-refused`
never-answered | the first backend drops the SYN for 1 s, the backup answers
a-post-sent-twice | the first backend reads a POST and closes, nginx sends it to the backup: below `http-upstream-closed-before-response`
not-hidden | no second attempt: the client gets 502
not-needed | the backend answers
""")
rule("http-rate-limited", """
nginx-429-and-nobody-waits | limit_req with status 429 and Retry-After 30; eight requests within a second
nginx-503-by-default | limit_req with its default status: six of ten answers
once | one 429 among three answers: a notice
not-maintenance | 503 with Retry-After to everything
not-a-login | 401
""")
rule("http-expect-100-stall", """
python-http-1.0 | curl waits 1 s, the server of Python's library speaks HTTP/1.0: a notice
refused-with-417 | 417 (scripted): a notice
not-given-leave | 100 Continue comes
not-answered-at-once | nginx answers 404 at once
""")
rule("http-redirect-loop", """
https-told-to-who-has-it | nginx ends TLS and sends no X-Forwarded-Proto; the application wants https, 13 times
backend-leg-alone | the same, without the leg with TLS: a warning
to-itself | /same leads to /same, ten times
not-where-https-answers | nine times in the clear, and each time https gives the page (made by `one-of-three.sh`)
there-and-back | /old leads to /new and back
not-https-and-then-an-answer | http leads to https, which is answered
not-a-way-with-three-turns | two redirects, then an answer
not-a-check-that-does-not-follow | a check gets the same redirect six times, 0.8 s apart
""")
rule("http-wrong-vhost", """
421 | nginx whose default server returns 421
an-address-that-has-other-sites | two paths are 404 at one address and 200 at the other
not-a-page-that-is-missing | one path of several is 404
""")
rule("websocket-upgrade-failed", """
nginx-drops-upgrade | proxy_pass without proxy_set_header Upgrade, both legs
client-leg-alone | the same, the client's leg alone
no-such-path | 404
not-passed-on | nginx passes Upgrade on, 101 comes back
not-a-login | 401
""")
rule("dns-truncated-no-tcp", """
tcp-is-refused | six TXT records of 200 octets, a firewall resets TCP/53
tcp-is-dropped | the same, the firewall drops it
tcp-is-never-tried | dig +ignore
not-over-tcp-it-works | dig asks again over TCP
not-a-larger-buffer | dig +ignore, then a question with a buffer of 4096 octets
""")
rule("dns-broken-aaaa", """
curl-happy-eyeballs | IPv6 is dropped, curl goes to IPv4 after 200 ms, three times
python-one-after-the-other | the same with a client that waits 3 s
not-alive | IPv6 answers
not-once | one attempt
""")
rule("dns-search-amplification", """
glibc-ndots-5 | four search domains, ndots:5, two names: a notice
not-with-a-final-dot | the same names with a final dot
not-a-name-that-does-not-exist | the whole list ends with NXDOMAIN
""")
rule("dns-serve-stale", """
unbound | serve-expired and ede, the server behind is gone: a notice
not-fresh | the server behind answers
""")
rule("dns-slow", """
a-proxy-waits-for-an-address | nginx asks the DNS for the backend and waits 1.4 s
curl-waits | an answer after 1.3 s (dns.py); curl connects as soon as it comes
not-fast | the same server without delay
""")
rule("dns-stale-address", """
nginx-keeps-the-old-address | nginx resolved the name in proxy_pass at start; the name moves (dnsmasq) and the old address is behind DROP; curl on the proxy asks again and works
not-valid-target | the same without a move: the address behind DROP is the name's
""")
rule("icmp-admin-prohibited", """
reject-on-the-server | iptables REJECT --reject-with icmp-admin-prohibited on the server
reject-on-the-router | REJECT --reject-with icmp-net-prohibited on the router
reject-ipv6 | the same over IPv6
not-established | the rule comes while a connection is open and goes again: the connection goes on, a notice at most
""")
rule("icmp-port-unreachable", """
reject-default | iptables REJECT without an option
udp-no-listener | datagrams to a UDP port on which nothing listens: a warning
not-closed-port | a closed TCP port: RST
not-traceroute | datagrams with rising TTL to ports from 33434 on
""")
rule("icmp-destination-unreachable", """
host-behind-the-router | nobody has 10.224.26.77: the router asks three times by ARP and tells the client after 3 s
route-unreachable | an `unreachable` route on the router
not-prohibited | a `prohibit` route: `icmp-admin-prohibited`
""")
rule("neighbor-unresolved", """
a-backend-that-has-gone | nginx's backend answers twice, then its address is taken away: three requests get 502
not-a-client-that-left | a client's address is taken away while it is served: the router asks for it in vain, nothing is broken
no-such-host | curl twice to an address of the own link that nobody has
on-the-router | seen on the router, between the SYNs of the client and its own ARP
pod-gone | a pod that is gone, with half of a service's connections still dealt out to it, as its node sees it (captures/lab/containers.sh)
not-pod-rejects | the pod is there and answers for its link address; its own firewall says "host unreachable" (captures/lab/containers.sh)
not-sweep | twelve addresses that nobody has, at once
not-answered-late | the address appears after the second question
""")
rule("duplicate-address", """
two-answers | two hosts have 172.31.5.9: each question is answered twice
announced-by-turns | both announce it by turns (arping -U)
not-takeover | a backup takes over once: `gateway-moved`
""")
rule("gateway-moved", """
backup-takes-over | the gateway's address moves to another machine (arping -U) while a connection waits
not-by-turns | two machines announce it by turns: `duplicate-address`
""")
rule("link-restart-signs", """
three-hosts-come-back | three hosts' links come up, each announces its address (arping -U)
spanning-tree-changes | a port of a Linux bridge goes and comes with spanning tree on
not-one-host | one host announces its address twice
""")
rule("http-gateway-error", """
cut-to-96-octets | nginx's backend has gone, and the snaplen leaves the status line of its 502 only
not-cut-to-96-octets | the same while the backend is there: two answers of which the status line is left
nginx-gets-no-answer-of-the-dns | nginx asks the DNS for the backend, gets no answer for 2 s and answers 502
haproxy-queue-timeout | one connection allowed, and the backend takes 2.5 s: two requests get 503 after `timeout queue`, the backend was never asked
nginx-refuses-the-certificate | nginx with `proxy_ssl_verify` and another CA: it closes behind the handshake and answers 502
not-a-certificate-it-accepts | the same with the right CA
nginx-502 | the client leg alone: nginx says 502 for a refused backend
nginx-504 | the client leg alone: nginx says 504 after 2 s
apache-503 | the client leg alone: Apache says 503 for a refused backend
haproxy-503 | the client leg alone: HAProxy's page of 107 octets
not-backend-says-503 | HAProxy passes the backend's own 503 on: the backend leg carries it
not-answered | two requests, answered
""")
rule("http-upstream-closed-before-response", """
nginx-502 | the backend takes the request and closes; nginx says 502
haproxy-502 | the same behind HAProxy
second-request | the first request of the connection was answered, the second closed on
not-answered | two requests, answered
""")
rule("http-upstream-reset-before-response", """
nginx-502 | the backend takes the request and resets; nginx says 502
second-request | the first request of the connection was answered, the second reset
not-answered | two requests, answered
""")
rule("http-keepalive-race", """
scripted-client | a client writes 10 ms after the server closed the idle connection, and draws a RST; scripted, because nginx and HAProxy notice a close that has arrived
not-after-the-close | nginx asks 0.6 s after the close, on a new connection
""")
rule("proxy-upstream-connect-failed", """
nginx-refused | nothing listens: 502, two clients, and requests that work
nginx-timeout | SYNs are dropped: 504 after 2 s
haproxy-refused | HAProxy says 503
sidecar | `-i any` in a pod whose sidecar (HAProxy behind REDIRECT) finds the application's port closed
apache-refused | Apache says 503
not-answered | two requests, answered
not-backend-says-503 | the backend says 503 itself
""")
rule("proxy-no-server-available", """
haproxy-checks-failed | both servers are DOWN after failed checks: 503 at once
not-one-refused-each-time | nginx tries for each request
""")
rule("proxy-upstream-timeout", """
nginx-504 | the backend never answers: 504 after 2 s
haproxy-504 | the same behind HAProxy
apache-502 | the same behind Apache, which says 502 and changes path and Host
not-client-left-first | the client leaves after 1 s
""")
rule("proxy-upstream-closed", """
haproxy-tcp | HAProxy passes octets on; the backend closes without an answer
not-answered | two requests, answered
""")
rule("proxy-wrong-upstream", """
port-80-instead-of-8080 | HAProxy goes to port 80; --expect-upstream (in the .upstream file) says 8080
not-asked-for | the same capture with the port that is used
""")
rule("proxy-protocol-mismatch-upstream", """
nginx-tls-to-http-port | nginx speaks TLS to a plain port: 502
haproxy-tls-to-http-port | the same behind HAProxy: 503
not-same-protocol | two requests, answered
""")
rule("capture-lacks-backend-leg", """
nginx-502 | the client leg alone: 502
haproxy-503 | the client leg alone: 503
not-answered | the client leg alone, answered
""")

rule("accept-queue-overflow", """
backlog-1-near-client | listen(1), accept() never called, 6 clients: 2 connect and get no answer, 4 repeat their SYN; seen at the client
backlog-1-on-the-server | the same seen on the server: the SYNs do arrive
backlog-1-first-lab | the same from the first lab (other addresses)
application-stands-still | listen(2), accept() never called, a client every 0.7 s: three connect and get no answer, then SYNs are dropped, and nothing more comes from the server
not-one-dead-port | 3 SYN streams to a port behind DROP go unanswered while another port of the host works: `connect-timeout`
not-busy-but-fine | 8 connections at once, all answered
""")
rule("capture-clock-jump", """
backwards-2s | second half of a real capture moved 2 s into the past (edited)
forwards-1h | second half moved 1 h into the future; the TSval clocks of three flows did not jump (edited)
clock-runs-double | the capture clock runs twice as fast as the TSval clocks of three flows (edited)
not-idle-for-7s | three flows pause for 7 s; TSval and capture clock agree
not-order-off-by-microseconds | neighbouring records swapped, less than 0.9 ms apart (edited)
not-steady | the unedited original
""")
rule("capture-duplicate-packets", """
bridge-any | `-i any` on a bridge between two hosts: every packet on both ports
router-any | `-i any` on a router: every packet in and, with TTL-1, out
not-one-interface | the same bridge, one port
not-retransmissions | real loss: same sequence numbers again, other IP-ID, later
""")
rule("capture-ends-early", """
request-pending | stopped 0.7 s after a request that is answered after 6 s
syn-pending | stopped 1.0 s after the first of two SYNs
response-running | stopped in the middle of a slow response
rotated-away | file ends in the middle of a download (edited: tail removed)
not-all-finished | every connection is closed when the file ends
not-a-hang-of-12s | a request unanswered for 12 s while others are served: long enough for a judgement
""")
rule("capture-file-damaged", """
cut-inside-a-record | file ends inside a record (copied too early)
insane-record-length | a record claims 2 GiB
zeros-in-the-middle | 400 octets of zeros in the middle
pcapng-cut.pcapng | pcapng, ends inside a block
not-ends-on-a-record-border | shorter, but whole
not-whole | the original
not-pcapng-unknown-block.pcapng | an unknown block type is legal and stepped over
""")
rule("capture-filter-narrow", """
one-port.pcapng | captured by dumpcap with `tcp port 80`; the file names that filter
tcp-only | captured with `tcp`; one port never answers (a firewall drops its SYNs)
not-all-well | captured with `tcp`; every connection is answered, nobody misses ICMP
not-narrow | ARP, ICMP echo, DNS and two TCP ports are in the file
""")
rule("capture-has-nothing", """
quiet-interface | header and no packet, Ethernet
quiet-interface-any | header and no packet, SLL2
not-normal | a few healthy connections
hung-before | five requests hang since before the capture; `ss -tnpoi` beside it shows them, the packets are of others
not-an-idle-pool | the same once they are cut: five connections idle after an answer
""")
rule("capture-offload-artifacts", """
veth-tso-and-checksums | TSO and checksum offload on: segments of 7 to 14 kB, unfinished checksums
veth-any | the same with `-i any`
checksums-unfinished-on-sent | MSS-sized, bad checksums only on what this host sent (edited)
not-mss-sized | offloads off
not-jumbo-frames | MTU 9000, MSS 8960: large segments that fit the MSS
""")
rule("capture-one-sided", """
requests-only | captured with `src net CLIENTS`: three downloads, acknowledgements advance
answers-only | captured with `dst net CLIENTS`
one-download-data-only | one flow with 28 data packets, one direction (edited)
not-both | both directions
""")
rule("capture-packet-loss", """
data-dropped-acks-kept | every 7th data frame removed, its acknowledgement kept (edited)
ring-too-small | real: `--immediate-mode -i any` with the default 2 MiB ring; tcpdump counted 255 of 348 packets dropped by the kernel
not-real-loss-near-server | real loss behind the capture point: retransmitted
not-real-loss-near-client | real loss before the capture point: holes that are filled later
not-complete | nothing is missing
""")
rule("capture-snaplen-truncated", """
96-octets | `-s 96`: HTTP and TLS cut
68-octets-any | `-s 68` on `any`: TCP headers only
not-full | whole packets
not-short-packets | `-s 96`, but no packet is longer
""")
rule("capture-starts-mid-stream", """
downloads-already-running | tcpdump started while three downloads ran
head-cut-off | first sixth of a capture removed (edited)
not-from-the-syn | every connection from its SYN
""")
rule("client-abandoned", """
not-redis-workers-that-wait | five BLPOP on a Redis that answers others, given up after 4 s: a notice (made by `database-errors.sh`)
curl-gives-up-after-2s | `curl -m 2`, twice, against a server that needs 6 s
reset-after-3s | the client aborts with RST after 3 s without one octet
mid-response-after-5s | 3 kB of 100 kB came, then `curl -m 5` gave up
not-half-close-nc | `nc -N`: FIN after the request, the answer still comes and is acknowledged
not-slow-but-answered | answered after 2.5 s
""")
rule("closed-before-request", """
accept-then-close | accept() and close(), two clients
accept-then-close-ipv6 | the same over IPv6
accept-then-reset | RST 0.2 s after the handshake, client silent
haproxy-connection-reject | `tcp-request connection reject`: HAProxy 2.6 sends RST; in the second flow the GET crosses it on the wire
haproxy-backend-dead | mode tcp, backend refuses, `retries 0`: FIN at once (client leg only)
not-client-check-closes-first | the client connects and closes
not-answered | request and answer
""")
rule("closed-without-answer", """
http-request | GET, FIN 50 ms later, 0 octets, two clients
http-request-ipv6 | the same over IPv6
redis-host-guard | HTTP to Redis: closed without a word because of its Host guard
unknown-protocol | octets that nobody recognises, FIN
not-idle-keepalive-close | Apache closes an idle, answered connection after 5 s
not-second-request-unanswered | first request answered, second not: another rule's case (bytes were served)
not-client-closed-first | the client gave up after 0.3 s
not-answered | request and answer
""")
rule("connect-refused", """
closed-port | RST from the kernel, two clients; the same host answers on port 80
closed-port-ipv6 | the same over IPv6
nginx-upstream | both legs: nginx answers 502
firewall-tcp-reset | iptables `REJECT --reject-with tcp-reset`: identical on the wire
kubernetes-endpoint | `-i any` on a node: a service address is dealt out to two pods by DNAT, the program of one has ended
not-restart-window | one refusal in a restart of 2 s, then fine: notice at most
not-happy-eyeballs | AAAA refused, A works at once
not-icmp-port-unreachable | iptables REJECT by ICMP 3/3
not-answered | request and answer
""")
rule("reordering", """
overtaken-on-the-way | three transfers through a relay that lets segments overtake each other (captures/lab/two-ends.sh, the client's end)
not-the-captures-own | the same without a fault, every tenth segment of the server recorded behind its acknowledgment (captures/lab/generate/queues.py)
""")
rule("connect-slow", """
first-syn-lost | three connections open after 1 s, their first SYN was dropped
two-syns-lost | opens after 2 s
syn-ack-lost | seen at the server: the first SYN-ACK was dropped on the way back
not-high-rtt | RTT 0.7 s, nothing is repeated (generated: the kernel of the lab has no delay queue)
not-fast | opens at once
""")
rule("connect-timeout", """
a-proxy-waits-and-asks-another | HAProxy gives up a silent backend after 2 s and asks another
firewall-drop-near-client | DROP on the server, curl gives up after 9.5 s; port 80 of the host answers before and after
firewall-drop-near-server | the same seen on the server: SYNs arrive, nothing leaves
firewall-drop-ipv6 | the same over IPv6, 7 SYNs over 7.1 s
dead-address | nobody has 10.224.26.99, no ICMP comes back
linux-schedule-38s | 0 1 2 3 4 5 7 11 19 35 s: the schedule of Linux 6.5 and newer
still-waiting-at-the-end | the capture ends on the seventh SYN, 7 s after the first
nginx-upstream | both legs: nginx answers 504 after `proxy_connect_timeout` 9 s
not-capture-ended-early | two SYNs, 1 s apart, then the file ends
not-one-sided | SYNs without SYN-ACK because only one direction was captured; the connections work
not-refused | RST
not-icmp-admin-prohibited | ICMP 3/13
""")
rule("half-closed-stuck", """
server-never-closes | client FIN acknowledged, the server never closes: 62 s until other traffic ends the file
client-gone | the same, the client's process is gone (FIN_WAIT2 reaped by the kernel after 60 s), seen at the server
not-still-sending | after the client's FIN the server sends a line each 5 s for 65 s, then closes
""")
rule("tls-cert-expired", """
curl-tls12 | curl, TLS 1.2: alert 45
openssl-tls13 | s_client, TLS 1.3: 45 in the clear, the certificate is sealed
go-expired-intermediate | the leaf is fine, the intermediate sent with it has expired: Go says 42
node-tls12-leaves | Node finishes the TLS 1.2 handshake and leaves without a request
not-clients-accept | `curl -k` and others accept the expired certificate
not-good | a valid certificate
""")
rule("tls-cert-expiring-soon", """
very-soon | the certificate ends in less than three days
soon | the certificate ends in less than 14 days: a notice
not-short-lived | a certificate of few days by design, in the middle of its life
""")
rule("tls-cert-not-yet-valid", """
curl-tls12 | a certificate from the future: curl says 42
java-tls12 | the same with Java
clients-clock-slow | a valid certificate and clients whose clock is slow
not-clients-accept | clients accept the certificate from the future
""")
rule("tls-cert-untrusted", """
curl-unknown-ca | a certificate of a CA that curl does not know: 48
openssl-self-signed-tls13 | a self-signed certificate in TLS 1.3: 48 in the clear
go-unknown-ca | the unknown CA with Go: 42
not-clients-accept | clients accept the self-signed certificate
""")
rule("tls-cert-name-mismatch", """
curl-tls12 | curl asks for a name that the certificate does not hold
go-tls12 | the same with Go
java-tls12 | the same with Java: 46
not-clients-accept | clients accept the other name
""")
rule("tls-cert-rejected", """
go-tls13 | Go, TLS 1.3: a sealed record of 19 octets instead of Finished
java-tls13 | Java, TLS 1.3: a sealed record of 35 octets
node-tls13-says-nothing | Node, TLS 1.3: a FIN instead of Finished, a warning of medium confidence
beside-clients-that-say-why | curl, Go, s_client, Java and Node at one server: those that say why lend their reason
not-good | a valid certificate
not-client-certificate-missing | the server wants a client certificate: the client's Finished comes first
""")
rule("cert-outage", """
every-client-expired | curl, Go, s_client, Java and Node in TLS 1.2 at one server whose certificate expired two hours before
sealed-beside-readable | TLS 1.2 and 1.3: a sealed refusal belongs to those that say why
issuer-unknown-tls13 | TLS 1.3, an authority that nobody knows: 48 in the clear, others sealed
renewed-in-the-end | four clients refuse, the certificate is replaced and loaded, two are served: over
two-nodes | two servers of one name send the same expired certificate
not-one-client | five programs on one host: `tls-cert-expired`
not-a-clock | the certificate is good, one client's clock is wrong: `tls-cert-not-yet-valid`
not-without-a-reason | five sealed refusals, nobody says why: `tls-cert-rejected`
not-one-knows-the-intermediate | one client accepts what three refuse: `tls-chain-incomplete`
""")
rule("tls-chain-incomplete", """
one-knows-the-intermediate | curl, Go and Java refuse a certificate that comes without its intermediate, a curl that knows it is served: medium confidence
beside-a-server-that-sends-it | the same, and another port sends the intermediate: high confidence
not-full | the server sends the intermediate
not-nobody-knows-the-issuer | an authority that nobody knows: `cert-outage`
not-one-kind-lacks-the-authority | a private authority: curl does not know it, three times, another curl does: `tls-cert-untrusted`
""")
rule("tls-client-cert-required", """
curl-tls12 | HAProxy with `verify required`, curl without a certificate: alert 40
curl-tls13 | the same in TLS 1.3: all is sealed, the lengths tell it
go-and-java-tls13 | Go and Java (41 octets instead of 25) without a certificate
at-go-tls12 | Go as the server, curl without a certificate: 42
at-go-tls13 | the same in TLS 1.3
at-apache-tls12 | Apache with `SSLVerifyClient require`: 40
at-apache-tls13 | the same in TLS 1.3
not-good-tls12 | the client sends a good certificate
not-good-tls13 | the same in TLS 1.3
at-nginx-tls12 | nginx with `ssl_verify_client on`: 400 inside TLS and a close, four times; a client with a certificate is served
not-optional-at-nginx-tls12 | `ssl_verify_client optional`: clients without a certificate are served and close themselves
not-optional | `verify optional`: six clients without a certificate are served
""")
rule("tls-client-cert-rejected", """
expired-tls12 | the client's certificate expired an hour before: alert 45
unknown-tls12 | the client's certificate is from an authority that HAProxy does not know: 48
at-go-tls12 | Go as the server, a certificate from an authority that it does not know
at-go-tls13 | the same in TLS 1.3
at-apache-tls12 | Apache with `SSLVerifyClient require`, a certificate that expired
at-apache-tls13 | the same in TLS 1.3
not-good-at-others-tls12 | Go and Apache get a good certificate
not-good-at-others-tls13 | the same in TLS 1.3
expired-tls13 | the same in TLS 1.3: a sealed certificate, then a sealed record as long as an alert
unknown-tls13 | the same with the unknown authority
not-good-tls12 | the client sends a good certificate
not-good-tls13 | the same in TLS 1.3
not-missing-tls12 | the client sends none: `tls-client-cert-required`
not-missing-tls13 | the same in TLS 1.3
""")
rule("http-to-tls-port", """
nginx | 400 "The plain HTTP request was sent to HTTPS port", two clients
nginx-with-control | the same and one TLS client that works
nginx-at-the-client | one request, seen at the client
apache | 400 "speaking plain HTTP to an SSL-enabled server port"
go | `HTTP/1.0 400`, "Client sent an HTTP request to an HTTPS server."
haproxy-closes-with-control | 0 octets and FIN; a TLS client works on the same port
openssl-closes-with-control | s_server: 0 octets and FIN; a TLS client works
node-closes-with-control | 0 octets and FIN; a TLS client works
nginx-proxy-to-nginx-tls | both legs: `proxy_pass http://` to a TLS port, the 400 page passes through
not-https-ok | TLS
not-http-ok | HTTP on an HTTP port
not-proxy-header | the first octets are a PROXY header: `proxy-header-to-tls-port`
""")
rule("idle-timeout-close", """
apache-5s | KeepAliveTimeout 5: FIN 5.0 s after the answer (two connections)
node-5s | keepAliveTimeout 5 s of Node 20: FIN after 6.0 s
nginx-75s | keepalive_timeout 75 s: FIN after 75.0 s
nginx-websockets-5s | both legs of nginx with proxy_read_timeout 5s: three WebSockets end after 5 s without an octet
not-websockets-that-say-goodbye | the server sends a Close frame after 4 s and closes; nginx passes both on
not-websockets-the-client-leaves | the clients close after 3 s
not-request-outstanding | FIN 5 s after a request that was never answered
""")
rule("lb-health-check-noise", """
haproxy-tcp-check-2s | SYN, SYN-ACK, RST+ACK to two servers, every 2 s, seen at the server
haproxy-tcp-check-2s-on-the-balancer | one server, `-i any` on the balancer
haproxy-http-check-404 | `option httpchk`, answered 404, every 2 s
not-users-at-irregular-times | five requests of one user at irregular times
""")
rule("proxy-header-bad-checksum", """
nginx-accepts | wrong CRC32C, answered 200: warning
apache-accepts | the same
haproxy-resets | wrong CRC32C, RST: critical
not-right-nginx | right CRC32C
not-right-haproxy | right CRC32C
not-right-with-many-tlvs | right CRC32C among ALPN, AUTHORITY, UNIQUE_ID, NOOP and SSL
not-haproxy-sender-crc | HAProxy itself as sender, `proxy-v2-options crc32c`
""")
rule("proxy-header-client-unknown", """
v1-unknown-nginx | `PROXY UNKNOWN` carries a real request, 200
v1-unknown-haproxy | the same
v1-unknown-apache-closes | Apache closes on UNKNOWN
v1-unknown-addresses-nginx | UNKNOWN followed by addresses that must be ignored
v2-local-nginx | command LOCAL carries a real request, 200
v2-local-haproxy | the same
v2-unspec-nginx | PROXY with family UNSPEC, 200
v2-unspec-apache-closes | Apache closes on UNSPEC
not-local-health-check | HAProxy's own checks: LOCAL, then RST, every 2 s to two ports
not-local-then-close | LOCAL, then FIN, three times
not-known-client | TCP4 header
""")
rule("proxy-header-duplicated", """
two-hops-add-one-each | HAProxy in front of HAProxy, both with send-proxy-v2
v2-v2-nginx | two v2 headers, 400
v1-v1-nginx | two v1 headers, 400
v1-v2-haproxy | v1 then v2, 400
v2-v1-haproxy | v2 then v1, 400
v2-v2-apache | two v2 headers, 400
two-balancers | HAProxy, then a second HAProxy without accept-proxy, then nginx with TLS: both hops add one
not-two-balancers-accept-proxy | the second balancer consumes the first header
not-one-header-nginx | one header
not-one-header-haproxy | one header
""")
rule("proxy-header-fragmented", """
v2-nginx | v2 in two segments 0.1 s apart: FIN
v2-haproxy | the same: RST
v2-haproxy-short-pause | 3 ms apart: RST
v2-apache | the same: accepted (warning)
v1-nginx | v1 in two segments: FIN
v1-haproxy | the same: RST
v1-apache | the same: accepted (warning)
v2-then-fin-nginx | the sender ends the stream inside the header
not-split-request-nginx-v2 | whole header, then a request in two segments
not-split-request-haproxy-v1 | the same with v1
not-header-with-half-a-request | header and half a request in one segment
""")
rule("proxy-header-from-untrusted", """
v1-nginx | 10.224.26.1 is the usual proxy; 198.51.100.23 sends its own header, claims 10.0.0.1 and is served (404)
v2-nginx | the same with v2, 200
not-usual-proxy | only the usual proxy
""")
MALFORMED = {
    "v2-version-1": "version nibble 1",
    "v2-command-2": "command 2",
    "v2-family-0x91": "family 0x91",
    "v2-length-9": "length 9 for TCP4 (12 needed)",
    "v2-tlv-overrun": "a TLV longer than the header",
    "v2-truncated": "says 84 octets, sends 12, then silence",
    "v1-lf-only": "ended by LF without CR",
    "v1-address-1.2.3": "address `1.2.3`",
    "v1-too-long": "more than 107 octets",
    "v1-double-space": "two spaces",
    "v1-port-70000": "port 70000",
    "v1-port-leading-zero": "port `053002`",
    "v1-family-mismatch": "TCP4 with IPv6 addresses",
    "v1-missing-port": "no destination port",
    "v1-lower-case": "`proxy` in lower case (may be unrecognisable: hard case)",
}
OUTCOME = {
    "nginx": {"v2-command-2": "accepts", "v2-family-0x91": "accepts", "v2-tlv-overrun": "accepts", "v1-address-1.2.3": "accepts", "v1-port-leading-zero": "accepts", "v1-family-mismatch": "accepts"},
    "haproxy": {"v1-address-1.2.3": "accepts", "v1-port-70000": "accepts", "v1-port-leading-zero": "accepts"},
    "apache": {"v1-lf-only": "answers 400"},
}
lines = []
for form, text in MALFORMED.items():
    for receiver, closes in (("nginx", "closes (FIN)"), ("haproxy", "resets (RST)"), ("apache", "closes (FIN)")):
        if receiver == "apache" and form not in ("v2-version-1", "v2-length-9", "v1-lf-only", "v2-family-0x91"):
            continue
        lines.append(f"{form}-{receiver} | {text}; {receiver} {OUTCOME[receiver].get(form, closes)}")
VALID = {
    "v2-noop": "NOOP TLV", "v2-many-tlvs": "CRC32C, ALPN, AUTHORITY, UNIQUE_ID, NOOP, SSL with subs", "v2-aws": "AWS 0xEA VPC endpoint id",
    "v2-ssl": "SSL TLV", "v2-unix": "UNIX addresses, 216 octets", "v2-ok6": "TCP6", "v1-ok": "TCP4", "v1-ok6": "TCP6",
}
for form, text in VALID.items():
    lines.append(f"not-{form}-nginx | valid: {text}")
for form in ("v2-many-tlvs", "v2-aws", "v1-ok6"):
    lines.append(f"not-{form}-haproxy | valid: {VALID[form]}")
lines += ["not-fragmented-nginx | well-formed, but in two segments", "not-fragmented-haproxy | well-formed, but in two segments"]
rule("proxy-header-malformed", "\n".join(lines))
rule("proxy-header-missing", """
nginx-tls | three flows through HAProxy with a header work; three straight ones draw RST
nginx-http | the same on plain HTTP: FIN
apache-tls | the same: FIN
apache-http | the same: FIN
haproxy-tls | the same: RST
haproxy-http | the same: RST
send-proxy-removed | both legs: HAProxy is restarted without send-proxy-v2, three connections before work, six after fail
not-sni-rejected | a TCP proxy refuses one SNI and serves another; no PROXY header anywhere
not-closed-for-another-reason | closes without an answer; no sibling with a header
not-header-present | three flows with a header, all work
""")
rule("proxy-header-to-http-port", """
nginx-v2 | both legs, three clients: 400 (sometimes before the GET is there)
nginx-v1 | the same with v1
nginx-v2-with-control | the same and one direct request that gets 200
apache-v2 | 400
apache-v1 | 400
haproxy-v2 | 400
go-v2 | 400
curl-v1-apache | curl --haproxy-protocol as the sender, backend leg only
not-accepted-nginx-v2 | `listen … proxy_protocol`
not-accepted-nginx-v1 | the same with v1
not-accepted-apache-v1 | RemoteIPProxyProtocol On
not-nginx-ssl-plain-400 | nginx with TLS answers the same plaintext 400: `proxy-header-to-tls-port`
""")
rule("proxy-header-to-other-service", """
redis-waits-for-a-line | HAProxy puts a version 2 header in front of Redis, which says nothing at all
not-redis-waits-for-an-entry | no header: clients wait for an entry of a list (BLPOP) and give up
redis-v1 | `-ERR unknown command 'PROXY'`, then PONG: clients see one answer too many
redis-v1-inline | the same with an inline command
sshd-v1 | banner, "Invalid SSH identification string.", RST
sshd-v2 | the same
smtp-v1 | greeting, then 500 for the header (Python smtpd)
smtp-v2 | greeting, then several 500
not-redis-behind-accept-proxy | HAProxy with accept-proxy in front of Redis
not-sshd-behind-accept-proxy | HAProxy with accept-proxy in front of sshd
""")
rule("proxy-header-to-tls-port", """
nginx-v2 | both legs, three clients: plaintext `HTTP/1.1 400`
nginx-v1 | the same with v1
apache-v2 | 0 octets, FIN
apache-v1 | the same with v1
haproxy-v2 | 0 octets, FIN
haproxy-v1 | the same with v1
openssl-v2 | s_server: 0 octets, FIN
go-v2 | Go: 0 octets, FIN
go-v1 | the same with v1
go-v2-ssl-tlvs | the header carries CRC32C, an empty UNIQUE_ID and an SSL TLV (client bits 0) as HAProxy makes them
go-v2-header-first | no content inspection and a client that speaks 0.1 to 0.2 s late: header, backend FIN and proxy FIN come before the ClientHello
apache-v1-header-first | the same, Apache
nginx-v1-header-first | the same, nginx: the 400 comes before the ClientHello
go-v2-ipv6 | TCP6 header of 52 octets, IPv6 on both legs
go-v2-with-control | the same port speaks TLS to a direct client
go-v2-backend-leg | proxy to backend only
not-accepted-nginx-v2 | `listen … ssl proxy_protocol`
not-accepted-nginx-v1 | the same with v1
not-accepted-apache-v2 | RemoteIPProxyProtocol On
not-accepted-haproxy-v1 | `accept-proxy ssl`, no inspection
not-plain-http-port | the port speaks plain HTTP: `proxy-header-to-http-port`
""")
rule("reset-unread-data", """
haproxy-413-body-unread | HAProxy answers 413 and closes, the body goes on and draws stray RSTs
answer-then-more-body | Python answers 401 and closes with unread octets: RST+ACK or FIN followed by stray RSTs
not-nginx-lingering-close | nginx answers 413, reads the body to its end, then closes
not-plain-close | nothing is left unread
""")
rule("server-reset-mid-response", """
linger-0 | 20 kB of 100 kB, then RST, two clients: below `http-response-truncated`, for the length was promised
linger-0-ipv6 | the same over IPv6
before-the-first-octet | RST 0.2 s after the request, 0 octets
behind-nginx | both legs: RST at the backend, nginx closes with FIN: below `http-response-truncated`
not-rst-after-fin | answer, FIN, late data draws a RST
not-client-cancelled | the client aborts a download of 40 kB in the middle: its RST, not the server's
""")
rule("asymmetric-return-path", """
at-a-router-answers-dropped | two gateways, the second one's firewall drops answers with data: seen at the clients' router
at-a-router-acknowledgments-dropped | the same, and all but SYN+ACK is dropped
not-at-a-router-that-works | the same two ways, and nothing is dropped: a notice
two-gateways-hang | S0 on the server (-i any): requests in on interface 2, answers out on interface 3, the client hangs. From the first lab
two-gateways-reset | the same, and the client resets the strange answers. From the first lab
one-interface | of two-gateways-hang the packets of interface 2 alone (edited): the client's side of the connection
not-a-router | a router (-i any) forwards one request: in and out for each end by one interface
""")
rule("reply-from-other-address", """
client-hangs | S0 at the client: SYN+ACK from 193.70.55.124, all that follows from 193.70.55.9; the client's firewall drops it. From the first lab
client-resets | the same, and the client answers with RST. From the first lab
not-destination-nat | destination NAT as it should be, seen on the NAT box (-i any): two faces of one connection
""")
rule("return-path-lost", """
nothing-after-the-syn | a filter lets SYNs to port 80 pass and nothing after them: three clients, at the server
answers-dropped-at-the-server | the router drops everything of the server after its SYN+ACK; seen at the server
syn-acks-dropped-at-the-server | the router drops the SYN+ACKs; seen at the server
not-one-answer-lost | the first copies of one answer are dropped, then it recovers
""")
rule("stateful-drop-after-handshake", """
firewall-drops-data | a firewall lets handshake and ACKs pass and drops the client's octets; seen at the client
not-a-server-that-thinks | the server acknowledges the request and keeps silent for 4 s
""")
rule("middlebox-reset", """
content-filter | a filter on the router answers "forbidden" with RST in the server's name (iptables REJECT); the server's TTL is that of a host 14 hops farther
not-a-server-that-resets | the server itself aborts with RST
""")
rule("idle-flow-expired", """
refused | the router forgets idle connections after 10 s and answers the next octets, after 33 s, with RST
dropped | the same, and it drops them
not-survived | 33 s of silence, and the connection still works
""")
rule("pmtu-blackhole", """
narrow-link | a link with a smaller MTU and no ICMP: segments of 1448 octets vanish, the rest of 656 arrives. From the first lab
tls-at-the-client | seen at the client: the certificates never come, the small end of the flight does. From nginx-limits.sh
nothing-but-full-segments | two answers behind a link of 1280 octets, seen at the server: only full segments go out and none is acknowledged; the second connection is opened meanwhile
acknowledgments-with-it | the same on a kept connection: the answer takes the acknowledgment of its request with it; a second answer has a small end, which SACK reports
not-discovered | the same with ICMP: the sizes shrink. From the first lab
""")

rule("stray-reset", """
server-forgot-the-connection | the server's socket vanishes (TCP_REPAIR); the next request on the idle connection draws RST without ACK
mid-request | the same in the middle of an upload: three RSTs
server-killed-unheard | the server is killed while its FIN and RST cannot leave; the next request draws RST
not-answer-to-data-after-fin | RST answers data after that side's own FIN
not-refused | RST answers a SYN
""")
rule("tls-closed-after-clienthello", """
haproxy-sni-rejected | `tcp-request content reject` for one SNI; another SNI works
haproxy-backend-dead-3s | TCP proxy, backend refuses: FIN after 3.0 s (three retries), client leg only
fin-before-clienthello | the proxy's FIN comes before a ClientHello that is 50 ms late
apache-wants-proxy-fin | a port that wants a PROXY header, no sibling with one: FIN
haproxy-wants-proxy-rst | the same: RST
nginx-wants-proxy-rst | the same: RST
server-crash-fin | server closes 20 ms after the ClientHello
server-crash-fin-ipv6 | the same over IPv6
server-crash-rst | server resets 20 ms after the ClientHello
not-client-closed-first | the client closed after 0.3 s
not-handshake-ok | TLS works
not-fatal-alert | alert handshake_failure
not-no-clienthello | closed before the client spoke
""")
ALERTS = {
    "decode-error": ("an extension is longer than the ClientHello", {"openssl": "50 decode_error", "nginx": "50 decode_error", "go": "10 unexpected_message", "gnutls": "50 decode_error"}),
    "duplicate-extension": ("server_name twice", {"openssl": "47 illegal_parameter", "nginx": "47 illegal_parameter", "go": "10 unexpected_message", "gnutls": "110 unsupported_extension"}),
    "no-null-compression": ("no null compression offered", {"openssl": "50 decode_error", "nginx": "50 decode_error", "go": "47 illegal_parameter", "gnutls": "warning 112 for the name, then 47 illegal_parameter"}),
}
lines = [
    "internal-error-go | Go, GetCertificate fails: 80 internal_error, two clients",
    "inappropriate-fallback-openssl | client offers TLS 1.2 with the fallback SCSV: 86 inappropriate_fallback",
    "bad-record-mac-openssl | a relay flips a bit in the client's Finished: server sends 20 bad_record_mac",
    "client-sends-decrypt-error | a relay flips a bit in ServerKeyExchange: the client sends 51 decrypt_error",
    "not-warning-unrecognized-name-gnutls | level 1 unrecognized_name, then ServerHello and data",
    "not-close-notify-tls12 | ends with close_notify",
    "not-close-notify-tls13 | ends with close_notify",
    "not-user-canceled | level 1 user_canceled and close_notify from the client",
]
for form, (text, answers) in ALERTS.items():
    for server, alert in answers.items():
        lines.append(f"{form}-{server} | ClientHello broken ({text}): alert {alert}")
rule("tls-fatal-alert", "\n".join(lines))
rule("tls-version-mismatch", """
nginx-only-13-beside-a-control | `ssl_protocols TLSv1.3`, `curl --tls-max 1.2` from two addresses, then a curl that has TLS 1.3
haproxy-only-13 | `ssl-min-ver TLSv1.3`, `curl --tls-max 1.2`
old-client-at-gnutls | GnuTLS takes TLS 1.2 only here, s_client offers TLS 1.1
client-refuses-what-gnutls-chose | GnuTLS with TLS 1.1 only chooses it, s_client wants 1.2: the client sends 70
scanner-is-a-notice | s_client with six different offers that are all refused, and a curl that is served: a notice
not-in-common | TLS 1.3 on both sides
not-no-cipher | 40: `tls-no-shared-cipher`
not-older-version-is-taken | the client offers up to TLS 1.3 and takes TLS 1.2
""")
rule("tls-no-shared-cipher", """
nginx-beside-a-control | one suite for ECDSA certificates, a client with suites for RSA; then a curl that has it
go-has-no-rsa-certificate | an ECDSA certificate, a client with suites for RSA
gnutls | the same
go-no-group | TLS 1.3, the client offers the group X448 only
not-one-in-common | one of two offered suites is taken
not-no-version | 70: `tls-version-mismatch`
""")
rule("tls-sni-unrecognized", """
nginx-beside-a-control | `ssl_reject_handshake on` as default site, curl for another name from two addresses, then for the right one
haproxy-strict-sni | `strict-sni`, curl for another name from two addresses
no-name-is-a-notice | s_client without a name from a public address: a notice
not-known | the name is known
not-default-certificate | Go answers any name with its only certificate
""")
rule("tls-alpn-mismatch", """
go-tls12 | Go has h2 and http/1.1, s_client offers grpc-exp in TLS 1.2
nginx-beside-a-control | nginx with http2, s_client offers grpc-exp; then curl, whose h2 is taken
openssl | s_server has h2, s_client offers http/1.1 and grpc-exp
acme-probe-is-a-notice | s_client offers acme-tls/1 only to s_server, as a certificate authority does: a notice
sealed-go-tls13 | Go sends its ServerHello and seals the alert in TLS 1.3: the number cannot be read
not-in-common | h2 and http/1.1 offered, h2 taken
not-none-offered | no ALPN
not-ignored | GnuTLS without ALPN ignores the offer of h2
""")
rule("tls-handshake-stalled", """
redis-waits-for-ever | curl speaks TLS to plain Redis, which waits for the end of a command; curl gives up after 13 s
given-up-after-3s | the same, `curl -m 3`: medium confidence
not-answered-after-5s | HAProxy looks at the connection for 5 s, then nginx answers
not-given-up-at-once | `curl -m 0.4`: that wait proves nothing
""")
rule("tls-to-http-port", """
one-of-three-backends | one of HAProxy's three backends does not read its PROXY headers: at the clients' side nginx's plain 400 is seen
nginx | ClientHello answered by `HTTP/1.1 400`, two clients
nginx-with-control | the same and one HTTP request that works
apache | the same
go | the same
haproxy | the same
node | the same
python-http09 | Python's http.server answers with an HTML page without a status line (HTTP/0.9)
nginx-proxy-to-plain-http | both legs: `proxy_pass https://` to a plain port, client gets 502
not-http-ok | HTTP
not-https-ok | TLS
not-https-ok-go | TLS
not-tls-to-ssh | ClientHello to sshd: `unexpected-protocol-on-port`
""")
rule("starttls-needed", """
imaps-to-dovecot-143 | curl asks for IMAPS on port 143, two clients
pop3s-to-dovecot-110 | the same with POP3S on port 110
ftps-to-vsftpd | the same with FTPS on port 21
smtps-to-postfix-25 | the same with SMTPS on port 25
tls-to-postgresql | PostgreSQL reads the ClientHello as a startup packet and closes: by the port's number
tls-to-postgresql-beside-a-control | the same, and psql was served on the port
not-asked-first | IMAP, POP3, FTP, SMTP and PostgreSQL, each asked for TLS in its own way
not-imaps-to-993 | TLS from the first octet, on the port that has it
""")
rule("both-sides-wait", """
haproxy-inspects-and-the-client-waits | HAProxy with `inspect-delay 30s` in front of vsftpd; curl waits for the greeting and gives up after 12 s
haproxy-wants-a-proxy-header | HAProxy with `accept-proxy` in front of it; HAProxy gives up after 15 s
vsftpd-hangs-beside-a-control | vsftpd greets, then is stopped (SIGSTOP); two clients give up after 11 s
not-greeted-after-5s | a greeting that comes after 5 s
not-preconnect-where-the-client-speaks-first | a connection to nginx without a word for 11 s
not-a-check | connections to FTP that are closed at once, one after 0.4 s
""")
rule("banner-delayed", """
mariadb-asks-for-the-clients-name | MariaDB asks a resolver that does not answer for the client's name, and greets after 3 s
ssh-after-4s | an SSH greeting after 4 s (a scripted server)
not-mail-that-waits-on-purpose | a mail server that greets after 6 s: a notice
not-greeting-that-was-lost | a greeting that is lost a few times, seen at the server
""")
rule("tls-slow-handshake", """
haproxy-inspects-for-4s | HAProxy inspects for 4 s before it connects to nginx; two clients
client-fetches-a-revocation-list | a client in Python that waits for 3 s behind the ServerHello, and curl on the same host that asks for a list meanwhile
not-quick | a handshake as it should be
not-server-hello-that-was-lost | a ServerHello that is lost a few times, seen at the server
""")
rule("tls-sni-missing", """
nginx-proxy-sends-no-name | nginx as proxy with and without `proxy_ssl_server_name`; the backend rejects handshakes without a name
haproxy-strict-sni | curl by name, then by address; HAProxy with `strict-sni`
default-certificate-is-rejected | by name, then without: the default site's certificate is self-signed and rejected
stranger-is-a-notice | the same from a public address: a notice
not-default-site-serves | without a name the default site serves
not-name-unknown | a name that the server does not know: `tls-sni-unrecognized`
""")
rule("tls-clienthello-lost", """
box-reads-one-segment | a relay in Python that reads once and closes when the ClientHello is not whole; OpenSSL with and without 251 ALPN names
full-segments-are-dropped | iptables drops packets of 1,200 octets and more: below `pmtu-blackhole`
not-large-is-taken | large and small ones, all taken
not-every-one-is-closed-on | a server that closes on every ClientHello
""")
rule("unexpected-protocol-on-port", """
ssh-to-nginx | ssh client, HTTP 400
ssh-to-apache | ssh client, HTTP 400
ssh-to-nginx-tls | ssh client, plaintext 400 of a TLS port
ssh-to-redis | ssh client, `-ERR unknown command`; the client waits 5 s more
http-to-redis | HTTP/1.0 without Host, `-ERR wrong number of arguments`
http-to-sshd | curl, SSH banner and "Invalid SSH identification string."
tls-to-sshd | ClientHello, SSH banner, two clients
redis-to-nginx | redis-cli, HTTP 400
not-ssh-to-sshd | matching protocols (login refused inside SSH)
not-redis-to-redis | matching protocols
not-http-to-http | matching protocols
not-http-to-tls | `http-to-tls-port`
not-tls-to-http | `tls-to-http-port`
not-proxy-prefixed-ssh | `proxy-header-to-other-service`
http-to-vsftpd | a browser's request at FTP, two clients
http-to-dovecot-pop3 | the same at POP3
http-to-rabbitmq | the same at AMQP
tls-to-rabbitmq | TLS at AMQP's plain port, two clients
mqtt-to-rabbitmq | mosquitto_sub at AMQP
mqtt-to-dovecot-imap | mosquitto_sub at IMAP
amqp-to-nginx | amqp-publish at HTTP
not-imap-to-imap | IMAP as it should be
not-mqtt-to-mosquitto | MQTT as it should be
""")

rule("upstream-hang", """
three-fetches-of-six | six fetches of a CRL, the last three acknowledged and never answered; curl gives up after 20 s (first lab)
http2-behind-nginx | both legs, the client's in HTTP/2 and the backend's in HTTP/1; curl gives up after 13 s (made by `h2.sh`)
second-request-waits | keep-alive: the first request is answered, the second waits for 13 s until other traffic ends the file
answered-after-65s | nothing for 65 s, then the answer: judged while it was open
given-up-after-15s | `curl -m 15`, twice, and nginx's own request of the next capture, which ends with its client after 12 s; seen at the server
over-tls | HTTPS through nginx, whose backend never answers: the client leg
tickets-cross-the-request | HTTPS at HAProxy behind a way of 20 ms, whose backend never answers: its session tickets come when the request has left
redis-stopped | Redis is stopped (SIGSTOP) while four clients ask GET, SET and HGETALL; they give up after 12 s (made by `services.sh`)
not-redis-workers-that-wait | BLPOP, BRPOPLPUSH, XREAD BLOCK, BLMOVE and WAIT, given up after 4 s: notices (made by `services.sh`)
not-with-an-answer-behind-tickets | the same with a backend that answers after 7 s
not-answered-after-8s | answered after 8 s: slow, no hang
not-capture-ends-after-2s | the capture ends 2 s after the request
not-long-poll | a route that answers after 21 s, 22 s, and then not for 12 s
""")
rule("response-stalled", """
waits-for-the-rest | 30 kB of 100 kB, then nothing for 13 s until other traffic ends the file
given-up-after-15s | the same, `curl -m 15` gives up; seen at the server
not-trickles | 20 kB each 5 s
not-event-stream | text/event-stream: one event in 15 s
""")
rule("slow-response", """
all-ask-the-same-at-once | 24 ask HAProxy for one path at once, the backend takes 1.3 s for each
one-of-three-behind-a-busy-proxy | one of three backends takes 2.2 s; all ask for the same paths, in the clear and inside TLS: neither the proxy nor its port is a cause of its own (made by `one-of-three.sh`)
three-of-three | answers after 2.2 s, 3.1 s and 1.7 s on one connection
not-first-after-start | the first answer after 1.4 s, two at once: a notice at most
""")
rule("connection-pileup", """
twenty-two-wait | 22 fetches at once, all acknowledged, none answered within 14 s
not-idle-pool | 22 connections, all answered, then idle for 12 s
""")
rule("zero-window", """
client-stops-reading | the client does not read for 14 s: window 0, probes; seen at the server
server-stops-reading-3s | an upload to a server that does not read for 3 s
not-slow-reader | a reader that pauses for 30 ms after every 16 kB
""")
rule("routing-loop", """
errors-at-the-client | router and server send a network's packets to each other; four connections, each ended by the first ICMP error
errors-ipv6 | the same over IPv6, three connections
seen-on-the-circle | the same seen between both: each SYN comes by some thirty times
seen-on-a-router-any | the same on the router with `-i any`
not-two-errors | two connections only
not-traceroute | six TCP and six UDP probes with TTL 1 and 2
not-through-a-router | a request seen going in and out of a router
""")
rule("pmtu-discovered", """
upload | 60 kB over a link of 1380 octets; the router says so
upload-ipv6 | the same over IPv6
not-a-black-hole | the same without ICMP: the segments vanish
not-a-wide-way | the same link with 1500 octets
""")
rule("icmp-redirect", """
second-router-on-the-link | the client asks its default router, which forwards to another one on the same link and says so
not-port-unreachable | another ICMP error: a port that is rejected
""")
rule("ephemeral-ports-exhausted", """
ten-ports | 40 connections of a client that may use ten ports
not-with-many-ports | the same with 21 000 ports
not-one-port-on-purpose | 20 connections on one port that the client chose
""")
rule("spurious-retransmission", """
round-trip-jumps | 3 kB each 20 ms; in every second period of 0.7 s what goes to the client takes 0.45 s longer; seen at the server
not-real-loss | the same with 4 % of the packets dropped
""")
rule("port-reuse-collision", """
forgotten-connection | the client forgets an open connection without a word and opens one on the same port: challenge ACK, RST, SYN again at once (a notice)
refusal-dropped-by-a-firewall | the same where a firewall drops every RST of the client: the connection does not open within 6 s
older-one-not-in-the-capture | the same at the server, the capture begins after the older connection
not-closed-before | the port is used again after both sides have closed
""")
rule("handshake-reset-by-client", """
client-gives-up | answers take 0.7 s; three programs close their sockets after 0.3 s, curl waits
not-one-of-two | the same with one program: a notice
answer-after-the-timeout | answers take 1.3 s; the program closes its socket after 1.1 s
half-open-scan | three SYNs from a raw socket, the kernel refuses what is accepted: a notice
not-happy-eyeballs | curl tries IPv6 first, then IPv4, which wins; the IPv6 answer finds nobody
not-haproxy-check | HAProxy's TCP check ends with RST+ACK of a live socket
""")
rule("window-limited", """
small-receive-buffer | 3 MB over a round trip of 25 ms, SO_RCVBUF 65536; seen at the server
no-window-scale | the same way, window scaling switched off at the client
not-a-buffer-that-grows | the same way, the kernel adapts the buffer
not-a-short-way | SO_RCVBUF 65536 without delay
""")
rule("rtt-high-or-rising", """
queue-before-a-narrow-line | 3 MB into a line of 12 Mbit/s with a queue of 0.4 s; seen at the server
not-a-short-queue | the same line with a queue of 12 ms
not-a-long-way | 3 MB over a steady round trip of 120 ms
""")
rule("delayed-ack-nagle-stall", """
two-writes | 12 messages in two writes each, without TCP_NODELAY; seen at the client
two-writes-seen-at-the-server | the same seen at the server
not-with-nodelay | the same with TCP_NODELAY
not-one-write | one write for each message
""")
rule("packet-loss", """
four-percent-before-the-capture | 3 MB, 4 % of the server's packets dropped at random by iptables on the router; seen at the client
fifteen-percent-behind-the-capture | the same with 15 %; seen at the server
not-clean | the same route without loss
""")
rule("ip-fragments-lost", """
all-but-the-first-dropped | five answers of a DNS server of 3,000 octets; after the first one the router drops fragments that have no ports
time-exceeded | the same from the beginning on; 30 s later the client's kernel says that reassembly is given up
not-arrived-whole | four such answers that arrive whole
not-a-filter-on-ports | the same, recorded with the filter "port 53": only the first fragments are in the capture
""")
rule("corrupt-segments", """
one-octet-turned-over | three downloads through a relay that turns over one octet in one data segment of twelve (captures/lab/two-ends.sh with other chances, the client's end; the client's kernel counted 30)
not-at-the-sender | the same at the server's end: there the segments still are as they were sent
not-unfinished-and-lost | a server whose network card would finish the checksums (veth with its offloads), and 8 % of its large packets are dropped behind the capture
""")
rule("loss-burst-single", """
fifty-milliseconds | 3 MB; everything of the server is dropped for some 30 ms
not-loss-all-the-time | 4 % of the packets dropped all the time: another rule's case
""")
rule("rto-unrecovered", """
peer-gone-after-one-answer | after one exchange nothing of the server arrives any more; the second request goes out 7 times
pooled-connection-behind-a-proxy | nginx sends the request of a TLS client on a kept connection to its backend, which a firewall drops meanwhile: seven copies, and the client gives up after 9 s; seen on the proxy, all interfaces
not-back-after-a-second | the same for some seconds, then the server's acknowledgment comes
""")
rule("keepalive-probes-unanswered", """
peer-gone | keep-alive each second; after two answers nothing of the server arrives any more
not-answered | the same, all answered
""")
rule("port-scan", """
sixty-ports | one source connects to ports 1 to 60 of a server; two users beside it
link-sweep | a host asks by ARP for 60 addresses of its link that nobody has; the one it finds refuses it, which is its own doing
not-forty-neighbours | the same with 40 addresses: the refusal stands for itself
not-monitoring | one source asks two ports twelve times each, all answered
""")
rule("health-check-flapping", """
haproxy-three-times | HAProxy checks every second (fall 2, rise 2); the port refuses for 4 s, three times: told below `connect-refused`
not-once | the port refuses once, for 6 s
""")
rule("loss-storm", """
four-seconds | three clients and three servers, nine connections for 32 s; for 4 s a router drops 35 % of everything
not-one-pair-of-hosts | eighteen such connections; for 4 s only what one client sends to one server is dropped
""")
rule("mass-connect-timeout", """
three-of-six | six servers answer; then a router drops what goes to three of them, and lets it through again
not-two-of-six | the same with two of them: `connect-timeout`
""")
rule("service-restart", """
killed-and-started | six users hold keep-alive connections; the server is killed (SIGKILL), refuses for 2 s, and is started again
not-idle-timeout-of-one-age | six connections of one age, one request each: nginx ends them together after its `keepalive_timeout` and goes on accepting
""")
rule("service-down", """
stopped | three clients; the service is stopped, its port refuses, nginx on the same host goes on answering
pool-of-three | all three backends of HAProxy are killed at once: one event (made by `one-of-three.sh`)
stopped-and-started | the same, and it is started again
not-one-client-at-a-port-nobody-served | one client tries a port six times that nobody ever served: `connect-refused`
""")
rule("syn-flood", """
spoofed-sources | 1200 SYNs to one port from addresses that belong to nobody (192.0.2.0/24, 198.51.100.0/24), up to 364 a second; two users beside them
not-crowd | 60 users at once who complete their handshakes
""")
rule("network-blackout", """
one-client-is-not-heard | the router drops all that one of three clients sends; the others go on, and the server, which hears nothing of that client, closes its idle connections
one-peer-dark | three users ask one server twice a second; the router drops everything for 9 s, the connections go on 13 s after
not-an-idle-server-asks-nobody | the same seen on the server, with nine users and three addresses: it has nothing outstanding, so it sends nothing that stays unanswered
not-quiet-hour | the users go away for 8 s: nobody asks
not-two-seconds | the router drops for 2 s only
""")
rule("link-flapping", """
three-times | six connections to two servers; the router drops everything three times for 8 s, 9 s apart
not-once | one gap: `network-blackout`
""")
HEALTHY = dict(
    line.strip().split(" | ", 1)
    for line in """
01-rst-after-fin | RST after the other side's FIN: late data, and a client that aborts after the answer
01b-rst-after-own-fin-unread-body | Python's http.server answers 501, closes, RST after its own FIN because the body was not read by it; the client has the answer
02-curl-end-of-tls | how curl ends TLS with nginx, Go and s_server: FIN, close_notify that arrives late draws RST
03-browser-preconnect | one connection used, one idle and closed by nginx after 60 s, one idle to the TLS port closed by the client after 9 s
04-lb-tcp-check | HAProxy TCP checks, every 2 s and every 3 s
05-proxy-local-check | HAProxy checks with a LOCAL header, every 2 s
06-http-check-404 | HTTP checks answered 404, every 2 s; HAProxy ends some with RST
07-keepalive-probes | four TCP keep-alive probes, answered
08-zero-window-short | the receiver pauses with a small buffer: window 0 for 41 ms
09-tail-loss-probe | the last segment is lost once and sent again
10-tso-super-segments-unfinished-checksums | offloads on
11-bridge-duplicates | `-i any` on a bridge
12-starts-mid-stream | capture starts in the middle of a download
13-ends-mid-request | capture ends before the answer
14-tls-close-one-side-first | s_server closes first, client after
15-half-close-nc | question, FIN, answer
16-long-poll | the same route answers after 20 s, twice
17-server-sent-events | text/event-stream, one event each 7 s
18-websocket-idle | 101, a ping each 20 s
19-server-closes-idle-keepalive | Apache's FIN after 5 s, next request on a new connection
20-head-204-304 | answers without a body
21-chunked | chunked, complete
22-length-by-close | HTTP/1.0, length given by the close
23-connect-tunnel | CONNECT through Apache, TLS inside
24-cancelled-download-then-ranges | client aborts a download, then two range requests
25-happy-eyeballs-loser-answered | AAAA refused, A works, twice
26-401-then-credentials | 401, then 200 on the same connection
27-100-continue | Go answers at once, Apache sends 100 Continue first
28-tls13-hello-retry-request | HelloRetryRequest, then fine
28b-tls13-hrr-first-lab | the same from the first lab
29-tls-many-clients | curl, GnuTLS, Python, s_client; TLS 1.2 and 1.3; nginx and Go
30-tls-session-resumption | TLS 1.2 and 1.3 sessions resumed
31-icmp-for-late-dns-answer | two resolvers asked, the second answer finds a closed port
32-gratuitous-arp | the server's link goes down and up, it announces its addresses
33-loopback | 127.0.0.1 and ::1, segments of 32 kB, no ARP
34-tcp-fast-open | SYN with data, twice
35-proxy-header-accepted | v1, v2, v2 with TLVs, and v1 before TLS, to nginx that expects them
36-ecn | SYN with ECE and CWR
37-ipv6 | HTTP, TLS 1.2 and 1.3, RST after FIN, connect and close, half-close over IPv6
38-408-on-idle-connection | HAProxy sends 408 to a silent client after 4 s
39-ssh-login-refused | SSH, public key refused inside
40-redis-subscribe-idle | SUBSCRIBE, a message after 22 s
41-redis | two Redis commands
42-one-syn-retry-of-25 | one of 25 connections needed a second SYN
43-tls-warning-unrecognized-name | warning alert 112, then a working handshake (GnuTLS)
44-dns-aaaa-nodata-and-search-list | NXDOMAIN for the search list, empty AAAA, then fine
45-http2-over-tls | ALPN h2
46-router-sees-both-sides | `-i any` on a router: everything twice, TTL-1
47-nginx-proxy-keepalive-pool | both legs of nginx: keep-alive on both sides, 401 then credentials, 404, 410, 302, 429, X-Forwarded-For, four users
48-haproxy-proxy-keepalive-pool | the same of HAProxy (`http-reuse always`, `option forwardfor`)
49-haproxy-redispatch | a backend is restarted, HAProxy finds its port closed once and asks the other one; every user gets 200
50-nginx-next-upstream | the same with nginx (`proxy_next_upstream`)
51-health-checks-on-another-port | HAProxy checks port 9000 by HTTP and by TCP, the users' traffic goes to port 80
52-proxy-v2-accepted-both-legs | PROXY v2 in front of HTTP and of TLS, both legs, with checks that send it too
53-happy-eyeballs-both-legs | the proxy's AAAA refuses, its A works; both legs
54-navigations-through-a-proxy | a user clicks on before three pages are there (RST), the proxy reads on
55-rolling-deploy | HAProxy hands its listener to a new process while users come; an idle connection is closed by the old one
56-load-generator | ab, 8 at a time without and 4 at a time with keep-alive, through nginx
57-pools-idle-through-the-end | idle keep-alive connections on both legs, probed and not, open when the capture ends
58-router-both-sides | `-i any` on a router, everything twice: HTTP, TLS, DNS, ping, traceroute, a client's RST after its answer
59-path-mtu-discovered | "fragmentation needed", then smaller segments and a whole answer
60-one-percent-lost | 1 % of everything but handshakes is dropped and repeated in time
61-container-host | `-i any` on a host with a bridge, two containers, masquerade and a published port (DNAT)
62-asymmetric-by-design | in by one router, out by the other; seen at the server
63-bridge-many-ports | `-i any` on a bridge with six ports
64-router-of-one-direction | `-i any` on a router that forwards both directions of five flows and one direction of two, all of which work
65-vrrp-takeover | keepalived: the gateway's addresses move to the other router, connections go on
66-address-taken-over-by-gratuitous-arp | a service address moves to another server while nobody waits
67-dns-search-list-nodata-ptr | dnsmasq: A and empty AAAA, a search list whose first candidates do not exist, two reverse names that do not exist
68-dns-truncated-then-tcp | dnsmasq truncates, dig asks again over TCP; a larger EDNS buffer
69-background | DHCP, NTP, mDNS, LLMNR, SSDP and NetBIOS questions that nobody answers, ARP for scanned addresses, a source that tries four closed ports
70-quiet-night | two pings 26 s apart, NTP and multicast questions, else nothing
71-zero-window-probed | the receiver pauses for 0.9 s, its closed window is probed
72-window-full-and-updates | a receiver with a small buffer, window full all the time
73-slow-and-steady-download | 260 kB at 20 kB/s (`limit_rate`)
74-syn-ack-repeated-once | one handshake's ACK is lost, the SYN-ACK comes again after 1 s
75-tls-without-close-notify | complete HTTP answers, then FIN without close_notify, TLS 1.2 and 1.3
76-certificates-that-clients-accept | an expired certificate and curl -k, a self-signed one behind STARTTLS
77-tls-tickets-and-early-data-refused | nginx is restarted: old tickets lead to full handshakes, 0-RTT data are refused and sent again
78-greeting-delayed-on-purpose | an SMTP greeting after 5 s
79-imap-idle | IDLE, an event after 17 s, DONE (scripted)
80-mqtt-idle | CONNECT, SUBSCRIBE, PINGREQ every 10 s (scripted)
81-redis-blocking-pop | BLPOP that gets its element after 13 s, and one that runs into its own timeout
82-postgresql-listen-and-idle-pool | PostgreSQL 15: LISTEN, an idle pool connection, a query of 4 s, Terminate
83-reset-right-after-the-answer | `Connection: close`, whole answer, RST by the client, eight times
84-deadline-then-retry | a request is given up after 0.5 s, the retry works
85-clean-restart | nginx is stopped and started while nobody waits
86-early-hints | 103, then 200
93-kubernetes-service | `-i any` on a node: a service address, DNAT to one of two pods, masquerade (captures/lab/containers.sh)
94-sidecar | `-i any` in a pod: HAProxy takes what is meant for the application (REDIRECT) and asks it on 127.0.0.1
95-ftp-plain-and-auth-tls | vsftpd: a download in plain text, and a listing after AUTH TLS
96-imap-pop3-and-smtp-with-starttls | Dovecot and Postfix: logins in plain text and after STARTTLS or STLS, a password refused
97-mqtt-publish-subscribe-and-ping | Mosquitto: a subscriber that pings, two publishers, one of MQTT 5
98-amqp-publish-and-consume | RabbitMQ: a queue declared, two messages published and consumed; the server resets what its clients closed
99-postgres-cancel-request | Ctrl-C in psql, twice: a CancelRequest on a connection of its own, on which PostgreSQL only closes
100-memcached-quit-and-noreply | memcached: `quit` at once, `set … noreply` and `quit`, a question and `quit`
101-haproxy-hello-check | HAProxy's `option ssl-hello-chk` every 2 s: an alert is the sign of life it wants; one client through it
102-haproxy-one-long-connection | 60 requests on one connection through HAProxy: more than are remembered of a flow
103-redis-replica | a replica of Redis says each second how far it got, and nobody answers
104-postgres-mistyped-password | psql with a right, a wrong, and again a right password
105-mariadb-mistyped-password | the same with mariadb
106-a-job-that-is-done | 25 connections that are older than the capture: three requests on each, and all are closed at once
87-http2-in-the-clear | curl, nghttp and h2load with prior knowledge to nginx, HAProxy and nghttpd; 60 requests, four at a time
88-http2-upgraded | curl and nghttp upgrade from HTTP/1, Apache agrees
89-grpc | calls, a stream that is cancelled, keep-alive pings, through nginx, a server that ends connections after 1.5 s (GOAWAY, NO_ERROR)
90-http2-starts-mid-stream | a gRPC connection whose beginning is missing: header fields by index
""".strip().splitlines()
)
# The benign patterns of the catalogue's section 6, by number, and the captures that hold them
PATTERNS = [
    line.split(" | ")
    for line in """
1 | RST after FIN | 01 01b 37
2 | curl and OpenSSL at the end of TLS | 02 29
3 | a browser's preconnect | 03
4 | a load balancer's TCP check | 04 51
5 | a check with PROXY LOCAL | 05 52
6 | an HTTP check with 404 | 06 51
7 | keep-alive probes | 07 57
8 | zero-window probes | 71
9 | window full, window update | 08 72
10 | tail loss probe | 09
11 | super-segments, unfinished checksums | 10
12 | packets recorded twice | 11 46 58 61 63
13 | starts in mid-stream | 12 90
14 | ends in mid-request | 13
15 | one side closes TLS first | 14
16 | no close_notify after a whole answer | 75
17 | half-close, Terminate | 15 82
18 | long poll, events, WebSocket, IDLE, SUBSCRIBE, LISTEN, MQTT | 16 17 18 40 57 79 80 81 82 97
18 | long poll, events, WebSocket, IDLE, SUBSCRIBE, LISTEN, MQTT, gRPC | 16 17 18 40 57 79 80 81 82 89
19 | the server closes an idle connection | 19 55 85
20 | answers without a body, length by close, CONNECT | 20 21 22 23
21 | a download cancelled | 24 54
22 | Happy Eyeballs | 25 53
23 | noise from outside | 69
24 | AAAA without data, search lists, PTR, two resolvers, mDNS | 31 44 67 69
25 | 401, then credentials | 26 47 48
26 | 100 Continue, 103 | 27 86
27 | warning alerts, HelloRetryRequest | 28 28b 43
28 | ticket unknown, 0-RTT refused | 77
29 | ICMP for late DNS answers, traceroute, path MTU | 31 58 59
30 | gratuitous ARP, VRRP, ARP for scanned hosts | 32 65 66 69
31 | asymmetric by design, forwarding hosts | 46 58 61 62 63 64
32 | one SYN again, single losses | 42 60
33 | limited by bandwidth | 72 73
34 | intended waits | 78
35 | PROXY header accepted | 35 52
36 | one SYN-ACK again | 74
37 | certificates that clients accept all the same | 76
38 | a quiet network | 70
39 | loopback, containers | 33 61
40 | Fast Open, ECN | 34 36
41 | RST right after a whole answer | 83
42 | given up, then retried | 49 50 84
43 | 408 on an idle connection | 38
""".strip().splitlines()
]
BROKEN = dict(
    line.strip().split(" | ", 1)
    for line in """
cut-inside-a-record.pcap | ends inside a record's octets
cut-inside-a-record-header.pcap | ends inside a record's header
insane-record-length.pcap | a record claims 2 GiB
zeros-in-the-middle.pcap | 400 octets of zeros
frames-too-short.pcap | frames of 0 to 39 octets
unknown-link-type.pcap | link type 9999
pcapng-unknown-block.pcapng | an unknown block type: legal, read on
pcapng-cut.pcapng | ends inside a block
pcapng-bad-block-length.pcapng | block length 13
pcapng-packet-before-interface.pcapng | packets of an interface that was never described
empty-file.pcap | 0 octets
header-only.pcap | a valid header, no packet: not damaged
half-a-header.pcap | 11 octets
text-file.pcap | tcpdump's error message saved as a capture
""".strip().splitlines()
)
problems = []


def table(directory, head, rows, expected, note=""):
    present = {name for name in os.listdir(os.path.join(root, directory)) if name.endswith((".pcap", ".pcapng"))}
    named = {name if name.endswith((".pcap", ".pcapng")) else name + ".pcap": text for name, text in rows.items()}
    for name in sorted(present - set(named)):
        problems.append(f"{directory}/{name}: no text")
    for name in sorted(set(named) - present):
        problems.append(f"{directory}/{name}: no capture")
    out = [head, "", "| capture | what happens | expected |", "|---|---|---|"]
    for name, text in named.items():
        out.append(f"| {name} | {text} | {expected(name)} |")
    if note:
        out += ["", note]
    with open(os.path.join(root, directory, "README.md"), "w") as file:
        file.write("\n".join(out) + "\n")


def also(name):
    return f" ({ALSO[name]})" if name in ALSO else ""


for name, rows in RULES.items():
    # the longest beginning decides: link-flapping is not made where other link-… rules are
    script = SCRIPT.get(max((start for start in SCRIPT if name.startswith(start)), key=len, default=""), "close-kinds.sh")
    table(
        f"rules/{name}",
        f"# Captures for `{name}`\n\nMade by `captures/lab/{script}`{also(name)} with real software in network namespaces ({SOFTWARE_OF.get(script, SOFTWARE)});\nwhat was edited or generated afterwards says so.",
        rows,
        lambda capture: "silent" if capture.startswith("not-") else "fires",
        NOTES.get(name, ""),
    )
table(
    "healthy",
    f"# Healthy traffic that looks odd\n\nMade by `captures/lab/healthy.sh` (01 to 46), `healthy-hosts.sh` (47 to 70), `healthy-more.sh` (71 to 86), `h2.sh` (87 to 90), `containers.sh` (93, 94),\n`first-words.sh` (95 to 98), `healthy-goodbyes.sh` (99 to 101), `healthy-long.sh` (102, 103) and `database-errors.sh` (104, 105) with real software ({SOFTWARE}; PostgreSQL 15.18,\ndnsmasq 2.90, keepalived 2.2.7, nghttp2 1.52.0, gRPC 1.51.1).\nNo finding above notice may come from any of these files.",
    HEALTHY,
    lambda capture: "at most notices",
    "\n".join(
        ["The patterns they prove silent, numbered as in the catalogue's list of false alarms:", "", "| pattern | what | captures |", "|---|---|---|"]
        + [f"| {number} | {what} | {captures.replace(' ', ', ')} |" for number, what, captures in PATTERNS]
    ),
)
for number, what, captures in PATTERNS:
    for capture in captures.split():
        if not any(name.startswith(capture + "-") for name in HEALTHY):
            problems.append(f"pattern {number}: no capture {capture}")
table(
    "broken",
    "# Damaged and unusual files\n\nMade from a real capture by `captures/lab/generate/quality.py`. No file may cause a panic; what is readable before the damage is kept.",
    BROKEN,
    lambda capture: "nothing to read, said in one line" if capture in ("empty-file.pcap", "half-a-header.pcap", "text-file.pcap") else "`capture-has-nothing`" if capture == "header-only.pcap" else "read as far as possible",
)
for directory in sorted(set(os.listdir(os.path.join(root, "rules"))) - set(RULES)):
    problems.append(f"rules/{directory}: no texts")
print("\n".join(problems) or "every capture has a text")
sys.exit(bool(problems))
