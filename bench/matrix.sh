#!/bin/bash
# Times a matrix of 12 variants of a Debian image (bench/workspace/matrix), built with the
# host as build root, and prints a table in Markdown with medians:
#   single    the sum of building each variant by itself from an empty store
#   cold      all of them from an empty store, in one build
#   nothing   again
#   shared    again, with a file changed that is in all variants
# and what part cold is of single. Packages are in the store in all of them.
#   bench/matrix.sh [RUNS]            3 runs by default
#   JOBS=N                            as build --jobs; the number of CPUs by default
#   WORK=DIR BIN=FILE                 where, and which osbuild-star
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
runs=${1:-3}
bin=${BIN:-$here/../bin/osbuild-star}
work=$(mktemp -d "${WORK:-/var/tmp}/osbuild-star-matrix.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir -p "$work/ws"
cp -r "$here/workspace/." "$work/ws/"

declare -A times
# timed NAME COMMAND...: adds the seconds that the command took, also to $took
timed() {
	local name=$1 start end
	shift
	start=$(date +%s.%N)
	"$@" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; echo "failed: $*" >&2; exit 1; }
	end=$(date +%s.%N)
	took=$(echo "$end - $start" | bc)
	times[$name]+=" $took"
}
median() { tr ' ' '\n' <<<"${times[$1]# }" | sort -n | awk '{v[NR]=$1} END {printf "%.2f", v[int((NR+1)/2)]}'; }
spread() { tr ' ' '\n' <<<"${times[$1]# }" | sort -n | awk '{v[NR]=$1} END {printf "%.2f to %.2f", v[1], v[NR]}'; }
# A store of its own for each cold build: ext4 is slow to make files after others were
# removed, and none is removed before the run is over. Sources are links to the first.
n=0
fresh() {
	n=$((n + 1))
	mkdir -p "$work/s$n/sources"
	cp -rl "$work/s0/sources/." "$work/s$n/sources/"
	rm -rf --one-file-system "$work/ws/out"
}
star() { "$bin" -C "$work/ws" build -q --store "$work/s$n" ${JOBS:+-j "$JOBS"} "$@"; }

# Not counted: the lock and the packages. The history of the first build goes with its
# store, so that nothing is known of the stages.
star //matrix:box >/dev/null
variants=(//matrix:box@{plain,ssh,web}-{qcow2,raw}-{one,two})
for i in $(seq "$runs"); do
	sum=0
	for v in "${variants[@]}"; do
		fresh
		timed each star "$v"
		sum=$(echo "$sum + $took" | bc)
	done
	times[single]+=" $sum"
	fresh
	timed cold star //matrix:box
	timed nothing star //matrix:box
	timed shared star -D "notice=run $i" //matrix:box
	(cd "$work" && find . -mindepth 1 -maxdepth 1 -name 's[1-9]*' -exec rm -rf --one-file-system {} +)
done

cat <<T
| a matrix of 12 variants | s | least to most |
|---|---|---|
| each by itself, the sum | $(median single) | $(spread single) |
| all in one build, cold | $(median cold) | $(spread cold) |
| nothing changed | $(median nothing) | $(spread nothing) |
| a file changed that all have | $(median shared) | $(spread shared) |

Medians of $runs runs with ${JOBS:-$(nproc)} jobs. The cold matrix takes $(echo "100 * $(median cold) / $(median single)" | bc) % of the sum.
T
