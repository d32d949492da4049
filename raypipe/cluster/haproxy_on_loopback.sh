#!/bin/sh
# Starts Ray's HAProxy with every listener that would be open to all addresses bound to loopback instead:
# Ray's configuration has `bind *:PORT` and `bind :PORT` for its statistics and metrics pages.
# The frontend's own address is Serve's http_options.host and stays as it is. It tells the replica when a request came,
# in microseconds since 1970: a trace then shows what HAProxy spent. Ray's default of one UDP packet a request to a
# syslog server that is not there is left out.
set -eu
previous=
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then
        sed -i -E \
            -e 's/^([[:space:]]*bind[[:space:]]+)\*?:([0-9]+)/\1127.0.0.1:\2/' \
            -e '/^[[:space:]]*log 127\.0\.0\.1:514 /d' \
            -e '/^frontend http_frontend/a\    http-request set-header x-raypipe-proxied-us %[date(0,us)]' \
            "$argument"
    fi
    previous=$argument
done
exec "$RAYPIPE_HAPROXY" "$@"
