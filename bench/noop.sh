#!/bin/bash
# Times what a stage costs that does nothing: many org.osbuild.noop stages from an empty
# store with the host as build root, by osbuild-star and by upstream osbuild, in turn.
#   bench/noop.sh [RUNS]            5 runs by default
#   OSBUILD_UPSTREAM=DIR            a checkout of upstream osbuild, with what it needs
#                                   (Debian: bubblewrap, python3-jsonschema); without it
#                                   only osbuild-star is timed
#   STAGES=100 WORK=DIR BIN=FILE    how many stages, where, and which osbuild-star
# What is printed is a table in Markdown: medians, and the least and the most.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
runs=${1:-5} stages=${STAGES:-100}
bin=${BIN:-$here/../bin/osbuild-star}
work=$(mktemp -d "${WORK:-/var/tmp}/osbuild-star-noop.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

# manifest TYPE COUNT: stages with different options, so that each has an ID of its own
manifest() {
	echo '{"version": "2", "pipelines": [{"name": "tree", "runner": "org.osbuild.linux", "stages": ['
	for i in $(seq "$2"); do
		case $1 in
		noop) printf '{"type": "org.osbuild.noop", "options": {"n": %d}}' "$i" ;;
		mkdir) printf '{"type": "org.osbuild.mkdir", "options": {"paths": [{"path": "/d%d"}]}}' "$i" ;;
		esac
		[ "$i" = "$2" ] || echo ,
	done
	echo ']}]}'
}
manifest noop 1 >"$work/one.json"
manifest noop "$stages" >"$work/noop.json"
manifest mkdir "$stages" >"$work/mkdir.json"

# Each run has a store of its own. None is removed before the end: the next run would pay
# for it (ext4 looks at every inode that was freed lately before it makes another).
n=0
star() { "$bin" osbuild --store "$work/s$n" --output-directory "$work/o$n" --export tree --events "$work/events-$n" "$1"; }
# Upstream binds /etc/containers of the host and dies where there is none. It gets one in
# a mount namespace of its own, where what it may leave mounted stays, too.
upstream() {
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare -m --propagation private sh -euc '
		if [ ! -e /etc/containers ]; then
			mkdir "$3/etc"
			mount -t tmpfs tmpfs "$3/etc"
			mkdir "$3/etc/upper" "$3/etc/work"
			mount -t overlay -o "lowerdir=/etc,upperdir=$3/etc/upper,workdir=$3/etc/work" overlay /etc
			mkdir /etc/containers
		fi
		cd "$1"
		exec /usr/bin/python3 -m osbuild --libdir "$1" --store "$3/store" --output-directory "$3/out" --export tree "$2"
	' sh "$OSBUILD_UPSTREAM" "$1" "$work/u$n"
}
declare -A times
timed() { # timed NAME COMMAND...: adds the milliseconds that the command took
	local name=$1 start end
	shift
	n=$((n + 1))
	mkdir "$work/u$n"
	start=$(date +%s%N)
	"$@" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; echo "failed: $*" >&2; exit 1; }
	end=$(date +%s%N)
	times[$name]+=" $(((end - start) / 1000))"
}
# stat NAME [BASE]: of the times NAME; with BASE of one stage: (NAME - BASE) / (stages - 1)
stat() {
	paste <(tr ' ' '\n' <<<"${times[$1]# }") <(tr ' ' '\n' <<<"${times[${2:-$1}]# }") |
		awk -v base="${2:-}" -v n=$((stages - 1)) '{ print base == "" ? $1 / 1000 : ($1 - $2) / 1000 / n }' | sort -n |
		awk '{ v[NR] = $1 } END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; printf "%.1f (%.1f to %.1f)", m, v[1], v[NR] }'
}

for _ in $(seq "$runs"); do
	timed one star "$work/one.json"
	timed noop star "$work/noop.json"
	events=$work/events-$n
	timed mkdir star "$work/mkdir.json"
	[ -n "${OSBUILD_UPSTREAM:-}" ] || continue
	timed up_one upstream "$work/one.json"
	timed up_noop upstream "$work/noop.json"
done

up() { if [ -n "${OSBUILD_UPSTREAM:-}" ]; then stat "$@"; else echo "not measured"; fi; }
cat <<T
| ms, median (least to most) of $runs runs | osbuild-star | upstream osbuild |
|---|---|---|
| one noop stage, all in all | $(stat one) | $(up up_one) |
| $stages noop stages, all in all | $(stat noop) | $(up up_noop) |
| **each further noop stage** | **$(stat noop one)** | $(up up_noop up_one) |
| each further stage that makes a directory | $(stat mkdir one) | |
T
if [ -n "${OSBUILD_UPSTREAM:-}" ]; then
	ratio() { awk "BEGIN { split(\"$(stat "$1" "${3:-}")\", a, \" \"); split(\"$(stat "$2" "${4:-}")\", b, \" \"); printf \"%.0f\", b[1] / a[1] }"; }
	echo
	echo "Upstream takes $(ratio noop up_noop) times as long for all of them, and $(ratio noop up_noop one up_one) times for each."
fi
# Where the time goes: of the last run, by what it said itself.
awk -v stages="$stages" '
	function field(name) { return match($0, "\"" name "\":[^,}]*") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : "" }
	field("kind") == "\"end\"" {
		name = field("name"); gsub("\"", "", name)
		if (name ~ /^start /) root = field("duration")
		else if (name ~ /^commit/) commit += field("duration")
		else if (name == "prepare" || name == "run") sum[name] += field("duration")
	}
	END {
		printf "\nOf the last run: %.0f ms to start the build root with its runner; of a stage %.2f ms in the sandbox, %.2f to commit, %.2f to open its inputs.\n",
			root / 1e6, sum["run"] / 1e6 / stages, commit / 1e6 / stages, sum["prepare"] / 1e6 / stages
	}' "$events"
