#!/bin/bash
# demo: what `make run` runs. Three backends and the gateway, until Ctrl-C or until the gateway ends;
# then nothing of it is left. usage: demo.sh [BUILD_FOLDER]
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
conf=conf/gateway-sse.yaml
backends=()
gateway=

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The gateway first, and whatever it has still open with it: who presses Ctrl-C does not want to wait.
stop() {
    trap '' INT TERM HUP
    [ -n "$gateway" ] && kill -QUIT "$gateway" 2>/dev/null
    [ ${#backends[@]} -gt 0 ] && kill "${backends[@]}" 2>/dev/null
    wait
}

fail() {
    echo "demo: $1" >&2
    exit 1
}

trap stop EXIT
trap 'exit 0' INT TERM HUP

# wait_for PORT PID WHAT: until somebody answers there, or the process is gone.
wait_for() {
    until answers "$1"; do
        kill -0 "$2" 2>/dev/null || fail "$3 did not start; what it said is above"
        sleep 0.05
    done
}

backend() {
    answers "$2" && fail "port $2 is taken: another demo, perhaps? (see: ss -ltnp)"
    "$build/sse_server" --port "$2" --name "$1" >/dev/null &
    backends+=($!)
    wait_for "$2" $! "backend $1"
}

answers 8080 && fail "port 8080 is taken: another demo, perhaps? (see: ss -ltnp)"
backend sse-1 3010
backend event-1 3011
backend event-2 3012
"$build/gatewayd" -c $conf &
gateway=$!
wait_for 8080 $gateway gatewayd

cat <<END

gatewayd is up on port 8080 with $conf; try, from another terminal:

  curl -N -H "Accept: text/event-stream" http://localhost:8080/events
  curl -N -H "Accept: text/event-stream" -H "X-User-ID: alice" http://localhost:8080/notifications/alice

or open http://localhost:8080/ in a browser. Then edit a file in plugins/ or conf/routes/ and watch
the open stream change. Ctrl-C ends it all.

END
wait $gateway
status=$?
gateway=
[ $status = 0 ] || fail "gatewayd ended with status $status"
