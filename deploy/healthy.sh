#!/bin/bash
# Is the server in this container `live`, or `ready`? Exits with 0 if it says so itself.
#
# With bash's own sockets, so that the image needs no HTTP client. Over TLS, which bash does not speak, `quern status`
# asks over the Unix socket.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${QUERN_LISTEN##*:}"
printf 'GET /v2/health/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-live}" >&3
read -r _ status _ <&3
if [ "$status" = 400 ]; then
    # It ends with 1 where something is wrong, and with 2 where nobody answers.
    said=$(quern status --json) || [ $? = 1 ]
    [ "${1:-live}" = live ] || grep --quiet '"ready": *true' <<<"$said"
    exit
fi
[ "$status" = 200 ]
