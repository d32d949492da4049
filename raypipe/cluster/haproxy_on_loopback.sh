#!/bin/sh
# Starts Ray's HAProxy with a configuration of its own making (it has no template of the user's), changed in these points:
# - Its statistics and metrics pages (`bind *:PORT`, `bind :PORT`) listen on loopback instead of on all addresses. The
#   frontends' address is Serve's http_options.host and stays as it is.
# - Its command socket is for its user alone, not for all of the machine.
# - No UDP packet a request to a syslog server that is not there, which is Ray's default.
# - The replica is told when a request came, in microseconds since 1970: a trace then shows what HAProxy spent.
# - A request is sent on once its body is there, too: one whose body came later than its head could not be sent again to
#   another replica, and its caller's connection would be closed without a word.
# - No replica gets more requests at a time than it takes (RAYPIPE_MAX_ONGOING, of a raypipe endpoint); what is more is
#   refused (haproxy_overload.cfg), by HAProxy itself: a replica would have no time left for those that it has.
# - With RAYPIPE_TLS_CERTIFICATE and RAYPIPE_TLS_KEY (raypipe/serving/tls.py) both frontends speak TLS.
# - While it knows no replica it does not listen: it would answer 404, beside another one that knows them.
# A guard stands in for it if it is killed (haproxy_guard.py).
set -eu

# tls FOLDER: the arguments of a `bind` line, empty without TLS; HAProxy wants certificate and key in one file.
tls() {
    [ -n "${RAYPIPE_TLS_CERTIFICATE:-}" ] || return 0
    (umask 077 && cat "$RAYPIPE_TLS_CERTIFICATE" "$RAYPIPE_TLS_KEY" > "$1/tls.pem")
    echo " ssl crt $1/tls.pem ssl-min-ver TLSv1.2 alpn"
}

bind='^[[:space:]]*bind ' # the statement: Ray's comments have the word, too
previous=
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then
        tls=$(tls "$(dirname "$argument")")
        # Once: a file that has it all may come again.
        grep -q 'set-header x-raypipe-proxied-us' "$argument" || sed -i -E \
            -e "/^(frontend prometheus|listen stats)/,/$bind/s/($bind)\*?:([0-9]+)/\1127.0.0.1:\2/" \
            -e 's/mode 666 level admin/mode 600 level admin/' \
            -e '/^[[:space:]]*log 127\.0\.0\.1:514 /d' \
            -e '/^frontend http_frontend/a\    option http-buffer-request' \
            -e '/^frontend http_frontend/a\    http-request set-header x-raypipe-proxied-us %[date(0,us)]' \
            -e "/^backend http-/r ${0%/*}/haproxy_overload.cfg" \
            -e "/^[[:space:]]*server .* check/{/proto h2/!s/\$/ maxconn ${RAYPIPE_MAX_ONGOING:-100}/}" \
            ${tls:+-e "/^frontend http_frontend/,/$bind/s#($bind[^ ]+)\$#\\1$tls h2,http/1.1#"} \
            ${tls:+-e "/^frontend grpc_frontend/,/$bind/s#($bind[^ ]+) proto h2\$#\\1$tls h2#"} \
            "$argument"
        grep -q '^backend http-' "$argument" ||
            sed -i -E "/^frontend (http|grpc)_frontend/,/$bind/{/$bind/d}" "$argument"
        # It ignores SIGTERM until it knows what to do on it.
        (trap '' TERM && exec "$RAYPIPE_PYTHON" -I -S "${0%/*}/haproxy_guard.py" $$ "$PPID" "$argument") &
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
