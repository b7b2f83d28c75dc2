#!/bin/bash
# Whether the process of this container is ready: prints what its /readyz says, and fails unless the status is 200.
# In bash, because a Python interpreter in each container every few seconds would cost more CPU than the idle product.
set -eu
# Without the API a process serves health on the first port, with it on the second.
for port in "$BULKREG_HEALTH_PORT" "${BULKREG_API_PORT:-8080}"; do
  if { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then
    printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
    reply=$(cat <&3)
    printf '%s\n' "${reply##*$'\r\n'}"
    [[ $reply == HTTP/1.?" 200 "* ]]
    exit
  fi
done
echo "nothing listens on port $BULKREG_HEALTH_PORT or ${BULKREG_API_PORT:-8080}"
exit 1
