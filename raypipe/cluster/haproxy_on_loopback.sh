#!/bin/sh
# Starts Ray's HAProxy with every listener that would be open to all addresses bound to loopback instead:
# Ray's configuration has `bind *:PORT` and `bind :PORT` for its statistics and metrics pages.
# The frontend's own address is Serve's http_options.host and stays as it is.
set -eu
previous=
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then
        sed -i -E 's/^([[:space:]]*bind[[:space:]]+)\*?:([0-9]+)/\1127.0.0.1:\2/' "$argument"
    fi
    previous=$argument
done
exec "$RAYPIPE_HAPROXY" "$@"
