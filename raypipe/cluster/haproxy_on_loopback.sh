#!/bin/sh
# Starts Ray's HAProxy with every listener that would be open to all addresses bound to loopback instead:
# Ray's configuration has `bind *:PORT` and `bind :PORT` for its statistics and metrics pages.
# The frontend's own address is Serve's http_options.host and stays as it is. It tells the replica when a request came,
# in microseconds since 1970: a trace then shows what HAProxy spent. Ray's default of one UDP packet a request to a
# syslog server that is not there is left out. While it knows no replica it does not listen: it would answer 404, beside
# another one that knows them. A guard stands in for it if it is killed (haproxy_guard.py).
set -eu
previous=
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then
        sed -i -E \
            -e 's/^([[:space:]]*bind[[:space:]]+)\*?:([0-9]+)/\1127.0.0.1:\2/' \
            -e '/^[[:space:]]*log 127\.0\.0\.1:514 /d' \
            -e '/^frontend http_frontend/a\    http-request set-header x-raypipe-proxied-us %[date(0,us)]' \
            "$argument"
        grep -q '^backend http-' "$argument" || sed -i '/^frontend http_frontend/,/bind/{/bind/d}' "$argument"
        "$RAYPIPE_PYTHON" -I -S "${0%/*}/haproxy_guard.py" $$ "$argument" &
        config=$argument
    fi
    previous=$argument
done
if [ -e "$config.stand-in" ]; then # both listen for a moment, which -dR would forbid
    for argument in "$@"; do
        shift
        [ "$argument" = "-dR" ] || set -- "$@" "$argument"
    done
fi
exec "$RAYPIPE_HAPROXY" "$@"
