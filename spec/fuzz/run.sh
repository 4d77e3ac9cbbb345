#!/bin/sh
# Runs fuzz targets that were built for libFuzzer, some at a time. One line for each; an input that broke
# something is printed in base64; the last line is how many targets have passed and failed.
#
#     spec/fuzz/run.sh BUILD SECONDS WORK [TARGET...]
#
# WORK keeps what is found: corpus/TARGET, log/TARGET, crash/, and `counts`, to which each run adds a line:
# time, target, executions, seconds, coverage (edges and features), files of its corpus.
# FUZZ_FLAGS: more options of libFuzzer; FUZZ_JOBS: how many at a time.
set -u
build=$1 seconds=$2 work=$3
shift 3
cd "$(dirname "$0")/../.." || exit 1
[ $# -gt 0 ] || set -- $(ls spec/fuzz/*.c | sed 's,.*/\(.*\)\.c$,\1,')
mkdir -p "$work/corpus" "$work/log" "$work/crash"
export ASAN_OPTIONS=max_malloc_fill_size=0:quarantine_size_mb=8:detect_leaks=1
export UBSAN_OPTIONS=print_stacktrace=1
export build seconds work FUZZ_FLAGS="${FUZZ_FLAGS:-}"

# shellcheck disable=SC2016
one='
    target=$0 log=$work/log/$0
    mkdir -p "$work/corpus/$target"
    dirs="$work/corpus/$target"
    for dir in spec/fuzz/corpus/$target spec/fuzz/regressions/$target; do
        [ -d "$dir" ] && dirs="$dirs $dir"
    done
    before=$(date +%s)
    "$build/fuzz/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -entropic=0 \
        -print_final_stats=1 -artifact_prefix="$work/crash/$target-" $FUZZ_FLAGS $dirs >"$log" 2>&1
    result=$?
    took=$(($(date +%s) - before))
    runs=$(sed -n "s/^stat::number_of_executed_units: *//p" "$log")
    cover=$(sed -n "s/^#.*cov: \([0-9]*\) ft: \([0-9]*\).*/\1 \2/p" "$log" | tail -n 1)
    files=$(ls "$work/corpus/$target" | wc -l)
    echo "$(date +%H:%M:%S) $target ${runs:-0} $took ${cover:-0 0} $files" >>"$work/counts"
    [ $result = 0 ] && word=ok || word=FAILED
    echo "$word $target: ${runs:-0} executions in $took s, edges and features ${cover:-0 0}"
    [ $result = 0 ] && exit
    grep -v -e "^#" -e "^INFO" "$log" | cut -c 1-400 | head -n 60
    for input in "$work"/crash/"$target"-*; do
        [ -f "$input" ] && echo "input ${input##*/}, base64:" && base64 -w 0 "$input" && echo
    done
'
said=$(mktemp)
trap 'rm -f "$said"' EXIT
printf '%s\n' "$@" | xargs -P "${FUZZ_JOBS:-2}" -I NAME sh -c "$one" NAME | tee "$said"
failed=$(grep -c '^FAILED' "$said")
echo
echo "$(grep -c '^ok ' "$said") passed, $failed failed"
[ "$failed" = 0 ]
