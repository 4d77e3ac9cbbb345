#!/bin/bash
# Runs a command on all specs, each file in a process of its own, twice as many at a time as there are cores:
# more than half of the time they wait. A file in which all is well is one line, of another one all that was
# said is shown. The last line is the sum; a process that ends without a sum of its own counts as failed.
#     spec/support/suite.sh luajit spec/support/busted.lua [OPTION …]
set -u
SAID=$(mktemp -d)
export SAID
trap 'rm -rf "$SAID"' EXIT
at_once=${SUITE_JOBS:-$((2 * $(nproc)))}

# What takes long begins first, so that no core is idle at the end: these, and then the largest.
slow=$(ls -d spec/gateway/{watchdog_load,watchdog,reload_policy,rock,stress,retry,process,reload_streams}_spec.lua \
    spec/cost/memory_spec.lua spec/browser/demo_spec.lua)
others=$(find spec -name '*_spec.lua' -printf '%s %p\n' | sort -rn | cut -d ' ' -f 2 | grep -vxF "$slow")

# What is said comes in one piece, whoever else has something to say.
show() {
    flock "$SAID" cat "$@"
}

one() {
    local file=$1 said counts status passed failed skipped
    said=$SAID/$(echo "$file" | tr / _)
    "${@:2}" "$file" >"$said" 2>&1 </dev/null
    status=$?
    counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)\?$/\1 \2 \4/p' "$said" |
        tail -n 1)
    read -r passed failed skipped <<<"${counts:-0 0 0}"
    if [ "$failed" = 0 ] && { [ "$status" != 0 ] || [ -z "$counts" ]; }; then
        failed=1
        echo "$file: ended with status $status and no failed test" >>"$said"
    fi
    echo "$passed $failed ${skipped:-0}" >>"$SAID/counts"
    if [ "$failed" = 0 ] && [ -z "$skipped" ]; then
        echo "$file: $(sed -n '/ success\(es\)\? \//p' "$said")" | show
    else
        show <(echo "== $file") "$said"
    fi
}
export -f one show

# shellcheck disable=SC2086
printf '%s\n' $slow $others >"$SAID/files"
xargs -P "$at_once" -I {} bash -c 'one "$@"' one {} "$@" <"$SAID/files"
awk -v files="$(wc -l <"$SAID/files")" '
    { passed += $1; failed += $2; skipped += $3 }
    END { failed += files - NR # those that have not even ended
          printf "\n%d passed, %d failed", passed, failed
          if (skipped) printf ", %d skipped", skipped
          print ""
          exit failed > 0 }' "$SAID/counts"
