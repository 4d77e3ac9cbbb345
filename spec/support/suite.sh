#!/bin/sh
# Runs a command on all specs, in two processes at the same time: those with the real binary mostly wait.
# What the first one says is shown when it has ended; the last line is the sum of both.
#     spec/support/suite.sh luajit spec/support/busted.lua [OPTION …]
set -u
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
others=$(ls -d spec/* | grep -v -e '^spec/gateway$' -e '^spec/support$')

"$@" spec/gateway >"$said/gateway" 2>&1 &
# shellcheck disable=SC2086
{ "$@" $others; echo $? >"$said/status"; } 2>&1 | tee "$said/others"
wait $!
status=$?
cat "$said/gateway"
[ "$status" = 0 ] && status=$(cat "$said/status")
sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)\?$/\1 \2 \4/p' "$said/gateway" "$said/others" |
    awk '{ passed += $1; failed += $2; skipped += $3 }
        END { printf "\n%d passed, %d failed", passed, failed
              if (skipped) printf ", %d skipped", skipped
              print "" }'
exit "$status"
